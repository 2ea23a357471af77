import { ProvisioningError } from "../errors.ts";

/**
 * Running programs. Every call has a time limit, runs in its own process group, reads nothing
 * from standard input unless given something, and is ended when the connector is stopped.
 */

/** How to run one program. */
export interface CommandOptions {
  /**
   * Time limit in milliseconds; the whole process group is ended when it is over. The time in which
   * a stream has nothing for the program does not count.
   */
  readonly timeoutMs: number;
  /** Variables added to the connector's own environment, for this program alone. */
  readonly env?: Readonly<Record<string, string>>;
  /** Working folder. @default the connector's. */
  readonly cwd?: string;
  /** What the program reads from standard input. @default nothing (/dev/null). */
  readonly input?: string | Uint8Array | ReadableStream<Uint8Array>;
  /** Told each piece of output, of both streams, as it comes. */
  readonly onOutput?: (bytes: Uint8Array) => void | Promise<void>;
  /** Gets standard output in place of it being kept; as long as it works, nothing more is read. */
  readonly onStdout?: (bytes: Uint8Array) => void | Promise<void>;
}

/** What came of a program. Output is decoded, with U+FFFD for what is not UTF-8, and not trimmed. */
export type CommandResult =
  | {
    readonly ended: "exited";
    /** Exit status; 128 + n where signal n ended it. */
    readonly status: number;
    readonly stdout: string;
    readonly stderr: string;
  }
  | {
    readonly ended: "timeout";
    readonly timeoutMs: number;
    readonly stdout: string;
    readonly stderr: string;
  }
  | { readonly ended: "not_started"; readonly message: string };

/** How to run a test command, which the agent supervises: no time limit here. */
export interface ForegroundOptions {
  /** The complete environment. */
  readonly env: Readonly<Record<string, string>>;
  /** Told each piece of output, both streams in the order in which they were written. */
  readonly onOutput: (bytes: Uint8Array) => Promise<void>;
}

/** Runs programs for a connector. */
export interface CommandRunner {
  /**
   * Runs a test command to its end.
   *
   * @returns its exit status: 128 + n where signal n ended it, 126 or 127 where it could not be
   *   started.
   * @throws the signal's reason, when the connector is stopped meanwhile.
   */
  runForeground(argv: readonly string[], options: ForegroundOptions): Promise<number>;

  /**
   * Runs `argv` to its end.
   *
   * @throws the signal's reason, when the connector is stopped meanwhile.
   */
  run(argv: readonly string[], options: CommandOptions): Promise<CommandResult>;
}

/** Did it run, and end with status 0? */
export function succeeded(
  result: CommandResult,
): result is CommandResult & { ended: "exited"; status: 0 } {
  return result.ended === "exited" && result.status === 0;
}

/** How many lines of a program's output an error message shows. */
const SHOWN_LINES = 10;

/** One sentence (and the last lines of output) saying how a program failed. */
export function failureText(program: string, result: CommandResult): string {
  switch (result.ended) {
    case "not_started":
      return `'${program}' could not be started: ${result.message}`;
    case "timeout":
      return `'${program}' was ended after ${result.timeoutMs / 1000} s${lastLines(result)}`;
    case "exited":
      return `'${program}' ended with exit status ${result.status}${lastLines(result)}`;
  }
}

function lastLines(result: { stdout: string; stderr: string }): string {
  const text = [result.stdout.trim(), result.stderr.trim()].filter((part) => part !== "")
    .join("\n");
  return text === "" ? "" : `: ${text.split("\n").slice(-SHOWN_LINES).join("\n")}`;
}

/**
 * Makes sure that a program did its work.
 *
 * @param step what the program was for, as the object of "Cannot": "copy the image to ...".
 * @throws ErrorClass naming the step, the program, its end and the last lines of its output.
 */
export function expectSuccess(
  result: CommandResult,
  options: {
    readonly step: string;
    readonly program: string;
    readonly ErrorClass?: new (message: string) => Error;
  },
): asserts result is CommandResult & { ended: "exited"; status: 0 } {
  if (succeeded(result)) return;
  const ErrorClass = options.ErrorClass ?? ProvisioningError;
  throw new ErrorClass(`Cannot ${options.step}: ${failureText(options.program, result)}`);
}
