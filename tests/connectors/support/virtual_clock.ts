import type { Clock } from "../../../lib/clock.ts";
import { settle } from "../../support/fake_clock.ts";

/** How often real work is looked at while it runs. */
const LOOK_MS = 5;

interface Sleeper {
  readonly kind: "pause" | "limit";
  readonly due: number;
  readonly wake: () => void;
}

/**
 * Time for connectors that work with real programs. A pause is over at once, its whole length
 * having passed; but no time passes while a call with a limit (a program, a request) is under way,
 * unless `hung` says that it will never end by itself: then its limit is reached.
 */
export class VirtualClock {
  /** For `DeviceConnectorIo.clock`. */
  readonly pauses: Clock = this.#view("pause");
  /** For `DeviceConnectorIo.limits`. */
  readonly limits: Clock = this.#view("limit");
  /** Milliseconds that have passed. */
  elapsed = 0;
  /** The pauses that were begun, in milliseconds. */
  readonly paused: number[] = [];

  #start = Date.UTC(2026, 0, 1);
  #sleepers: Sleeper[] = [];
  #running = false;

  /** @param hung asked again and again while calls are under way; true once for each that hangs. */
  constructor(readonly hung: () => Promise<boolean>) {}

  #view(kind: Sleeper["kind"]): Clock {
    return {
      now: () => this.#start + this.elapsed,
      monotonic: () => this.elapsed,
      sleep: (ms, signal) => {
        if (kind === "pause") this.paused.push(ms);
        return this.#sleep(kind, ms, signal);
      },
    };
  }

  #sleep(kind: Sleeper["kind"], ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const abort = () => {
        this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
        reject(signal?.reason);
      };
      const sleeper: Sleeper = {
        kind,
        due: this.elapsed + Math.max(0, ms),
        wake: () => {
          signal?.removeEventListener("abort", abort);
          resolve();
        },
      };
      signal?.addEventListener("abort", abort, { once: true });
      this.#sleepers.push(sleeper);
      if (!this.#running) this.#run();
    });
  }

  async #run(): Promise<void> {
    this.#running = true;
    while (true) {
      await settle();
      if (this.#sleepers.length === 0) break;
      const limits = this.#sleepers.filter(({ kind }) => kind === "limit");
      if (limits.length === 0) {
        this.#advance(Math.min(...this.#sleepers.map(({ due }) => due)));
      } else if (await this.hung()) {
        this.#advance(Math.min(...limits.map(({ due }) => due)));
      } else {
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      }
    }
    this.#running = false;
  }

  #advance(to: number): void {
    this.elapsed = Math.max(this.elapsed, to);
    const due = this.#sleepers.filter((sleeper) => sleeper.due <= to)
      .sort((a, b) => a.due - b.due);
    this.#sleepers = this.#sleepers.filter((sleeper) => sleeper.due > to);
    for (const sleeper of due) sleeper.wake();
  }
}
