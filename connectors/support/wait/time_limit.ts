import type { Clock } from "../../../lib/clock.ts";

/** A limit that runs until it is disposed of. */
export interface StageLimit extends Disposable {
  /** Aborts when the time is over, or when the signal above it does. */
  readonly signal: AbortSignal;
  /** Waits for another party, such as a download, without counting that time. One at a time. */
  outside<T>(thing: Promise<T>): Promise<T>;
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
  const started = limits.monotonic();
  let outsideMs = 0;
  let inside = Promise.resolve();
  const run = async () => {
    // Not another timer for each thing outside: there may be thousands of them.
    for (let leftMs = ms; leftMs > 0; leftMs = ms - (limits.monotonic() - started - outsideMs)) {
      await limits.sleep(leftMs, done.signal);
      await inside;
    }
    if (!done.signal.aborted) over.abort(new Error(message));
  };
  run().catch(() => {}); // Not needed any more.
  return {
    signal: AbortSignal.any([signal, over.signal]),
    async outside(thing) {
      const since = limits.monotonic();
      const { promise, resolve } = Promise.withResolvers<void>();
      inside = promise;
      try {
        return await thing;
      } finally {
        outsideMs += limits.monotonic() - since;
        resolve();
      }
    },
    [Symbol.dispose]: () => done.abort(),
  };
}
