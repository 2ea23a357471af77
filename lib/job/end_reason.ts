/** Why a running phase is ended from outside: the reason of the signal that ends it. */
export type EndReason =
  /** Somebody cancelled the job; `seenAt` in monotonic milliseconds. */
  | { kind: "cancelled"; seenAt: number }
  /** The agent is told to stop; `at` in monotonic milliseconds. */
  | { kind: "stopped"; at: number };

/** Narrows the reason of an abort signal. */
export function isEndReason(reason: unknown): reason is EndReason {
  return typeof reason === "object" && reason !== null && "kind" in reason &&
    (reason.kind === "cancelled" || reason.kind === "stopped");
}
