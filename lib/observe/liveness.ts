/**
 * Whether the agent turns. Its loop says "I turned" each time round, and says beforehand what may
 * take long; who asks (systemd's watchdog, the health endpoint) learns whether it hangs.
 *
 * An outage is no hang: each attempt to reach the server, and each pause between attempts, is short.
 * A job is none either: it may last for days, its phases have limits of their own, and ending it on a
 * suspicion would do more harm than good. An await in the loop that never comes back is one, and so
 * is code that lets nothing else run, also during a job: then nobody is left to answer at all.
 */
import type { Clock } from "../clock.ts";
import type { Sink } from "./events.ts";

/**
 * The longest that an agent is silent when all is well: a pause of 180 s between two attempts, plus
 * an attempt of 30 s, twice over because nobody should be restarted on a tight figure.
 */
const SILENCE_LIMIT_MS = 420_000;

/** Options of {@link createLiveness}. */
export interface LivenessOptions {
  clock: Clock;
  /** @default 420000 */
  silenceLimitMs?: number;
}

/** The liveness of one agent. */
export interface Liveness {
  /** Beats when the loop turns, and holds from the beginning of a job to its end. */
  readonly sink: Sink;
  /** The loop turned. */
  beat(): void;
  /**
   * Something begins that may take long without a beat; it ends when the result is disposed of.
   *
   * @param what for people: `delivery`.
   * @param limitMs how long it may take; without it, as long as it likes.
   */
  hold(what: string, limitMs?: number): Disposable;
  /** Why the agent is thought to hang, in one line; `undefined` when all is well. */
  trouble(): string | undefined;
}

interface Hold {
  what: string;
  since: number;
  limitMs: number;
}

/** Makes a liveness that has just beaten. */
export function createLiveness(
  { clock, silenceLimitMs = SILENCE_LIMIT_MS }: LivenessOptions,
): Liveness {
  let last = clock.monotonic();
  const holds = new Set<Hold>();
  const beat = () => {
    last = clock.monotonic();
  };
  const hold = (what: string, limitMs = Infinity): Disposable => {
    const entry = { what, since: clock.monotonic(), limitMs };
    holds.add(entry);
    return {
      [Symbol.dispose]() {
        if (holds.delete(entry)) beat();
      },
    };
  };
  let job: Disposable | undefined;
  return {
    sink(event) {
      switch (event.type) {
        case "turned":
          return beat();
        case "job_began":
          job?.[Symbol.dispose]();
          job = hold(`job ${event.job}`);
          return;
        case "recovery_began":
          job?.[Symbol.dispose]();
          // Its cleanup has a limit of its own, which may be hours.
          job = hold(`recovery of job ${event.job}`);
          return;
        case "job_ended":
        case "recovery_ended":
          job?.[Symbol.dispose]();
          job = undefined;
      }
    },
    beat,
    hold,
    trouble() {
      const now = clock.monotonic();
      if (now - last <= silenceLimitMs) return undefined;
      const overdue = [...holds].filter(({ since, limitMs }) => now - since > limitMs);
      if (overdue.length < holds.size) return undefined;
      const silent = `the agent's loop has not turned for ${seconds(now - last)} s`;
      const late = overdue.map(({ what, since, limitMs }) =>
        `${what} has not ended in ${seconds(now - since)} s although its limit is ${
          seconds(limitMs)
        } s`
      );
      return [silent, ...late].join("; ");
    },
  };
}

function seconds(ms: number): number {
  return Math.round(ms / 1000);
}
