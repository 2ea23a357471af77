import type { HostClock } from "../../lib/clock.ts";

interface Sleeper {
  due: number;
  wake: () => void;
}

/** A clock that stands still until a test moves it. */
export class FakeClock implements HostClock {
  #ms: number;
  #sleepers: Sleeper[] = [];
  #begun = 0;

  /** @param start wall-clock milliseconds at which it stands. */
  constructor(start = Date.UTC(2026, 0, 1)) {
    this.#ms = start;
  }

  now(): number {
    return this.#ms;
  }

  monotonic(): number {
    return this.#ms;
  }

  sinceBoot(): Promise<number> {
    return Promise.resolve(this.#ms);
  }

  since(_moment: Date): number {
    return 0;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      this.#begun++;
      const sleeper: Sleeper = {
        due: this.#ms + Math.max(0, ms),
        wake: () => {
          signal?.removeEventListener("abort", abort);
          resolve();
        },
      };
      const abort = () => {
        this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", abort, { once: true });
      this.#sleepers.push(sleeper);
    });
  }

  /** How many waits have begun so far, ended ones included. */
  get begun(): number {
    return this.#begun;
  }

  /** How many waits are under way. */
  get sleepers(): number {
    return this.#sleepers.length;
  }

  /** Milliseconds until each of the waits is over. */
  get dues(): number[] {
    return this.#sleepers.map((sleeper) => sleeper.due - this.#ms);
  }

  /** Milliseconds until the next sleeper is due; undefined when nobody sleeps. */
  get nextDue(): number | undefined {
    if (this.#sleepers.length === 0) return undefined;
    return Math.min(...this.#sleepers.map((sleeper) => sleeper.due)) - this.#ms;
  }

  /** Resolves when a wait that ends in exactly `ms` milliseconds is under way. */
  async hasWaitOf(ms: number): Promise<void> {
    while (!this.dues.includes(ms)) await settle();
  }

  /** Moves the time on in steps until the work is over; returns what comes of it. */
  async advanceUntil<T>(work: Promise<T>, stepMs: number): Promise<T> {
    let isOver = false;
    const ended = work.finally(() => isOver = true);
    // Told below: it may fail while the time is moved.
    ended.catch(() => {});
    while (!isOver) await this.advance(stepMs);
    return await ended;
  }

  /** Moves the time on, waking sleepers in the order in which they are due. */
  async advance(ms: number): Promise<void> {
    const end = this.#ms + ms;
    while (true) {
      await settle();
      const due = this.#sleepers.filter((s) => s.due <= end).sort((a, b) => a.due - b.due)[0];
      if (due === undefined) break;
      this.#ms = Math.max(this.#ms, due.due);
      this.#sleepers = this.#sleepers.filter((sleeper) => sleeper !== due);
      due.wake();
    }
    this.#ms = end;
    await settle();
  }
}

/** Lets everything that is ready to run go on, timers of zero length included. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setTimeout(resolve, 0));
}
