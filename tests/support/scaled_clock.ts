import { type Clock, systemClock } from "../../lib/clock.ts";

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
