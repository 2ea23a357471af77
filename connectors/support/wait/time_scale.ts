import type { Clock } from "../../../lib/clock.ts";
import { systemClock } from "../../../lib/clock.ts";

/** For trials: a number that every pause is multiplied by. 0.001 turns a minute into 60 ms. */
const VARIABLE = "TFDC_TIME_SCALE";

/** The clock for pauses: the one on the wall, unless the environment shortens them. */
export function clockFor(env: Readonly<Record<string, string>>): Clock {
  const scale = Number(env[VARIABLE] ?? "1");
  return scale > 0 && scale !== 1 ? scaledClock(scale) : systemClock;
}

/**
 * A clock whose pauses take `scale` of their time, and that then says that all of it has passed,
 * so that deadlines count pauses in full.
 */
function scaledClock(scale: number): Clock {
  /** How much further this clock is than the one on the wall, in milliseconds. */
  let ahead = 0;
  const monotonic = () => systemClock.monotonic() + ahead;
  return {
    now: () => systemClock.now() + ahead,
    monotonic,
    async sleep(ms, signal) {
      const due = monotonic() + ms;
      await systemClock.sleep(ms * scale, signal);
      // Of several pauses at the same time, each moves the clock only as far as its own end.
      ahead = Math.max(ahead, due - systemClock.monotonic());
    },
  };
}
