import type { Clock } from "../../../lib/clock.ts";
import { capture, run } from "../../../lib/process/run.ts";
import type { Exit } from "../../../lib/process/exit.ts";
import { type StageLimit, timeLimit } from "../wait/time_limit.ts";
import type { CommandOptions, CommandRunner } from "./runner.ts";

/** What is kept of each stream. Programs that say more are not made for being read. */
const OUTPUT_MAX_BYTES = 4 * 1024 * 1024;

/** Between TERM and KILL; less than what the agent itself gives us. */
const END_GRACE_MS = 5_000;

/** A program that has ended may have left others behind that hold its output open. */
const DRAIN_MS = 1_000;
/** What a test started in the background may still have to say something when its script is over. */
const TEST_DRAIN_MS = 10_000;

const SIGNAL_STATUS = 128;
const NOT_FOUND_STATUS = 127;
const NOT_EXECUTABLE_STATUS = 126;

/** What all programs of a connector have in common. */
export interface ProcessRunnerOptions {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** Times the limits. */
  readonly clock: Clock;
  /** Ends what runs, and lets nothing more be started. */
  readonly signal: AbortSignal;
  /** KILL without waiting. */
  readonly forceStop: AbortSignal;
}

/** The real `CommandRunner`: process groups of `lib/process`. */
export function processRunner(options: ProcessRunnerOptions): CommandRunner {
  const { cwd, env, clock, signal, forceStop } = options;
  const common = { clock, signal, forceStop, graceMs: END_GRACE_MS, drainMs: DRAIN_MS };
  return {
    async run(argv, command) {
      signal.throwIfAborted();
      using limit = timeLimit({ limits: clock, signal }, {
        ms: command.timeoutMs,
        message: "the time limit is over",
      });
      const input = inputOf(command.input, limit);
      const captured = await capture(argv, {
        ...common,
        signal: limit.signal,
        cwd: command.cwd ?? cwd,
        env: { ...env, ...command.env },
        input: input.source,
        onOutput: command.onOutput,
        onStdout: command.onStdout,
        maxBytes: OUTPUT_MAX_BYTES,
      }).finally(() => input.close());
      const { result } = captured;
      const decoder = new TextDecoder();
      const output = {
        stdout: decoder.decode(captured.stdout),
        stderr: decoder.decode(captured.stderr),
      };
      switch (result.ended) {
        case "exited":
          input.throwIfFailed();
          return { ended: "exited", status: statusOf(result.exit), ...output };
        case "aborted":
        case "limit":
          signal.throwIfAborted();
          return { ended: "timeout", timeoutMs: command.timeoutMs, ...output };
        case "not_started":
          return { ended: "not_started", message: result.message };
        case "sink_failed":
          throw result.error;
      }
    },
    async runForeground(argv, command) {
      signal.throwIfAborted();
      const result = await run(argv, {
        ...common,
        drainMs: TEST_DRAIN_MS,
        cwd,
        env: { ...command.env },
        onOutput: command.onOutput,
      });
      switch (result.ended) {
        case "exited":
          return statusOf(result.exit);
        case "not_started":
          await command.onOutput(new TextEncoder().encode(`${result.message}\n`));
          return result.message.includes("not executable")
            ? NOT_EXECUTABLE_STATUS
            : NOT_FOUND_STATUS;
        case "aborted":
          throw result.reason;
        case "sink_failed":
          throw result.error;
        case "limit":
          throw new Error("A test command has no limit here, and yet it reached one");
      }
    },
  };
}

function statusOf(exit: Exit): number {
  switch (exit.kind) {
    case "code":
      return exit.code;
    case "signal":
      return SIGNAL_STATUS + exit.signal;
    case "stuck":
    case "lost":
      return SIGNAL_STATUS;
  }
}

interface Input {
  readonly source: Uint8Array | ReadableStream<Uint8Array> | undefined;
  throwIfFailed(): void;
  /** Lets go of a stream that nobody reads any more, or ever has. */
  close(): Promise<void>;
}

/**
 * A stream that breaks off looks to the program like one that ends: half an image would be written
 * and called good. So the break is remembered. A program cannot help it when nothing comes.
 */
function inputOf(input: CommandOptions["input"], limit: StageLimit): Input {
  if (typeof input === "string") {
    return { source: new TextEncoder().encode(input), ...plainInput };
  }
  if (!(input instanceof ReadableStream)) return { source: input, ...plainInput };
  let failure: { readonly error: unknown } | undefined;
  const reader = input.getReader();
  const source = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await limit.outside(reader.read());
        if (done) controller.close();
        else controller.enqueue(value);
      } catch (error) {
        failure = { error };
        controller.error(error);
      }
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
  return {
    source,
    throwIfFailed() {
      if (failure !== undefined) throw failure.error;
    },
    close: () => reader.cancel().catch(() => {}),
  };
}

const plainInput = { throwIfFailed() {}, close: () => Promise.resolve() };
