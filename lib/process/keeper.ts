/**
 * A command that outlives the process which started it, and is found again by the next one.
 *
 * Between the command and us stands a keeper: a few small standard tools in a session of their own
 * (together about 1 MB), which put what the command prints on the disk, and how it ended. Everything
 * is in one folder:
 *
 * | file       | made by     | what                                                                 |
 * | ---------- | ----------- | -------------------------------------------------------------------- |
 * | `keeper`   | the keeper  | its identity                                                         |
 * | `command`  | the command | its identity, in a line of `SAY_IDENTITY`                            |
 * | `begun`    | either      | empty: the command has made it, and runs. A link to `never`: we have |
 * |            |             | made it, since the command had not begun; it never will              |
 * | `output.N` | the keeper  | what the command prints, in pieces: see kept_output.ts               |
 * | `trouble`  | the keeper  | a piece of the output could not be written; the rest is tried again  |
 * | `end`      | us          | what the keeper prints itself behind the output of the command       |
 * | `eof`      | the keeper  | nothing more is printed, by nobody                                   |
 * | `status`   | the keeper  | how the command ended: see `exitIn()`; what it has used: see usage.ts |
 * | `wanted`   | us          | removed when nobody wants more of the output                         |
 *
 * `keeper`, `command`, `trouble` and `status` are made beforehand with room for their text, and
 * written in place with one call: a full disk takes none of them away, and each is whole or blank.
 */
import { join } from "node:path";
import { exists } from "../exists.ts";
import { systemClock } from "../clock.ts";
import { messageOf } from "../message.ts";
import { shellCommand } from "../shell.ts";
import type { Exit } from "./exit.ts";
import type { EndOptions } from "./grace.ts";
import { type GroupEnd, LeadingCommand, RUN_WITHOUT_INHERITED, whyNot } from "./group.ts";
import { FolderWatch } from "./folder_watch.ts";
import { bootId, parseIdentity, type ProcessIdentity, SAY_IDENTITY } from "./identity.ts";
import { discardOutput, KeptOutput, OUTPUT_START, type OutputPlace } from "./kept_output.ts";
import { SET_MARK } from "./mark.ts";
import { parseStat, processesOf } from "./proc.ts";
import { Pump } from "./pump.ts";
import { supervise, type SuperviseOptions, type SuperviseResult } from "./run.ts";
import { signalProcess } from "./signal.ts";
import { type GroupUsage, parseUsage, SAY_USAGE } from "./usage.ts";
import { inOwnSession } from "../own_session.ts";

/** How a command is started. */
export interface KeepOptions {
  /** Where its keeper has its files; does not exist yet. */
  folder: string;
  /** Working directory. */
  cwd: string;
  /** The whole environment; nothing of the agent's own is added. */
  env: Record<string, string>;
  /** The folder of a control group, which the command joins before it becomes what it is. */
  cgroup?: string | undefined;
  /** Carried by everything that the command starts: see mark.ts. */
  mark?: number | undefined;
}

/** What `startKept()` comes to. */
export type KeptStart =
  | { started: true; command: KeptCommand }
  /** One line for people: which program or folder is missing, or not to be used. */
  | { started: false; message: string };

/** The line of `keeper` and of `command` is about 400 bytes, mostly numbers of the kernel's; `status` less. */
const ROOM_BYTES = 1024;
/** How long the last words are waited for of what has ended otherwise than it should have. */
const WORDS_MS = 1_000;
const ROOMS = ["keeper", "command", "trouble", "status"] as const;

/**
 * The keeper, a POSIX shell script: `$1` is its folder, `$2` what awk runs with its own shell, `$3` what
 * is in `end`, `$4` the folder of the command's control group or empty, `$5` what
 * `awkShowing()` came to.
 *
 * A shell cannot tell `exit 143` from a death by SIGTERM, and a command that it starts in the
 * background ignores SIGINT. awk's `system()` has neither fault; but how it writes a death by signal
 * differs, so that belongs to the status. One that does not show it at all (busybox) leaves it to a shell.
 *
 * A pipe and not the file itself is what the command prints to: it would truncate a file with
 * `> /dev/stdout`. dd reads from the pipe a number of pieces and then ends, always behind a whole
 * piece: so the output is in files of which we remove those that we have read, without stopping
 * anything. With 256 MiB unread the command has to wait.
 */
const KEEPER = `
(${SAY_IDENTITY}) 1<>"$1/keeper" || exit 125
exec awk '${SAY_USAGE}
BEGIN {
  shown = ARGV[4] == "" ? system("kill -9 $$") : ARGV[4]
  print shown, shown ? system("exec " ARGV[1]) : system("(exec " ARGV[1] "); exit $?")
  if (ARGV[3] != "") say_usage(ARGV[3])
  fflush()
  printf "\\001%s", ARGV[2] >"/dev/fd/3"
}' "$2" "$3" "$4" "$5" 3>&1 1<>"$1/status" | {
  n=0
  while :; do
    dd bs=32k count=1024 of="$1/output.$n" 2>/dev/null
    code=$?
    if [ "$code" -ne 0 ]; then
      printf '%s %s\\n' "$code" "$n" 1<>"$1/trouble"
      sleep 1
    elif [ ! -s "$1/output.$n" ] && [ -e "$1/output.$n" ]; then
      break
    fi
    n=$((n + 1))
    while [ -e "$1/output.$((n - 8))" ] && [ -e "$1/wanted" ] &&
      du -sk "$1" | { read -r size rest && [ "$size" -gt 262144 ]; }; do sleep 1; done
    [ -e "$1/wanted" ] || exec cat >/dev/null
  done
  : >"$1/eof"
}`;

/**
 * What the command starts as, in a session and group of its own: it says who it is, makes sure that
 * it may begin, then becomes the command. `$1` is the keeper's folder, `$2` the cgroup's folder or
 * empty, `$3` the mark or empty. Commands leave no core files: see `startGroup()`.
 */
const LAUNCH = `ulimit -S -c 0
(${SAY_IDENTITY}) 1<>"$1/command" || exit 125
(set -C; : >"$1/begun") 2>/dev/null || exit 125
[ -z "$2" ] || { printf '0\\n' >"$2/cgroup.procs"; } 2>/dev/null
shift 2
${SET_MARK}
shift
exec "$@"`;

/**
 * Starts a command with a keeper.
 *
 * The folder is what it is found by: the caller notes its path before, since each moment may be the
 * last of this process. `findKept()` tells the next one how far it has come.
 *
 * @param argv program and arguments; a program without a slash is looked for in `env.PATH`.
 */
export async function startKept(
  argv: readonly string[],
  options: KeepOptions,
): Promise<KeptStart> {
  const { folder, cwd, env, cgroup = "", mark = "" } = options;
  const refusal = await whyNot(argv, options);
  if (refusal !== undefined) return { started: false, message: refusal };
  const launch = ["setsid", "/bin/sh", "-c", LAUNCH, "sh", folder, cgroup, `${mark}`, ...argv];
  try {
    const shown = await awkShowing(env);
    const token = crypto.randomUUID();
    makeFolder(folder, token);
    using watch = new FolderWatch(folder);
    const keeper = inOwnSession("/bin/sh", {
      args: [
        ...["-c", RUN_WITHOUT_INHERITED, "sh", KEEPER],
        ...[folder, `${shellCommand(launch)} >&3 2>&1 3>&-`, token, cgroup, shown],
      ],
      cwd,
      env,
      clearEnv: true,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    // We need not live as long as it does.
    keeper.unref();
    let isGone = false;
    keeper.status.then(() => {
      isGone = true;
      watch.wake();
    }, () => {});
    while (true) {
      const changed = watch.changed();
      // In this order: a command may begin and end while we look.
      const isOver = isGone || exitIn(folder) !== undefined;
      if (exists(join(folder, "begun"))) break;
      if (isOver) return { started: false, message: await whyNotBegun(argv, folder, watch) };
      await changed;
    }
    const command = commandIn(folder, OUTPUT_START);
    if (command !== undefined) return { started: true, command };
    throw new Error(`there is nothing in ${join(folder, "command")}`);
  } catch (error) {
    return { started: false, message: `Cannot start ${argv[0]}: ${messageOf(error)}` };
  }
}

/** By what decides which awk it is, and how that behaves. */
const showings = new Map<string, Promise<string>>();

/**
 * What awk's `system()` makes of a death by signal 9: asked once for all commands that find the same
 * awk, since dying takes longer than the rest of starting a keeper.
 *
 * @returns empty where there is no answer: the keeper then asks itself.
 */
function awkShowing({ PATH = "", POSIXLY_CORRECT }: Record<string, string>): Promise<string> {
  const key = JSON.stringify([PATH, POSIXLY_CORRECT]);
  const known = showings.get(key) ?? new Deno.Command("awk", {
    args: [`BEGIN { print system("kill -9 $$") }`],
    env: { PATH, ...(POSIXLY_CORRECT !== undefined && { POSIXLY_CORRECT }) },
    clearEnv: true,
    stdin: "null",
    stderr: "null",
  }).output().then(({ stdout }) => new TextDecoder().decode(stdout).trim(), () => "");
  showings.set(key, known);
  return known;
}

/**
 * Finds a command that an earlier process was about to start, or has started.
 *
 * @param from where reading its output goes on.
 * @returns undefined when it has not begun. It never will then: another one may be started, with a
 * folder of its own.
 */
export function findKept(folder: string, from: OutputPlace): KeptCommand | undefined {
  return claim(folder) ? undefined : commandIn(folder, from);
}

/** Whether the command in this folder has not begun, and is now kept from it. */
function claim(folder: string): boolean {
  try {
    // As `set -C` does: exactly one of us makes it. A link, since it has its content at once then.
    Deno.linkSync(join(folder, "never"), join(folder, "begun"));
    return true;
  } catch (error) {
    // Nothing is started before its folder is complete.
    if (error instanceof Deno.errors.NotFound) return true;
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    return Deno.readTextFileSync(join(folder, "begun")) !== "";
  }
}

/**
 * Why some of the output is lost: what puts it on the disk was killed, and goes on with what comes
 * next; or the disk is full, or has another fault.
 */
export type OutputTrouble = "killed" | "not writable";

/** A command that runs under a keeper, or has run. */
export class KeptCommand implements Disposable {
  /** The command, which leads its group: its pid is the group's number too. */
  readonly identity: ProcessIdentity;
  /** The end of the command itself; others of its group may live on. */
  readonly exit: Promise<Exit>;
  /** What is printed, from where reading begins or goes on. */
  readonly output: ReadableStream<Uint8Array>;
  /** Resolves when it has ended, and everything that it has printed itself was read from `output`. */
  readonly whole: Promise<void>;
  readonly #output: KeptOutput;
  readonly #folder: string;
  readonly #watch: FolderWatch;
  readonly #leader: LeadingCommand;
  #isLetGo = false;
  #trouble = "";
  #onTrouble: ((trouble: OutputTrouble) => void) | undefined;

  constructor(folder: string, { identity, parent }: CommandLine, from: OutputPlace) {
    this.#folder = folder;
    this.identity = identity;
    this.#watch = new FolderWatch(folder);
    this.#output = new KeptOutput(folder, from);
    this.output = this.#output.stream(this.#watch);
    this.exit = this.#untilEnded(parent);
    // Who would put the mark behind its output is gone then, too.
    const lost = this.exit.then(({ kind }) =>
      kind === "lost" ? systemClock.sleep(WORDS_MS) : never
    );
    this.whole = Promise.race([this.#output.whole, lost]);
    this.#leader = new LeadingCommand(this);
  }

  /** Ends every process of the group: TERM, then KILL for what is alive after the grace. */
  async end(options: EndOptions): Promise<GroupEnd> {
    // The number of a group says nothing once the host was rebooted.
    if (this.identity.bootId !== await bootId()) return { exit: await this.exit, left: [] };
    return await this.#leader.endGroup(options);
  }

  /** Calls `listener` when some of the output could not be put on the disk, and is lost. */
  whenTroubled(listener: (trouble: OutputTrouble) => void): void {
    this.#onTrouble = listener;
    this.#watch.wake();
  }

  /** The place in the output `back` bytes before what comes next. */
  place(back = 0): OutputPlace {
    return this.#output.place(back);
  }

  /** What it has used, with all that it had started, when it ended; as far as its control group tells. */
  get usage(): GroupUsage {
    return parseUsage(textOf(this.#folder, "status"));
  }

  /** When something was printed last. */
  get printedAt(): Date | undefined {
    return this.#output.writtenAt;
  }

  /** Nobody will read what is before `place` again. */
  release(place: OutputPlace): void {
    this.#output.release(place);
  }

  /** The command is over, and what was left of its output too: what else comes is thrown away. */
  discard(): void {
    this[Symbol.dispose]();
    discardOutput(this.#folder);
  }

  /** Lets go of the command: it goes on, and `findKept()` finds it again. */
  [Symbol.dispose](): void {
    this.#isLetGo = true;
    this.#output[Symbol.dispose]();
    this.#watch[Symbol.dispose]();
  }

  async #untilEnded(parent: number): Promise<Exit> {
    while (!this.#isLetGo) {
      const changed = this.#watch.changed((name) => name === "status" || name === "trouble");
      this.#lookForTrouble();
      const exit = exitIn(this.#folder);
      if (exit !== undefined) return exit;
      if (await this.#isLost(parent)) return exitIn(this.#folder) ?? { kind: "lost" };
      await changed;
    }
    // Nobody asks any more.
    return await never;
  }

  #lookForTrouble(): void {
    const line = lineOf(this.#folder, "trouble");
    if (line === this.#trouble || this.#onTrouble === undefined) return;
    this.#trouble = line;
    // A shell's status for what a signal ended is above 128.
    this.#onTrouble(Number(line.split(" ")[0]) > 128 ? "killed" : "not writable");
  }

  /** Whether all are gone, the command and who would say how it ended: its parent, and the keeper. */
  async #isLost(parent: number): Promise<boolean> {
    const { pid, startTime, bootId: boot } = this.identity;
    if (boot !== await bootId()) return true;
    const keeper = parseIdentity(lineOf(this.#folder, "keeper"));
    // All of these numbers would have to be given to others for this to be wrong.
    if (isThere(pid) && isThere(keeper?.pid ?? pid)) return false;
    const living = (await processesOf([pid, parent, keeper?.pid ?? pid]))
      .filter(({ dead }) => !dead);
    return !living.some((process) =>
      process.pid === pid ? process.startTime === startTime : process.session === keeper?.pid
    );
  }
}

/** How a command with a keeper is supervised. */
export interface AttendOptions extends SuperviseOptions {
  /** How long it has printed nothing, in milliseconds. @default {0} */
  silentForMs?: number | undefined;
  /** Gets the output as it comes; as long as it works, nothing more is read. */
  onOutput(bytes: Uint8Array): void | Promise<void>;
  /** Some of the output is lost, though the command goes on. */
  onLoss?: (() => void) | undefined;
}

/**
 * Attends to a command to its end, or until it is left running; see `run()` for the ways in which it
 * ends. When it has ended, what it left running may print on, but nobody hears of it.
 */
export async function attend(
  command: KeptCommand,
  options: AttendOptions,
): Promise<SuperviseResult> {
  using kept = command;
  const failure = Promise.withResolvers<never>();
  kept.whenTroubled((trouble) => {
    if (trouble === "killed") options.onLoss?.();
    else failure.reject(new Error("the disk is full, or cannot be written to"));
  });
  const result = await supervise(kept, { ...options, failure: failure.promise }, () => [
    new Pump(kept.output, { ...options, afterwards: "close", whole: kept.whole }),
  ]);
  if (result.ended !== "left running") kept.discard();
  return result;
}

/** The identity of a command, and of whom it was started. */
interface CommandLine {
  identity: ProcessIdentity;
  parent: number;
}

function commandIn(folder: string, from: OutputPlace): KeptCommand | undefined {
  const line = lineOf(folder, "command");
  const identity = parseIdentity(line);
  const parent = parseStat(line.slice(line.indexOf(" ") + 1))?.parent;
  if (identity === undefined || parent === undefined) return undefined;
  return new KeptCommand(folder, { identity, parent }, from);
}

/**
 * How the command ended, as awk's `system()` put it, behind what it had made of a death by signal 9:
 *
 * | signal 9  | exit 3 | signal 15 | who                                                     |
 * | --------- | ------ | --------- | ------------------------------------------------------- |
 * | 265       | 3      | 271       | mawk, gawk, the one true awk                            |
 * | 9         | 768    | 15        | gawk with `POSIXLY_CORRECT`                             |
 * | 0.0351562 | 3      | 0.0585938 | gawk in its traditional mode, and others of long ago    |
 * | 0         | 3      | 143       | busybox: it was left to a shell, which cannot tell      |
 *
 * @returns undefined as long as it is not written.
 */
function exitIn(folder: string): Exit | undefined {
  const [shown, value] = lineOf(folder, "status").replaceAll(",", ".").trim().split(" ")
    .map(Number);
  if (shown === undefined || value === undefined || Number.isNaN(value)) return undefined;
  if (shown === 9) return value & 127 ? signal(value & 127) : code(value >> 8);
  if (shown === 0) return value > 128 && value <= 192 ? signal(value - 128) : code(value);
  if (shown < 1) return value % 1 === 0 ? code(value) : signal(Math.round(value * 256) & 127);
  return value > 255 ? signal(value & 127) : code(value);
}

function signal(signal: number): Exit {
  return { kind: "signal", signal };
}

function code(code: number): Exit {
  return { kind: "code", code };
}

function makeFolder(folder: string, token: string): void {
  Deno.mkdirSync(folder, { mode: 0o700 });
  const make = (name: string, text: string) =>
    Deno.writeTextFileSync(join(folder, name), text, { createNew: true, mode: 0o600 });
  for (const name of ROOMS) make(name, " ".repeat(ROOM_BYTES));
  make("wanted", "");
  make("end", token);
  // The last one: the folder is complete.
  make("never", "never\n");
}

/** The line that a file has, blank as long as it has none. */
function lineOf(folder: string, name: typeof ROOMS[number]): string {
  const text = textOf(folder, name);
  return text.slice(0, Math.max(0, text.indexOf("\n")));
}

function textOf(folder: string, name: typeof ROOMS[number]): string {
  try {
    return Deno.readTextFileSync(join(folder, name));
  } catch {
    return "";
  }
}

/** Why there is no command, though nothing spoke against it. */
async function whyNotBegun(
  argv: readonly string[],
  folder: string,
  watch: FolderWatch,
): Promise<string> {
  // What a shell has said of it may still be on its way to the disk, unless that is full.
  const patience = AbortSignal.timeout(WORDS_MS);
  while (!exists(join(folder, "eof")) && !patience.aborted) await watch.changed();
  const said = await Deno.readTextFile(join(folder, "output.0")).catch(() => "");
  const reason = said.split("\n")[0] || "its keeper could not be started, or was killed";
  return `Cannot start ${argv[0]}: ${reason}`;
}

const never: Promise<never> = new Promise(() => {});

function isThere(pid: number): boolean {
  return signalProcess(pid, 0) !== "gone";
}
