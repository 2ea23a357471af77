import {
  type EndOptions,
  Grace,
  KILL_LOOKS,
  lookUntil,
  signalGroup,
  signalProcess,
} from "./grace.ts";
import {
  bootId,
  processesWithOther,
  type ProcessIdentity,
  type ProcessStat,
  searchProcesses,
} from "./proc.ts";
import { killNewest, markPattern, seeNewest } from "./mark.ts";

/** By what a left-over process is known. */
export interface SurvivorMark {
  /** Name of a variable that everything of interest had in its environment when it started. */
  variable: string;
  value: string;
  /** Of everything of interest, too: see mark.ts. */
  mark?: number | undefined;
  /**
   * A second variable: what has it with another value is not the job's, though it has the first.
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
const LOOKS_AT_NEWEST = 20;
/** The same to see whether there is one at all: of what starts itself again and again, one look sees nine of ten. */
const LOOKS_FOR_NEWEST = 8;

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

/** What one look at all processes shows. */
interface Seeing {
  survivors: ProcessStat[];
  processes: ProcessStat[];
  /** One was there and is not any more, maybe because it has replaced itself. */
  fleeting: boolean;
  /** Though there are no survivors, one of the newest processes has the mark. */
  isHiding: boolean;
}

async function look(of: SurvivorMark): Promise<Seeing> {
  const { variable, value, mark, owner } = of;
  const { withEntry, withLimit, processes, besideStatus } = await searchProcesses({
    entry: `${variable}=${value}`,
    ...(mark !== undefined && {
      limit: markPattern(mark),
      beside: seeNewest(mark, LOOKS_FOR_NEWEST),
    }),
  });
  const others = owner === undefined ? [] : await processesWithOther(withEntry, owner);
  const marked = new Set([...withEntry.filter((pid) => !others.includes(pid)), ...withLimit]);
  const boot = await bootId();
  const byPid = new Map(processes.map((process) => [process.pid, process]));
  // The number of a group is reused only when none of its processes is left. So one member that is
  // known proves that all of them are meant.
  const groups = new Set(
    of.groups.filter(({ pid, startTime, bootId }) =>
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
  const survivors = [...found.values()].filter((process) => !process.dead);
  return {
    survivors,
    processes,
    fleeting: [...marked].some((pid) => !byPid.has(pid)),
    isHiding: survivors.length === 0 && besideStatus === 1,
  };
}

/**
 * Ends what `findSurvivors()` finds: TERM, then KILL for what is alive after the grace, again and
 * again until nothing new is found or nothing more can be done. With a mark this reaches programs that
 * start themselves again and end, over and over, faster than all processes can be looked at.
 *
 * @param options `beside`: what others end meanwhile. A first look is taken while they do, and counts when
 * they say that there was nothing.
 * @throws Error when the processes of the host cannot be read.
 */
export async function endSurvivors(
  options: SurvivorMark & EndOptions & { beside?: Promise<"nothing" | "something"> },
): Promise<SurvivorsEnd> {
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
    killed += await killNewest(options.mark, LOOKS_AT_NEWEST);
    return killed > before;
  };

  /** Finds survivors, and sends each a signal: KILL to all, TERM to the new ones among them. */
  const round = async (signal: "SIGTERM" | "SIGKILL") => {
    // It takes a process to look, and the survivors may be all that this user may have.
    const seeing = await (ahead ?? look(options)).catch((error) => void (blind = { error }));
    ahead = undefined;
    if (seeing === undefined) return signal === "SIGKILL" ? "again" : "give up";
    blind = undefined;
    const { survivors, processes, fleeting, isHiding } = seeing;
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
    if (signal === "SIGTERM") return !isQuiet ? "again" : isHiding ? "give up" : "done";

    const isNews = news.length > 0 || fleeting ||
      (isHiding || alive.length > 0) && await hunt();
    if (isQuiet && !isNews) return "done";
    looksWithoutNews = isNews ? 0 : looksWithoutNews + 1;
    return ++looks < MOST_LOOKS && looksWithoutNews < LOOKS_WITHOUT_NEWS ? "again" : "give up";
  };

  let ahead: Promise<Seeing> | undefined = look(options);
  ahead.catch(() => {});
  if (await options.beside === "something") ahead = undefined;
  using grace = new Grace(options);
  const gone = !grace.over.aborted &&
    await lookUntil(() => round("SIGTERM"), { over: grace.over });
  if (!gone) await lookUntil(() => round("SIGKILL"), {});

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
