import type { Clock } from "../clock.ts";

/** The reason with which a `Watch` aborts when the time is up. */
export class TimeUp extends Error {
  override readonly name = "TimeUp";

  /** @param idle whether nothing moved for that long, rather than the whole taking longer. */
  constructor(readonly limitMs: number, readonly idle: boolean) {
    const seconds = Math.round(limitMs / 1000);
    super(idle ? `nothing moved for ${seconds} s` : `no answer within ${seconds} s`);
  }
}

/** What a `Watch` needs to know. */
export interface WatchOptions {
  clock: Clock;
  limitMs: number;
  /** Count the time since the last `touch()` instead of the whole. */
  idle: boolean;
  /** Whatever else ends the exchange: the caller, the client being closed. */
  signals: readonly (AbortSignal | undefined)[];
}

/** The time limit of one exchange, as a signal. Must be disposed of when the exchange is over. */
export class Watch {
  readonly #options: WatchOptions;
  readonly #controller = new AbortController();
  readonly #over = new AbortController();
  #touched: number;
  #paused = false;

  constructor(options: WatchOptions) {
    this.#options = options;
    this.#touched = options.clock.monotonic();
    for (const signal of options.signals) {
      if (signal === undefined) continue;
      const abort = () => this.#controller.abort(signal.reason);
      if (signal.aborted) abort();
      else signal.addEventListener("abort", abort, { once: true, signal: this.#over.signal });
    }
    this.#run();
  }

  /** Aborts with a `TimeUp` or with the reason of one of the signals. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** A byte moved. */
  touch(): void {
    this.#touched = this.#options.clock.monotonic();
  }

  /** Nobody waits for the server just now: its idle time does not count. */
  pause(): void {
    this.#paused = true;
  }

  /** We wait for the server again. */
  resume(): void {
    this.#paused = false;
    this.touch();
  }

  async #run(): Promise<void> {
    const { clock, limitMs, idle } = this.#options;
    let waitMs = limitMs;
    while (!this.#controller.signal.aborted) {
      try {
        await clock.sleep(waitMs, this.#over.signal);
      } catch {
        return;
      }
      const leftMs = idle ? this.#touched + limitMs - clock.monotonic() : 0;
      if (leftMs <= 0 && !(idle && this.#paused)) this.#controller.abort(new TimeUp(limitMs, idle));
      waitMs = leftMs > 0 ? leftMs : limitMs;
    }
  }

  [Symbol.dispose](): void {
    this.#over.abort();
  }
}
