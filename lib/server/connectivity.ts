/**
 * Whether the server can be reached, as all calls of this process see it together: when one of them
 * gets through after an outage, none of the others has to wait for the end of its own back-off.
 */
import type { Clock } from "../clock.ts";
import { within } from "../wait.ts";
import type { Log } from "../log.ts";
import type { Failure } from "./api.ts";

/**
 * Whether it needs no line of its own in the log: `Connectivity` tells of an outage, once for all calls,
 * and the client of a role that does not suffice.
 */
export function isSaidElsewhere({ kind }: Failure): boolean {
  return kind === "aborted" || kind === "unreachable" || kind === "forbidden";
}

/** What is known of the way to the server. */
export class Connectivity {
  readonly #clock: Clock;
  readonly #log: Log;
  #lostAt: number | undefined;
  /** Who waits for the end of an outage. A promise that all shared would keep each wait for ever. */
  readonly #waiting = new Set<() => void>();

  constructor(clock: Clock, log: Log) {
    this.#clock = clock;
    this.#log = log;
  }

  /** False from the first call that got no answer to the next that got one. */
  get isUp(): boolean {
    return this.#lostAt === undefined;
  }

  /** Told of the end of every call: one line is logged when an outage begins, one when it ends. */
  report(ok: boolean, message = "no answer"): void {
    if (ok === this.isUp) return;
    if (!ok) {
      this.#lostAt = this.#clock.monotonic();
      this.#log.warning(
        `The server cannot be reached; jobs go on, and what they produce is kept until it is back: ${message}`,
      );
      return;
    }
    const seconds = Math.round((this.#clock.monotonic() - (this.#lostAt ?? 0)) / 1000);
    this.#lostAt = undefined;
    this.#log.info("The server is back", { outage_seconds: seconds });
    this.retryNow();
  }

  /** What waits for another try need not wait any longer. */
  retryNow(): void {
    for (const wake of this.#waiting) wake();
  }

  /**
   * Waits `ms`, or until the server is reached again after an outage, whichever is first.
   *
   * @throws the signal's reason when it aborts.
   */
  async pause(ms: number, signal?: AbortSignal): Promise<void> {
    const regained = Promise.withResolvers<void>();
    this.#waiting.add(regained.resolve);
    try {
      await within(regained.promise, { clock: this.#clock, ms, signal });
    } finally {
      this.#waiting.delete(regained.resolve);
    }
  }
}
