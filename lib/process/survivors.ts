import {
  type EndOptions,
  Grace,
  KILL_LOOKS,
  lookUntil,
  signalGroup,
  signalProcess,
} from "./grace.ts";
import {
  allProcesses,
  bootId,
  processesWithOther,
  type ProcessIdentity,
  type ProcessStat,
  searchProcesses,
} from "./proc.ts";
import { killNewest, markPattern } from "./mark.ts";

/** By what a left-over process is known. */
export interface SurvivorMark {
  /** Name of a variable that everything of interest had in its environment when it started. */
  variable: string;
  value: string;
  /** Of everything of interest, too: see mark.ts. */
  mark?: number | undefined;
  /**
   * A second variable: what has it with another value is somebody else's, though it has the first.
   */
  owner?: { variable: string; value: string };
  /** Groups that were recorded when they were started. */
  groups: readonly ProcessIdentity[];
}

/** A process that was found. */
export interface Survivor {
  pid: number;
  /** At most 15 bytes, chosen by the process itself. */
  name: string;
}

/** What became of the survivors. */
export interface SurvivorsEnd {
  ended: Survivor[];
  /** Killed besides, too short-lived to tell more of them. */
  fleeting: number;
  /** Not ended: another user's, stuck in the kernel, or born faster than they could be killed. */
  left: (Survivor & { why: "not_permitted" | "still_alive" })[];
}

/** Looks in a row that find nothing new before it is taken for granted that nothing more can be done. */
const LOOKS_WITHOUT_NEWS = KILL_LOOKS;
/** Looks for what forks faster than it is killed. */
const MOST_LOOKS = 200;
/** Looks at the newest processes, of 0.3 ms each, that find none any more. */
const HUNTS_WITHOUT_NEWS = 20;

/**
 * Finds what is left of earlier commands, wherever it has gone: processes that have the variable, or
 * the mark; those of a recorded group or session of which the leader or a process with either is there
 * to prove that it is the same one; and whatever descends from any of these. Never the agent itself,
 * nor what it was started by. What has cleared its environment, lowered its limits, and lost its parent
 * and everyone of its group, is not found.
 *
 * @throws Error when the processes of the host cannot be read.
 */
export async function findSurvivors(mark: SurvivorMark): Promise<ProcessStat[]> {
  return (await look(mark)).survivors;
}

async function markedProcesses(of: SurvivorMark): Promise<Set<number>> {
  const { variable, value, mark, owner } = of;
  const { withEntry, withLimit } = await searchProcesses({
    entry: `${variable}=${value}`,
    limit: mark === undefined ? undefined : markPattern(mark),
  });
  const others = owner === undefined ? [] : await processesWithOther(withEntry, owner);
  return new Set([...withEntry.filter((pid) => !others.includes(pid)), ...withLimit]);
}

/** `fleeting`: one was there and is not any more, maybe because it has replaced itself. */
async function look(
  mark: SurvivorMark,
): Promise<{ survivors: ProcessStat[]; processes: ProcessStat[]; fleeting: boolean }> {
  const marked = await markedProcesses(mark);
  const processes = await allProcesses();
  const boot = await bootId();
  const byPid = new Map(processes.map((process) => [process.pid, process]));
  // The number of a group is reused only when none of its processes is left. So one member that is
  // known proves that all of them are meant.
  const groups = new Set(
    mark.groups.filter(({ pid, startTime, bootId }) =>
      bootId === boot &&
      (byPid.get(pid)?.startTime === startTime ||
        processes.some((process) => process.group === pid && marked.has(process.pid)))
    ).map(({ pid }) => pid),
  );
  const spared = new Set<number>();
  for (let pid = Deno.pid; pid > 0 && !spared.has(pid); pid = byPid.get(pid)?.parent ?? 0) {
    spared.add(pid);
  }
  const children = Map.groupBy(processes, (process) => process.parent);
  const next = processes.filter(({ pid, group, session }) =>
    marked.has(pid) || groups.has(group) || groups.has(session)
  );
  const found = new Map<number, ProcessStat>();
  for (let process = next.pop(); process !== undefined; process = next.pop()) {
    if (found.has(process.pid) || spared.has(process.pid)) continue;
    found.set(process.pid, process);
    next.push(...children.get(process.pid) ?? []);
  }
  return {
    survivors: [...found.values()].filter((process) => !process.dead),
    processes,
    fleeting: [...marked].some((pid) => !byPid.has(pid)),
  };
}

/**
 * Ends what `findSurvivors()` finds: TERM, then KILL for what is alive after the grace, again and
 * again until nothing new is found or nothing more can be done. With a mark this reaches programs that
 * start themselves again and end, over and over, faster than all processes can be looked at.
 *
 * @throws Error when the processes of the host cannot be read.
 */
export async function endSurvivors(options: SurvivorMark & EndOptions): Promise<SurvivorsEnd> {
  const seen = new Map<string, ProcessStat>();
  const refused = new Set<string>();
  let alive: ProcessStat[] = [];
  let blind: { error: unknown } | undefined;
  let looks = 0;
  let looksWithoutNews = 0;

  let killed = 0;
  /** Kills what is too short-lived to be seen. Returns whether there was anything. */
  const hunt = async () => {
    if (options.mark === undefined) return false;
    const before = killed;
    killed += await killNewest(options.mark, HUNTS_WITHOUT_NEWS);
    return killed > before;
  };

  /** Finds survivors, and sends each a signal: KILL to all, TERM to the new ones among them. */
  const round = async (signal: "SIGTERM" | "SIGKILL") => {
    // It takes a process to look, and the survivors may be all that this user may have.
    const seeing = await look(options).catch((error) => void (blind = { error }));
    if (seeing === undefined) return signal === "SIGKILL" ? "again" : "give up";
    blind = undefined;
    const { survivors, processes, fleeting } = seeing;
    alive = survivors;
    const news = alive.filter((process) => !seen.has(keyOf(process)));
    const due = signal === "SIGTERM"
      ? news
      : alive.filter((process) => !refused.has(keyOf(process)));
    for (const process of alive) seen.set(keyOf(process), process);
    for (const group of signal === "SIGKILL" ? wholeGroups(due, processes) : []) {
      // All at once, so that none of them can fork meanwhile.
      signalGroup(group, signal);
    }
    for (const process of due) {
      if (signalProcess(process.pid, signal) === "refused") refused.add(keyOf(process));
      else if (signal === "SIGTERM") signalProcess(process.pid, "SIGCONT");
    }
    if (alive.length > 0 && alive.every((process) => refused.has(keyOf(process)))) return "give up";
    const isQuiet = alive.length === 0 && !fleeting;
    if (signal === "SIGTERM") return isQuiet ? "done" : "again";

    const isNews = news.length > 0 || fleeting || await hunt();
    if (isQuiet && !isNews) return "done";
    looksWithoutNews = isNews ? 0 : looksWithoutNews + 1;
    return ++looks < MOST_LOOKS && looksWithoutNews < LOOKS_WITHOUT_NEWS ? "again" : "give up";
  };

  using grace = new Grace(options);
  const gone = !grace.over.aborted &&
    await lookUntil(() => round("SIGTERM"), { over: grace.over });
  if (!gone || await hunt()) await lookUntil(() => round("SIGKILL"), {});

  if (blind !== undefined) throw blind.error;

  const left = new Set(alive.map(keyOf));
  return {
    ended: [...seen].filter(([key]) => !left.has(key)).map(([, process]) => survivor(process)),
    fleeting: killed,
    left: alive.map((process) => ({
      ...survivor(process),
      why: refused.has(keyOf(process)) ? "not_permitted" : "still_alive",
    })),
  };
}

/** Groups of which every living member is among `some`. */
function wholeGroups(some: readonly ProcessStat[], all: readonly ProcessStat[]): number[] {
  const pids = new Set(some.map((process) => process.pid));
  const groups = new Set(some.map((process) => process.group));
  // What is in a group of another process namespace shows 0.
  groups.delete(0);
  for (const { pid, group, dead } of all) {
    if (!dead && !pids.has(pid)) groups.delete(group);
  }
  return [...groups];
}

/** A pid alone may be given to another process while we look. */
function keyOf({ pid, startTime }: ProcessStat): string {
  return `${pid} ${startTime}`;
}

function survivor({ pid, name }: ProcessStat): Survivor {
  return { pid, name };
}
