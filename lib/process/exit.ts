/** How a command ended. */
export type Exit =
  /** It ended by itself: `code` 0-255. */
  | { kind: "code"; code: number }
  /** A signal ended it. */
  | { kind: "signal"; signal: number }
  /** It lives on though it was killed: it belongs to another user, or is stuck inside the kernel. */
  | { kind: "stuck" }
  /** It is gone, and what waited for it too: nobody knows how it ended. */
  | { kind: "lost" };

/** What the outcome of a job says of a command of which there is no exit status. */
const UNKNOWN_STATUS = 100;

/** The exit status that an outcome carries: the code, or `256 - signo` for a death by signal. */
export function statusOf(exit: Exit): number {
  switch (exit.kind) {
    case "code":
      return exit.code;
    case "signal":
      return 256 - exit.signal;
    case "stuck":
    case "lost":
      return UNKNOWN_STATUS;
  }
}
