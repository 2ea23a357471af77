/** How a command ended. */
export type Exit =
  /** It ended by itself: `code` 0-255. */
  | { kind: "code"; code: number }
  /** A signal ended it. */
  | { kind: "signal"; signal: number }
  /** It lives on though it was killed: it belongs to another user, or is stuck inside the kernel. */
  | { kind: "stuck" };

/** What the outcome of a job says of a command that nobody could end. */
const STUCK_STATUS = 100;

/** The exit status that an outcome carries: the code, or `256 - signo` for a death by signal. */
export function statusOf(exit: Exit): number {
  switch (exit.kind) {
    case "code":
      return exit.code;
    case "signal":
      return 256 - exit.signal;
    case "stuck":
      return STUCK_STATUS;
  }
}
