import type { Clock } from "../../../lib/clock.ts";

/** A limit that runs until it is disposed of. */
export interface StageLimit extends Disposable {
  /** Aborts when the time is over, or when the signal above it does. */
  readonly signal: AbortSignal;
}

/** What times a limit, and what ends the wait before. */
export interface Limited {
  readonly limits: Clock;
  readonly signal: AbortSignal;
}

/** Starts a time limit; `message` is that of the error which the signal aborts with. */
export function timeLimit(
  { limits, signal }: Limited,
  { ms, message }: { readonly ms: number; readonly message: string },
): StageLimit {
  const over = new AbortController();
  const done = new AbortController();
  limits.sleep(ms, done.signal).then(() => over.abort(new Error(message)), () => {});
  return {
    signal: AbortSignal.any([signal, over.signal]),
    [Symbol.dispose]: () => done.abort(),
  };
}
