import { systemClock } from "../clock.ts";
import { messageOf } from "../message.ts";
import type { Exit } from "./exit.ts";
import { type EndOptions, Grace, KILL_LOOKS, lookUntil, signalGroup } from "./grace.ts";
import {
  allProcesses,
  parseIdentity,
  type ProcessIdentity,
  type ProcessStat,
  SAY_IDENTITY,
} from "./proc.ts";
import { SET_MARK } from "./mark.ts";
import { inOwnSession } from "../own_session.ts";

/** How a command is started. */
export interface GroupOptions {
  /** Working directory; default: the agent's own. */
  cwd?: string | undefined;
  /** The whole environment; nothing of the agent's own is added. */
  env: Record<string, string>;
  /** Carried by everything that the command starts: see mark.ts. */
  mark?: number | undefined;
  /** What the command reads; default: nothing. */
  stdin?: "null" | Uint8Array | ReadableStream<Uint8Array> | undefined;
  /**
   * Where standard error goes: into `output`, in the order in which it was written; into a stream
   * of its own; to the agent's own; nowhere.
   */
  stderr: "merge" | "separate" | "inherit" | "null";
}

/** What `startGroup()` comes to. */
export type GroupStart =
  | { started: true; group: ProcessGroup }
  /** One line for people: which program or folder is missing, or not to be used. */
  | { started: false; message: string };

/** How ending a group went. */
export interface GroupEnd {
  exit: Exit;
  /** What could not be ended: it belongs to another user, or hangs inside the kernel. */
  left: ProcessStat[];
}

/**
 * A command in a session and process group of its own. What starts it ends it: with
 * `await using`, or `end()`.
 */
export interface ProcessGroup extends AsyncDisposable {
  /** The command, which leads the group: its pid is the group's number too. */
  readonly identity: ProcessIdentity;
  readonly output: ReadableStream<Uint8Array>;
  /** Only with `stderr: "separate"`. */
  readonly errors: ReadableStream<Uint8Array> | undefined;
  /** The end of the command itself; others of its group may live on. */
  readonly exit: Promise<Exit>;
  /** Ends every process of the group: TERM, then KILL for what is alive after the grace. */
  end(options: EndOptions): Promise<GroupEnd>;
  /** Lets the agent's own process end although another process holds `output` open. */
  unref(): void;
  /** Ends the group at once if the command still runs; leaves alone what it left behind. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Shell text that runs the script `$1` with the arguments behind it, after closing whatever the agent
 * has inherited beyond the three standard streams, and would hand on: a lock, say, that a daemon of the
 * job would then hold. The runtime closes none of it.
 *
 * Shells such as dash cannot name descriptors above 9; those are left to bash, where there is one. The
 * script itself is sh's again: bash makes `./script` an absolute path, which the script sees in its `$0`.
 */
export const RUN_WITHOUT_INHERITED = `_tf_many=
for _tf_fd in /proc/$$/fd/*; do
  _tf_fd=\${_tf_fd##*/}
  case $_tf_fd in
    [012]) ;;
    [3-9]) eval "exec $_tf_fd>&-" ;;
    *) _tf_many="$_tf_many exec $_tf_fd>&-;" ;;
  esac
done
[ -z "$_tf_many" ] || [ ! -x /bin/bash ] ||
  exec /bin/bash -pc "$_tf_many exec /bin/sh -c \\"\\$0\\" sh \\"\\$@\\"" "$@"
eval "shift; $1"`;

/**
 * What each command starts as: it says who it is, then becomes the command. Without that line there
 * is no command: a group that nobody could tell from a later one must not run.
 *
 * Commands leave no core files: those would keep the secrets of their environment. It is a soft
 * limit, so that a command which wants them (`ulimit -c unlimited`) has them as far as the agent may.
 */
const launch = (prepare: string) =>
  `ulimit -S -c 0; ${SET_MARK}; { ${SAY_IDENTITY}; } || exit 125; shift; ${prepare}
set -- 'exec "$@"' "$@"
${RUN_WITHOUT_INHERITED}`;

/**
 * Starts a command.
 *
 * The launcher is /bin/sh: like every shell, it may set `PWD`, and drops from the environment what has
 * no valid variable name.
 *
 * @param argv program and arguments; a program without a slash is looked for in `env.PATH`.
 */
export async function startGroup(
  argv: readonly string[],
  options: GroupOptions,
): Promise<GroupStart> {
  const refusal = whyNot(argv, options);
  if (refusal !== undefined) return { started: false, message: refusal };

  const { stdin = "null", stderr, mark = "" } = options;
  let child: Deno.ChildProcess;
  try {
    child = inOwnSession("/bin/sh", {
      args: ["-c", launch(stderr === "merge" ? "exec 2>&1" : ""), "sh", `${mark}`, ...argv],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      env: options.env,
      clearEnv: true,
      stdin: stdin === "null" ? "null" : "piped",
      stdout: "piped",
      stderr: stderr === "separate" ? "piped" : stderr === "merge" ? "null" : stderr,
    }).spawn();
  } catch (error) {
    return { started: false, message: `Cannot start ${argv[0]}: ${messageOf(error)}` };
  }
  const exit = exitOf(child);
  const reader = child.stdout.getReader();
  const { line, rest } = await firstLine(reader);
  const identity = parseIdentity(line);
  if (identity === undefined) {
    await exit;
    return { started: false, message: `Cannot start ${argv[0]}: /proc is not readable` };
  }
  if (stdin !== "null") feed(child.stdin, stdin);
  const output = streamOf(reader, rest);
  return {
    started: true,
    group: new Group({
      identity,
      output,
      errors: stderr === "separate" ? child.stderr : undefined,
      exit,
      unref: () => child.unref(),
    }),
  };
}

class Group implements ProcessGroup {
  readonly #command: LeadingCommand;

  readonly identity: ProcessIdentity;
  readonly output: ReadableStream<Uint8Array>;
  readonly errors: ReadableStream<Uint8Array> | undefined;
  readonly exit: Promise<Exit>;
  readonly unref: () => void;

  constructor(
    parts: Pick<ProcessGroup, "identity" | "output" | "errors" | "exit" | "unref">,
  ) {
    this.identity = parts.identity;
    this.output = parts.output;
    this.errors = parts.errors;
    this.exit = parts.exit;
    this.unref = parts.unref;
    this.#command = new LeadingCommand(parts);
  }

  end(options: EndOptions): Promise<GroupEnd> {
    return this.#command.endGroup(options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // What a command left behind when it ended by itself is wanted: later commands may use it.
    if (this.#command.isRunning) await this.end({ graceMs: 0, clock: systemClock });
  }
}

/** A command that leads a group: ends the group. */
export class LeadingCommand {
  readonly #identity: ProcessIdentity;
  readonly #exits: Promise<Exit>;
  /** Set when the command has ended. */
  #exit: Exit | undefined;

  constructor({ identity, exit }: Pick<ProcessGroup, "identity" | "exit">) {
    this.#identity = identity;
    this.#exits = exit;
    exit.then((ended) => this.#exit = ended, () => {});
  }

  /** As far as is known. */
  get isRunning(): boolean {
    return this.#exit === undefined;
  }

  /** Ends every process of the group: TERM, then KILL for what is alive after the grace. */
  async endGroup(options: EndOptions): Promise<GroupEnd> {
    const left = await this.#end(options);
    const stuck = left.some((process) => process.pid === this.#identity.pid);
    return { exit: this.#exit ?? (stuck ? { kind: "stuck" } : await this.#exits), left };
  }

  async #end(options: EndOptions): Promise<ProcessStat[]> {
    const { pid } = this.#identity;
    // With the command gone, nobody may be left; its number may even be that of a later group.
    if (!this.isRunning && (await this.#alive()).length === 0) return [];
    {
      using grace = new Grace(options);
      if (!grace.over.aborted && signalGroup(pid, "SIGTERM") === "sent") {
        // A stopped process gets TERM only when it goes on.
        signalGroup(pid, "SIGCONT");
        if (await this.#gone(0, { over: grace.over })) return [];
      }
    }
    // Killed at each look: a process may have joined the group since.
    if (await this.#gone("SIGKILL", { looks: KILL_LOOKS })) return [];
    return this.#alive();
  }

  /** Whether nobody of the group lives any more, looked at while `until` allows it. */
  #gone(
    signal: Deno.Signal | 0,
    until: { over: AbortSignal } | { looks: number },
  ): Promise<boolean> {
    const look = async () => {
      const reached = signalGroup(this.#identity.pid, signal);
      if (reached === "gone") return "done";
      if (reached === "refused" && signal !== 0) return "give up";
      if (this.isRunning) return "again";
      // What is left may be dead, and only nobody has waited for it yet. Where nobody can look, as
      // the group has used up all processes that this user may have, the next signal makes room.
      const alive = await this.#alive().catch(() => undefined);
      return alive?.length === 0 ? "done" : "again";
    };
    const wake = () => this.isRunning ? this.#exits : undefined;
    return lookUntil(look, { ...until, wake });
  }

  /** Those of the group that live. */
  async #alive(): Promise<ProcessStat[]> {
    const { pid, startTime } = this.#identity;
    const members = (await allProcesses()).filter((process) => process.group === pid);
    // The number of a group is reused once all its processes are gone.
    if (members.some((process) => process.pid === pid && process.startTime !== startTime)) {
      return [];
    }
    return members.filter((process) => !process.dead);
  }
}

async function exitOf(child: Deno.ChildProcess): Promise<Exit> {
  try {
    const { code, signal } = await child.status;
    // With a signal, Deno's code is 128 + its number.
    return signal === null ? { kind: "code", code } : { kind: "signal", signal: code - 128 };
  } catch (error) {
    // Deno has no name for real-time signals, and rejects: "Invalid signal: 40".
    const number = /^Invalid signal: (\d+)$/.exec(messageOf(error))?.[1];
    if (number === undefined) throw error;
    return { kind: "signal", signal: Number(number) };
  }
}

/** Why a command cannot be started, in one line; undefined when nothing speaks against it. */
export function whyNot(
  argv: readonly string[],
  { cwd, env }: Pick<GroupOptions, "cwd" | "env">,
): string | undefined {
  const program = argv[0];
  if (program === undefined || program === "") return "Cannot start a command without a program";
  if (cwd !== undefined && !isDirectory(cwd)) {
    return `Cannot start ${program}: working directory ${cwd} is not a directory`;
  }
  const candidates = program.includes("/")
    ? [program.startsWith("/") ? program : `${cwd ?? "."}/${program}`]
    : (env.PATH ?? "/usr/bin:/bin").split(":").map((folder) => `${folder || "."}/${program}`);
  const files = candidates.filter(isFile);
  if (files.some(isExecutable)) return undefined;
  if (files.length > 0) return `Cannot start ${program}: ${files[0]} is not executable`;
  return `Cannot start ${program}: no such program${program.includes("/") ? "" : " in PATH"}`;
}

// At once, and not by another thread: it is known already, and something waits to begin.

function isDirectory(path: string): boolean {
  return statOf(path)?.isDirectory ?? false;
}

function isFile(path: string): boolean {
  return statOf(path)?.isFile ?? false;
}

/** By any user: one who may not execute it is told so by the shell. */
function isExecutable(path: string): boolean {
  return ((statOf(path)?.mode ?? 0) & 0o111) !== 0;
}

function statOf(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch {
    return undefined;
  }
}

async function firstLine(
  reader: ReadableStreamDefaultReader<Uint8Array>,
): Promise<{ line: string; rest: Uint8Array }> {
  let line = "";
  while (true) {
    const { done, value } = await reader.read();
    if (done) return { line, rest: new Uint8Array() };
    const end = value.indexOf(0x0a);
    line += new TextDecoder().decode(end < 0 ? value : value.subarray(0, end));
    if (end >= 0) return { line, rest: value.subarray(end + 1) };
  }
}

function streamOf(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  first: Uint8Array,
): ReadableStream<Uint8Array> {
  let rest = first;
  return new ReadableStream({
    async pull(controller) {
      if (rest.byteLength > 0) {
        controller.enqueue(rest);
        rest = new Uint8Array();
        return;
      }
      const { done, value } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
    // Nothing is read before it is asked for: the pipe itself is the buffer.
  }, { highWaterMark: 0 });
}

/** Gives a command its input. One that ends, or closes it, before it has read all is no mistake. */
function feed(stdin: WritableStream<Uint8Array>, input: Uint8Array | ReadableStream<Uint8Array>) {
  const source = input instanceof Uint8Array ? ReadableStream.from([input]) : input;
  source.pipeTo(stdin).catch(() => {});
}
