import { once } from "./once.ts";

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

/** A clock that goes on from one process to the next. */
export interface HostClock extends Clock {
  /** Milliseconds since the host was started. */
  sinceBoot(): Promise<number>;
  /** Milliseconds since a moment that the file system has noted. */
  since(moment: Date): number;
}

/** setTimeout() fires at once for anything longer than 2^31-1 ms. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** The clock on the wall. */
export const systemClock: HostClock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  async sinceBoot() {
    return performance.now() + await bootToOrigin();
  },
  since: (moment) => Date.now() - moment.getTime(),
  async sleep(ms, signal) {
    let left = ms;
    do {
      const step = Math.min(left, LONGEST_TIMER_MS);
      await sleepOnce(step, signal);
      left -= step;
    } while (left > 0);
  },
};

/** From the start of the host to that of this process, as the kernel counts. */
const bootToOrigin = once(async () => {
  // Deno opens nothing under /proc without `--allow-all`, which the agent is not given.
  const asked = performance.now();
  const { stdout } = await new Deno.Command("cat", {
    args: ["/proc/uptime"],
    stdin: "null",
    stderr: "null",
  }).output();
  const seconds = parseFloat(new TextDecoder().decode(stdout));
  if (Number.isNaN(seconds)) throw new Error("Cannot read /proc/uptime");
  return seconds * 1000 - asked;
});

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
export function scaledClock(factor: number): HostClock {
  const start = systemClock.now();
  const origin = systemClock.monotonic();
  const elapsed = () => (systemClock.monotonic() - origin) * factor;
  return {
    now: () => start + elapsed(),
    monotonic: elapsed,
    sinceBoot: async () => await systemClock.sinceBoot() * factor,
    since: (moment) => systemClock.since(moment) * factor,
    sleep: (ms, signal) => systemClock.sleep(ms / factor, signal),
  };
}
