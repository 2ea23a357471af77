import type { Clock } from "../clock.ts";
import type { Exit } from "./exit.ts";
import { type GroupOptions, type ProcessGroup, startGroup } from "./group.ts";
import type { ProcessIdentity } from "./proc.ts";
import { Pump } from "./pump.ts";

/** What all ways to run a command share. Times are in milliseconds. */
interface CommonOptions {
  /** Working directory; default: the agent's own. */
  cwd?: string | undefined;
  /** The whole environment; nothing of the agent's own is added. */
  env: Record<string, string>;
  /** Carried by everything that the command starts: see mark.ts. */
  mark?: number | undefined;
  /** Ends the command: TERM, grace, KILL for its whole group. */
  signal?: AbortSignal | undefined;
  /** Ends the grace early. */
  forceStop?: AbortSignal | undefined;
  /** What the processes get between TERM and KILL. */
  graceMs: number;
  /**
   * How long output is still read when the command has ended and another process holds the stream
   * open. @default {2000}
   */
  drainMs?: number | undefined;
  clock: Clock;
}

/** How a command is run. */
export interface RunOptions extends CommonOptions {
  /** Where standard error goes. @default {"merge"}: into the output, in order. */
  stderr?: "merge" | "inherit" | "null" | undefined;
  limits?: {
    /** From the start of the command. */
    totalMs?: number | undefined;
    /** From the last byte of output, or the start. */
    silenceMs?: number | undefined;
  } | undefined;
  /** Told once, before the first output. */
  onStarted?: ((identity: ProcessIdentity) => void | Promise<void>) | undefined;
  /** Gets the output as it comes; as long as it works, nothing more is read. */
  onOutput(bytes: Uint8Array): void | Promise<void>;
}

/** How a run ended, by the first cause; `exit` is how the command did. */
export type RunResult =
  | { ended: "exited"; exit: Exit }
  | { ended: "limit"; limit: "total" | "silence"; exit: Exit }
  /** `reason` is the signal's. */
  | { ended: "aborted"; reason: unknown; exit: Exit }
  /** `onStarted` or `onOutput` threw `error`: the disk is full, for example. */
  | { ended: "sink_failed"; error: unknown; exit: Exit }
  /** `message` is one line for people. */
  | { ended: "not_started"; message: string };

/** Why a run does not wait for the command to end by itself. */
export type Cause =
  | { ended: "limit"; limit: "total" | "silence" }
  | { ended: "aborted"; reason: unknown }
  | { ended: "sink_failed"; error: unknown };

/** A phase that leaves a daemon behind must not wait for it. */
const DRAIN_MS = 2_000;

/** It goes on, and another process attends to it. */
const LEFT = { ended: "left running" } as const;

/** How a command that was never started, as it was not wanted any more, would have ended. */
const TERMINATED: Exit = { kind: "signal", signal: 15 };

/**
 * Runs a command to its end.
 *
 * A command that ends by itself may leave processes behind: they live on, and what they print after
 * `drainMs` is thrown away. A limit, the signal, or a failure of `onOutput` ends the whole process
 * group, and what was printed until then is still handed to `onOutput`. With a signal that is
 * aborted already, nothing is started and the result reads as if TERM had ended the command.
 *
 * @param argv program and arguments.
 */
export async function run(argv: readonly string[], options: RunOptions): Promise<RunResult> {
  const { cwd, env, mark, stderr = "merge", clock } = options;
  return await start(argv, options, { cwd, env, mark, stderr }, async (group) => {
    await options.onStarted?.(group.identity);
    return [new Pump(group.output, { clock, onOutput: options.onOutput })];
  });
}

/** How a command is run for what it prints. */
export interface CaptureOptions extends CommonOptions {
  /** What the command reads; default: nothing. */
  input?: Uint8Array | ReadableStream<Uint8Array> | undefined;
  /** Gets the output of both streams as it comes, too; as long as it works, nothing more is read. */
  onOutput?: ((bytes: Uint8Array) => void | Promise<void>) | undefined;
  /** Gets standard output in place of it being kept. */
  onStdout?: ((bytes: Uint8Array) => void | Promise<void>) | undefined;
  /** How much of each of the two streams is kept, from the start; the rest is thrown away. */
  maxBytes: number;
  /** The most that the command may take. */
  timeoutMs?: number | undefined;
}

/** What a command printed, and how it ended. */
export interface Captured {
  result: RunResult;
  stdout: Uint8Array;
  stderr: Uint8Array;
  /** A stream was longer than `maxBytes`. */
  truncated: boolean;
}

/** Runs a command to its end and keeps what it prints, within limits. */
export async function capture(
  argv: readonly string[],
  options: CaptureOptions,
): Promise<Captured> {
  const { cwd, env, mark, input, clock, maxBytes, timeoutMs } = options;
  const stdout = new Beginning(maxBytes);
  const stderr = new Beginning(maxBytes);
  const result = await start(
    argv,
    { ...options, limits: { totalMs: timeoutMs } },
    { cwd, env, mark, stdin: input, stderr: "separate" },
    (group) => {
      const keepIn = (keeper: Beginning) => (bytes: Uint8Array) => {
        keeper.keep(bytes);
        return options.onOutput?.(bytes);
      };
      const pumps = [
        new Pump(group.output, { clock, onOutput: options.onStdout ?? keepIn(stdout) }),
      ];
      if (group.errors !== undefined) {
        pumps.push(new Pump(group.errors, { clock, onOutput: keepIn(stderr) }));
      }
      return pumps;
    },
  );
  return {
    result,
    stdout: stdout.bytes(),
    stderr: stderr.bytes(),
    truncated: stdout.truncated || stderr.truncated,
  };
}

/** A command of our own, from its start to its end. */
async function start(
  argv: readonly string[],
  options: CommonOptions & Pick<RunOptions, "limits">,
  groupOptions: GroupOptions,
  attach: (group: ProcessGroup) => Pump[] | Promise<Pump[]>,
): Promise<RunResult> {
  const { signal } = options;
  if (signal?.aborted) return { ended: "aborted", reason: signal.reason, exit: TERMINATED };
  const start = await startGroup(argv, groupOptions);
  if (!start.started) return { ended: "not_started", message: start.message };
  await using group = start.group;
  try {
    const end = await supervise(group, options, attach);
    if (end.ended !== "left running") return end;
    throw new Error("Cannot leave a command that has no keeper");
  } finally {
    // A process that holds a stream open may do so; it is no reason for this one to live on.
    group.unref();
  }
}

/** What is left to supervise a command with. */
export interface SuperviseOptions extends Omit<CommonOptions, "cwd" | "env"> {
  limits?: {
    /** From now on. */
    totalMs?: number | undefined;
    /** Of the silence: from the last byte of output. */
    silenceMs?: number | undefined;
  } | undefined;
  /** Told why the command is about to be ended. */
  onEnding?: ((cause: Cause) => void) | undefined;
  /** Rejects when the output cannot be kept. */
  failure?: Promise<never> | undefined;
  /** Lets the command go on, and stops reading its output; only for one with a keeper. */
  leave?: AbortSignal | undefined;
}

/** How supervising ended. */
export type SuperviseResult =
  | Exclude<RunResult, { ended: "not_started" }>
  | typeof LEFT;

/** The one place that decides how a run ends. */
export async function supervise<Command extends Pick<ProcessGroup, "output" | "exit" | "end">>(
  group: Command,
  options: SuperviseOptions,
  attach: (group: Command) => Pump[] | Promise<Pump[]>,
): Promise<SuperviseResult> {
  const { signal, leave, forceStop, graceMs, drainMs = DRAIN_MS, clock, limits } = options;
  const startedAt = clock.monotonic();

  // 1. Watch for whatever may end it before it does so itself. The first cause counts.
  const over = new AbortController();
  const cause = Promise.withResolvers<Cause>();
  const left = Promise.withResolvers<typeof LEFT>();
  const abort = () => cause.resolve({ ended: "aborted", reason: signal?.reason });
  const goAway = () => left.resolve(LEFT);
  leave?.addEventListener("abort", goAway, { once: true });
  signal?.addEventListener("abort", abort, { once: true });
  options.failure?.catch((error) => cause.resolve({ ended: "sink_failed", error }));
  if (leave?.aborted) goAway();
  if (signal?.aborted) abort();
  const limit = (name: "total" | "silence", wait: Promise<void>) =>
    wait.then(() => cause.resolve({ ended: "limit", limit: name }), () => {});
  if (limits?.totalMs !== undefined) {
    const left = startedAt + limits.totalMs - clock.monotonic();
    limit("total", clock.sleep(left, over.signal));
  }
  let pumps: Pump[] = [];
  const attached = Promise.resolve(group).then(attach).then((made) => {
    pumps = made;
    for (const pump of pumps) {
      pump.finished.catch((error) => cause.resolve({ ended: "sink_failed", error }));
      if (limits?.silenceMs !== undefined) {
        limit("silence", pump.silence(limits.silenceMs, over.signal));
      }
    }
  }).catch((error) => cause.resolve({ ended: "sink_failed", error }));

  const whenOver = async (first: Cause | { ended: "exited"; exit: Exit }) => {
    if (first.ended === "exited") {
      // 2a. It ended by itself: read what it left in the pipe. What runs on, runs on.
      await attached;
      return await drained(pumps, drainMs).then(() => first, async (error) => {
        await group.end({ graceMs, clock, forceStop });
        return { ended: "sink_failed" as const, error, exit: first.exit };
      });
    }
    // 2b. It is ended, all of it. Output is read meanwhile, and what is in the pipe afterwards.
    options.onEnding?.(first);
    const { exit } = await group.end({ graceMs, clock, forceStop });
    await attached;
    await drained(pumps, drainMs).catch(() => {});
    return { ...first, exit };
  };
  try {
    const first = await Promise.race([
      left.promise,
      group.exit.then((exit) => ({ ended: "exited" as const, exit })),
      cause.promise,
    ]);
    const end = first.ended === "left running"
      ? LEFT
      : await Promise.race([left.promise, whenOver(first)]);
    if (end.ended !== "left running") return end;
    // It goes on without us, and we stop behind a piece of output that was taken whole.
    await attached;
    await Promise.all(pumps.map((pump) => pump.drop().catch(() => {})));
    return LEFT;
  } finally {
    signal?.removeEventListener("abort", abort);
    leave?.removeEventListener("abort", goAway);
    over.abort();
    if (pumps.length === 0) await group.output.cancel();
  }
}

async function drained(pumps: Pump[], drainMs: number): Promise<void> {
  await Promise.all(pumps.map((pump) => pump.drain(drainMs)));
}

/** Keeps the beginning of a stream. */
class Beginning {
  truncated = false;
  #chunks: Uint8Array[] = [];
  #left: number;

  constructor(maxBytes: number) {
    this.#left = maxBytes;
  }

  keep(bytes: Uint8Array): void {
    if (bytes.byteLength > this.#left) this.truncated = true;
    const part = bytes.subarray(0, this.#left);
    this.#left -= part.byteLength;
    if (part.byteLength > 0) this.#chunks.push(part);
  }

  bytes(): Uint8Array {
    const all = new Uint8Array(this.#chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0));
    let at = 0;
    for (const chunk of this.#chunks) {
      all.set(chunk, at);
      at += chunk.byteLength;
    }
    return all;
  }
}
