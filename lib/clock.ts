/**
 * Time, handed in. Whatever waits takes a `Clock`, so that a four-hour limit is
 * tested in milliseconds and no test sleeps for real.
 */
export interface Clock {
  /** Wall-clock time in milliseconds since 1970, for time stamps that people and servers read. */
  now(): number;
  /** Milliseconds that only ever go forward, for durations and deadlines. */
  monotonic(): number;
  /**
   * Resolves after `ms` milliseconds.
   *
   * @throws the signal's reason, as soon as `signal` aborts.
   */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** setTimeout() fires at once for anything longer than 2^31-1 ms. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** The clock on the wall. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  async sleep(ms, signal) {
    let left = ms;
    do {
      const step = Math.min(left, LONGEST_TIMER_MS);
      await sleepOnce(step, signal);
      left -= step;
    } while (left > 0);
  },
};

function sleepOnce(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, Math.max(0, ms));
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/** A clock that runs `factor` times as fast as the one on the wall. */
export function scaledClock(factor: number): Clock {
  const start = systemClock.now();
  const origin = systemClock.monotonic();
  const elapsed = () => (systemClock.monotonic() - origin) * factor;
  return {
    now: () => start + elapsed(),
    monotonic: elapsed,
    sleep: (ms, signal) => systemClock.sleep(ms / factor, signal),
  };
}
