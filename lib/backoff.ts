/** What can be set of a `Backoff`. */
export interface BackoffOptions {
  /**
   * Upper bound of the first wait, in milliseconds; it doubles from there.
   * @default 1000
   */
  baseMs?: number;
  /**
   * No wait of its own is longer than this.
   * @default 180000
   */
  capMs?: number;
  /**
   * What a server asks for beyond this is not listened to.
   * @default Infinity
   */
  longestRetryAfterMs?: number;
  /** A number from 0 up to 1, as `Math.random()` gives; always 1 where nobody else waits for the same. */
  random?: () => number;
}

const BASE_MS = 1_000;

/** A lab that waits longer than this after an outage looks dead to its users. */
const CAP_MS = 180_000;

/**
 * How long to wait before trying again: exponential with full jitter, so that the agents of a lab
 * do not all come back in the same instant after an outage.
 */
export class Backoff {
  readonly #baseMs: number;
  readonly #capMs: number;
  readonly #longestRetryAfterMs: number;
  readonly #random: () => number;
  #failures = 0;

  constructor(options: BackoffOptions = {}) {
    this.#baseMs = options.baseMs ?? BASE_MS;
    this.#capMs = options.capMs ?? CAP_MS;
    this.#longestRetryAfterMs = options.longestRetryAfterMs ?? Infinity;
    this.#random = options.random ?? Math.random;
  }

  /**
   * The wait after one more failure.
   *
   * @param retryAfterMs what the server asked for; the wait is never shorter, also beyond the cap.
   * @returns milliseconds
   */
  next(retryAfterMs?: number): number {
    const bound = Math.min(this.#capMs, this.#baseMs * 2 ** this.#failures);
    if (bound < this.#capMs) this.#failures += 1;
    const asked = Math.min(retryAfterMs ?? 0, this.#longestRetryAfterMs);
    return Math.max(asked, Math.round(this.#random() * bound));
  }

  /** To be called after a success: the next failure starts from the beginning. */
  reset(): void {
    this.#failures = 0;
  }
}
