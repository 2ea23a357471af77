/**
 * The list of processes, and which of them is meant. Deno opens nothing under /proc without `--allow-all`, which the agent is
 * not given, so small standard tools (`cat`, `grep`) read it on our behalf.
 */
import { once } from "../once.ts";
import { inOwnSession } from "../own_session.ts";

/** One process, as /proc/<pid>/stat tells it (see proc_pid_stat(5)). */
export interface ProcessStat {
  pid: number;
  /** At most 15 bytes, chosen by the process itself: any characters, also newlines. */
  name: string;
  parent: number;
  /** Id of the process group. */
  group: number;
  session: number;
  /** Ended, and only its exit status is left (a zombie). */
  dead: boolean;
  /** Clock ticks from the start of the host to that of the process. */
  startTime: number;
}

/** How many fields the line has at least; the kernel has had 44 since 2.6.24 and 52 since 3.5. */
const FEWEST_FIELDS = 44;

/** Parses one /proc/<pid>/stat; undefined unless it is whole. */
export function parseStat(text: string): ProcessStat | undefined {
  const open = text.indexOf(" (");
  // The name may hold spaces, parentheses and newlines; nothing behind it does.
  const close = text.lastIndexOf(") ");
  if (open <= 0 || close < open) return undefined;
  const pid = Number(text.slice(0, open));
  const fields = text.slice(close + 2).trimEnd().split(" ");
  if (fields.length < FEWEST_FIELDS - 2) return undefined;
  const state = fields[0] ?? "";
  const numbers = fields.slice(1).map(Number);
  if (!Number.isInteger(pid) || state.length !== 1 || numbers.some(Number.isNaN)) return undefined;
  // proc_pid_stat(5) counts from 1: state is field 3, so field n is numbers[n - 4].
  const field = (n: number) => numbers[n - 4] ?? 0;
  return {
    pid,
    name: text.slice(open + 2, close),
    parent: field(4),
    group: field(5),
    session: field(6),
    // Other threads may outlive a process's first one, which is then shown as a zombie.
    dead: state === "X" || (state === "Z" && field(20) <= 1),
    startTime: field(22),
  };
}

/** Parses many /proc/<pid>/stat files, one behind the other. */
export function parseStats(text: string): ProcessStat[] {
  const found: ProcessStat[] = [];
  let record = "";
  for (const line of text.split("\n")) {
    // Part of a name that holds a newline: the record goes on in the next line.
    record = record === "" ? line : `${record}\n${line}`;
    const stat = parseStat(record);
    if (stat === undefined) continue;
    found.push(stat);
    record = "";
  }
  return found;
}

/**
 * All processes of this host (or container) that this user may see.
 *
 * @throws Error when /proc cannot be read.
 */
export async function allProcesses(): Promise<ProcessStat[]> {
  const { pid, text } = await askShell("exec cat /proc/[0-9]*/stat");
  return listedIn(text, pid);
}

/** @param asked the tool that says so: it sees itself, or what it says is not the whole list. */
function listedIn(text: string, asked: number): ProcessStat[] {
  const found = parseStats(text);
  const self = found.findIndex((process) => process.pid === asked);
  if (self < 0) throw new Error("Cannot list the processes of this host: is /proc mounted?");
  found.splice(self, 1);
  return found;
}

/** Those of `pids` that exist. */
export async function processesOf(pids: readonly number[]): Promise<ProcessStat[]> {
  if (pids.length === 0) return [];
  const { text } = await ask(["cat", ...pids.map((pid) => `/proc/${pid}/stat`)]);
  return parseStats(text);
}

/** By what processes are looked for. */
interface ProcessSearch {
  /** `NAME=VALUE`, in one line, in the environment as it was when their program started. */
  entry: string;
  /** A regular expression for a line of their limits. */
  limit?: string | undefined;
  /** Program and arguments of what looks at something else meanwhile, and says by its exit status what it saw. */
  beside?: readonly string[] | undefined;
}

/** What a search finds. */
export interface ProcessesFound {
  withEntry: number[];
  withLimit: number[];
  /** All there are, as they were after the search. */
  processes: ProcessStat[];
  /** The exit status of `beside`. */
  besideStatus: number;
}

/**
 * The processes that have an entry in their environment, those that have a limit, and all of them: in one
 * go, since starting a program takes as long as looking.
 *
 * @throws Error when nobody can look.
 */
export async function searchProcesses(
  { entry, limit = "", beside = [] }: ProcessSearch,
): Promise<ProcessesFound> {
  if (entry.includes("\n")) throw new Error("Cannot look for an environment entry of two lines");
  const { pid, code, text } = await askShell(SEARCH, entry, limit, ...beside);
  refuseFailure(code);
  // Names of processes come between the two lines: nobody can choose one that is taken for something else.
  const begin = text.indexOf(PROCESSES);
  const end = text.lastIndexOf(BESIDE);
  if (begin < 0 || end < begin) throw new Error("Cannot search the processes of this host");
  const files = text.slice(0, begin).split("\n");
  return {
    withEntry: pidsOf(files.filter((file) => file.endsWith("/environ"))),
    withLimit: pidsOf(files.filter((file) => file.endsWith("/limits"))),
    processes: listedIn(text.slice(begin + PROCESSES.length, end), pid),
    besideStatus: Number(text.slice(end + BESIDE.length)),
  };
}

const PROCESSES = "processes:\n";
const BESIDE = "beside: ";

/** Runs what is behind `$2` beside it. */
const SEARCH = `entry=$1 limit=$2
shift 2
if [ $# -gt 0 ]; then "$@" >/dev/null & fi
grep -lszxF -e "$entry" /proc/[0-9]*/environ
code=$?
if [ "$code" -le 2 ] && [ -n "$limit" ]; then
  grep -lsE -e "$limit" /proc/[0-9]*/limits
  code=$?
fi
[ "$code" -le 2 ] || exit "$code"
echo processes:
cat /proc/[0-9]*/stat
code=0
[ $# -eq 0 ] || { wait $!; code=$?; }
echo "beside: $code"`;

/** The processes that have an entry in their environment. See `searchProcesses()`. */
export async function processesWith(entry: string): Promise<number[]> {
  return (await searchProcesses({ entry })).withEntry;
}

/**
 * Those of `pids` that had the variable in their environment when they started, but with another
 * value.
 *
 * @throws Error when nobody can look.
 */
export async function processesWithOther(
  pids: readonly number[],
  { variable, value }: { variable: string; value: string },
): Promise<number[]> {
  const files = pids.map((pid) => `/proc/${pid}/environ`);
  if (files.length === 0) return [];
  const search = async (...how: string[]) => {
    const { code, text } = await ask(["grep", ...how, ...files]);
    refuseFailure(code);
    return pidsOf(text.split("\n"));
  };
  const having = await search("-lsz", "-e", `^${variable}=`);
  const same = await search("-lszxF", "-e", `${variable}=${value}`);
  return having.filter((pid) => !same.includes(pid));
}

/** grep says 1 when nothing matched, and 2 when there was a file that it could not read. */
function refuseFailure(code: number): void {
  if (code > 2) {
    throw new Error(`Cannot search the processes of this host: grep ended with ${code}`);
  }
}

function pidsOf(files: readonly string[]): number[] {
  return files.filter((file) => file !== "").map((file) => Number(file.split("/")[2]));
}

/** What a tool says, and which process it was. */
interface Said {
  pid: number;
  code: number;
  text: string;
}

/** What a tool says that reads /proc. No Ctrl-C on the agent's terminal reaches it. */
export function ask(argv: readonly [string, ...string[]]): Promise<Said> {
  return saidBy(inOwnSession(argv[0], { args: argv.slice(1), ...ASKED }));
}

/** The same for a script of a shell, which does not take another program for it. */
export function askShell(script: string, ...args: string[]): Promise<Said> {
  return saidBy(
    new Deno.Command("/bin/sh", { args: ["-c", `${DEAF}\n${script}`, "sh", ...args], ...ASKED }),
  );
}

/** What a terminal sends, whatever the agent is to make of it. */
const DEAF = "trap '' HUP INT QUIT TSTP";

/** Its environment carries nothing of ours. */
const ASKED = {
  clearEnv: true,
  env: { PATH: "/usr/bin:/bin", LC_ALL: "C" },
  cwd: "/",
  stdin: "null",
  stdout: "piped",
  stderr: "null",
} as const;

async function saidBy(command: Deno.Command): Promise<Said> {
  const child = command.spawn();
  const { stdout, code } = await child.output();
  return { pid: child.pid, code, text: new TextDecoder().decode(stdout) };
}

/**
 * Which process is meant, also after it has ended, its number has been given to another one, and
 * the host was rebooted.
 */
export interface ProcessIdentity {
  /** Also the number of the process group and session that it leads, for a group of ours. */
  pid: number;
  /** Field 22 of /proc/<pid>/stat: clock ticks from the start of the host to that of the process. */
  startTime: number;
  /** /proc/sys/kernel/random/boot_id */
  bootId: string;
}

/**
 * A shell's own identity, on one line: `parseIdentity()` reads it. Nobody has variables of these names in
 * the environment, so a subshell, which is another process, need not keep them.
 */
export const SAY_IDENTITY = "read -r _tf_boot </proc/sys/kernel/random/boot_id && " +
  `read -r _tf_stat </proc/$$/stat && printf '%s %s\\n' "$_tf_boot" "$_tf_stat"`;

/** Reads what `SAY_IDENTITY` printed. */
export function parseIdentity(line: string): ProcessIdentity | undefined {
  const space = line.indexOf(" ");
  const stat = parseStat(line.slice(space + 1));
  if (space <= 0 || stat === undefined) return undefined;
  return { pid: stat.pid, startTime: stat.startTime, bootId: line.slice(0, space) };
}

/** Changes with each start of the host. */
export const bootId: () => Promise<string> = once(async () => {
  const { text } = await ask(["cat", "/proc/sys/kernel/random/boot_id"]);
  if (text.trim() === "") throw new Error("Cannot read /proc/sys/kernel/random/boot_id");
  return text.trim();
});

/** The identity of a process that lives; undefined when there is none of that number. */
export async function identityOf(pid: number): Promise<ProcessIdentity | undefined> {
  const [stat] = await processesOf([pid]);
  if (stat === undefined || stat.dead) return undefined;
  return { pid, startTime: stat.startTime, bootId: await bootId() };
}

/** Whether this very process lives. One that has ended and waits for its parent (a zombie) does not. */
export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  if (identity.bootId !== await bootId()) return false;
  return (await identityOf(identity.pid))?.startTime === identity.startTime;
}
