import { access, constants as mode } from "node:fs/promises";
import { type Clock, systemClock } from "../clock.ts";
import type { Exit } from "./exit.ts";
import { parseIdentity, type ProcessIdentity, SAY_IDENTITY } from "./identity.ts";
import { allProcesses, type ProcessStat } from "./proc.ts";

/** How a command is started. */
export interface GroupOptions {
  /** Working directory; default: the agent's own. */
  cwd?: string | undefined;
  /** The whole environment; nothing of the agent's own is added. */
  env: Record<string, string>;
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

/** How a group is ended. */
export interface EndOptions {
  /** Time in milliseconds that the processes get between TERM and KILL. */
  graceMs: number;
  clock: Clock;
  /** Ends the grace early. */
  hasten?: AbortSignal | undefined;
}

/** How ending a group went. */
export interface GroupEnd {
  exit: Exit;
  /** What could not be ended: it belongs to another user, or hangs inside the kernel. */
  left: ProcessStat[];
}

/**
 * A command in a session and process group of its own. Whoever starts it ends it: with
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
  /** Ends the group at once if the command still runs; leaves alone what it left behind. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** What a killed process gets to disappear; longer takes only one that hangs in the kernel. */
const KILL_WAIT_MS = 5_000;
/** How often a dying group is looked at: often at first, as most are dead within milliseconds. */
const FIRST_LOOK_MS = 5;
const LAST_LOOK_MS = 200;

/**
 * What each command starts as. It says who it is, then becomes the command. Exit status 125 (which
 * `env`, `nohup` and others use for their own failure) with no line says that it could not.
 */
const LAUNCH = `(${SAY_IDENTITY}) || exit 125; exec "$@"`;

/**
 * Starts a command.
 *
 * The launcher is /bin/sh: as any shell, it may set `PWD`, and drops from the environment what has
 * no valid variable name.
 *
 * @param argv program and arguments; a program without a slash is looked for in `env.PATH`.
 */
export async function startGroup(
  argv: readonly string[],
  options: GroupOptions,
): Promise<GroupStart> {
  const refusal = await whyNot(argv, options);
  if (refusal !== undefined) return { started: false, message: refusal };

  const { stdin = "null", stderr } = options;
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command("/bin/sh", {
      args: ["-c", stderr === "merge" ? `${LAUNCH} 2>&1` : LAUNCH, "sh", ...argv],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      env: options.env,
      clearEnv: true,
      stdin: stdin === "null" ? "null" : "piped",
      stdout: "piped",
      stderr: stderr === "separate" ? "piped" : stderr === "merge" ? "null" : stderr,
      detached: true,
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
    group: new Group(identity, output, stderr === "separate" ? child.stderr : undefined, exit),
  };
}

class Group implements ProcessGroup {
  /** Set when the command has ended. */
  #exit: Exit | undefined;

  constructor(
    readonly identity: ProcessIdentity,
    readonly output: ReadableStream<Uint8Array>,
    readonly errors: ReadableStream<Uint8Array> | undefined,
    readonly exit: Promise<Exit>,
  ) {
    exit.then((exit) => this.#exit = exit, () => {});
  }

  async end(options: EndOptions): Promise<GroupEnd> {
    const left = await this.#end(options);
    const stuck = left.some((process) => process.pid === this.identity.pid);
    return { exit: this.#exit ?? (stuck ? { kind: "stuck" } : await this.exit), left };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // What a command left behind when it ended by itself is wanted: later commands may use it.
    if (this.#exit === undefined) await this.end({ graceMs: 0, clock: systemClock });
  }

  async #end({ graceMs, clock, hasten }: EndOptions): Promise<ProcessStat[]> {
    // With the command gone, nobody may be left; its number may even be that of a later group.
    if (this.#exit !== undefined && (await this.#alive()).length === 0) return [];
    if (graceMs > 0 && !hasten?.aborted) {
      const reached = signalGroup(this.identity.pid, "SIGTERM");
      if (reached === "gone") return [];
      // A stopped process gets TERM only when it goes on.
      signalGroup(this.identity.pid, "SIGCONT");
      if (reached === "sent" && await this.#gone({ withinMs: graceMs, clock, hasten })) return [];
    }
    await this.#gone({ withinMs: KILL_WAIT_MS, clock, kill: true });
    return this.#alive();
  }

  /** Waits until nobody of the group lives, at most `withinMs`. With `kill`, kills at each look. */
  async #gone(
    { withinMs, clock, hasten, kill = false }: {
      withinMs: number;
      clock: Clock;
      hasten?: AbortSignal | undefined;
      kill?: boolean;
    },
  ): Promise<boolean> {
    const over = new AbortController();
    const stop = () => over.abort();
    hasten?.addEventListener("abort", stop, { once: true });
    if (hasten?.aborted) stop();
    const waited = clock.sleep(withinMs, over.signal).then(stop, stop);
    try {
      for (let pause = FIRST_LOOK_MS;; pause = Math.min(2 * pause, LAST_LOOK_MS)) {
        // Killed at each look: a process may have joined the group since.
        const reached = signalGroup(this.identity.pid, kill ? "SIGKILL" : 0);
        if (reached === "gone") return true;
        if (this.#exit !== undefined && (await this.#alive()).length === 0) return true;
        if (over.signal.aborted || (kill && reached === "refused")) return false;
        // The kernel does not tell when a group is empty, so we look; that is in the host's time,
        // whatever clock the grace is measured with.
        const next = systemClock.sleep(pause, over.signal).catch(() => {});
        await (this.#exit === undefined ? Promise.race([this.exit, next]) : next);
      }
    } finally {
      hasten?.removeEventListener("abort", stop);
      stop();
      await waited;
    }
  }

  /** Those of the group that live. */
  async #alive(): Promise<ProcessStat[]> {
    const { pid, startTime } = this.identity;
    const members = (await allProcesses()).filter((process) => process.group === pid);
    // The number of a group is given anew once all of it are gone.
    if (members.some((process) => process.pid === pid && process.startTime !== startTime)) {
      return [];
    }
    return members.filter((process) => !process.dead);
  }
}

/**
 * Sends a signal to every process of a group; 0 only asks whether it has any, ended ones that
 * nobody has waited for included.
 */
export function signalGroup(
  group: number,
  signal: Deno.Signal | 0,
): "sent" | "gone" | "refused" {
  return signalProcess(-group, signal);
}

/** Sends a signal to a process. */
export function signalProcess(
  pid: number,
  signal: Deno.Signal | 0,
): "sent" | "gone" | "refused" {
  try {
    // Deno takes 0, as kill(2) does; its type does not say so.
    Deno.kill(pid, signal as Deno.Signal);
    return "sent";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "gone";
    if (error instanceof Deno.errors.PermissionDenied) return "refused";
    throw error;
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
async function whyNot(
  argv: readonly string[],
  { cwd, env }: GroupOptions,
): Promise<string | undefined> {
  const program = argv[0];
  if (program === undefined || program === "") return "Cannot start a command without a program";
  if (cwd !== undefined && !(await isKind(cwd, "isDirectory"))) {
    return `Cannot start ${program}: working directory ${cwd} is not a directory`;
  }
  const candidates = program.includes("/")
    ? [program.startsWith("/") ? program : `${cwd ?? "."}/${program}`]
    : (env.PATH ?? "/usr/bin:/bin").split(":").map((folder) => `${folder || "."}/${program}`);
  const files = [];
  for (const candidate of candidates) if (await isKind(candidate, "isFile")) files.push(candidate);
  for (const file of files) if (await mayExecute(file)) return undefined;
  if (files.length > 0) return `Cannot start ${program}: ${files[0]} is not executable`;
  return `Cannot start ${program}: no such program${program.includes("/") ? "" : " in PATH"}`;
}

async function isKind(path: string, kind: "isDirectory" | "isFile"): Promise<boolean> {
  try {
    return (await Deno.stat(path))[kind];
  } catch {
    return false;
  }
}

function mayExecute(path: string): Promise<boolean> {
  return access(path, mode.X_OK).then(() => true, () => false);
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
    // Nothing is read before somebody wants it: the pipe itself is the buffer.
  }, { highWaterMark: 0 });
}

/** Gives a command its input. One that ends, or closes it, before it has read all is no mistake. */
function feed(stdin: WritableStream<Uint8Array>, input: Uint8Array | ReadableStream<Uint8Array>) {
  const source = input instanceof Uint8Array ? ReadableStream.from([input]) : input;
  source.pipeTo(stdin).catch(() => {});
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
