/**
 * Brings every job's spool to the server. The job that runs is delivered live; what earlier runs or
 * an outage left goes one after the other beside it, so that neither waits for the other.
 */
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import type { Observer } from "../observe/observer.ts";
import { Courier, type CourierOptions } from "../outbox/courier.ts";
import { LOG_NAMES } from "../outbox/entries.ts";
import type { Spool } from "../outbox/spool.ts";
import type { JobStore } from "./store.ts";

/** What all deliveries share. */
export interface DeliveriesOptions {
  store: JobStore;
  courier: Omit<CourierOptions, "onCancelled">;
  observer: Observer;
  clock: Clock;
  log: Log;
  /** Removes the folder of a job whose artifacts had to stay in it. */
  removeFolder(folder: string): Promise<void>;
  /** Bytes; see `max_spool` in the configuration. */
  maxSpool: number;
}

/** All deliveries of one agent. */
export class Deliveries {
  readonly #options: DeliveriesOptions;
  readonly #stop = new AbortController();
  /** Every spool that the server does not have wholly, in the order of acceptance. */
  readonly #spools = new Map<Spool, Promise<void>>();
  /** The end of the queue in which finished jobs of earlier runs are delivered. */
  #backlog: Promise<void> = Promise.resolve();

  constructor(options: DeliveriesOptions) {
    this.#options = options;
  }

  /** Spools of `jobId` that the server does not have wholly. */
  of(jobId: string): Spool[] {
    return [...this.#spools.keys()].filter((spool) => spool.jobId === jobId);
  }

  /** Starts to deliver a job that runs now. */
  startLive(spool: Spool, onCancelled: () => void): void {
    const earlier = this.of(spool.jobId).map((other) => this.#spools.get(other));
    this.#keep(spool, Promise.all(earlier).then(() => this.#deliver(spool, onCancelled)));
  }

  /** Delivers what an earlier process left, when its turn comes. */
  startLeftover(spool: Spool): void {
    this.#backlog = this.#backlog.then(() => this.#deliver(spool, () => {}));
    this.#keep(spool, this.#backlog);
  }

  #keep(spool: Spool, delivery: Promise<void>): void {
    this.#spools.set(spool, delivery);
    this.#tell();
  }

  async #deliver(spool: Spool, onCancelled: () => void): Promise<void> {
    const { store, removeFolder, log, courier } = this.#options;
    if (!this.#spools.has(spool)) return; // It had to make room before its turn came.
    try {
      await new Courier(spool, { ...courier, onCancelled }).run(this.#stop.signal);
      const folder = spool.standing.finished?.folder;
      if (folder !== undefined) await removeFolder(folder);
      await store.remove(spool);
      this.#spools.delete(spool);
    } catch (error) {
      if (this.#stop.signal.aborted || !this.#spools.has(spool)) return;
      const reason = error instanceof Error ? error.message : String(error);
      log.error(
        `Cannot deliver job ${spool.jobId}: ${reason}. What is left of it is kept in ` +
          `${spool.folder} and tried again at the next start of the agent.`,
      );
    } finally {
      this.#tell();
    }
  }

  /** Tells the observer how much is on its way. */
  #tell(): void {
    let bytes = 0;
    let fragments = 0;
    for (const spool of this.#spools.keys()) {
      bytes += spool.undeliveredBytes;
      fragments += LOG_NAMES.filter((log) =>
        spool.length(log) > spool.standing.logs[log].settled
      ).length;
    }
    this.#options.observer.undelivered({ bytes, fragments, jobs: this.#spools.size });
  }

  /**
   * Gives up the oldest whole jobs while what is kept takes more room than it may.
   *
   * @param running the job that runs now, which is never given up.
   */
  async enforceCap(running?: Spool): Promise<void> {
    const { store, maxSpool, log } = this.#options;
    const sizes = new Map<Spool, number>();
    for (const spool of this.#spools.keys()) sizes.set(spool, await store.size(spool));
    let total = [...sizes.values()].reduce((sum, size) => sum + size, 0);
    for (const [spool, size] of sizes) {
      if (total <= maxSpool) return;
      if (spool === running || spool.standing.finished === undefined) continue;
      log.error(
        `What could not be delivered takes up ${total} bytes, more than max_spool allows ` +
          `(${maxSpool}): the log and the artifacts of job ${spool.jobId} are given up. ` +
          "Find out why the server does not take them, or raise max_spool.",
      );
      this.#spools.delete(spool);
      await store.remove(spool);
      total -= size;
    }
  }

  /** Waits until the server has everything, at most `ms`. Returns whether it has. */
  async drain(ms: number, hasten?: AbortSignal): Promise<boolean> {
    const over = new AbortController();
    const signal = hasten === undefined ? over.signal : AbortSignal.any([over.signal, hasten]);
    const limit = this.#options.clock.sleep(ms, signal).catch(() => {});
    await Promise.race([Promise.all(this.#spools.values()), limit]);
    over.abort();
    await limit;
    return this.#spools.size === 0;
  }

  /** Stops delivering; the next process goes on with what is left. */
  async stop(): Promise<void> {
    this.#stop.abort(new DOMException("The agent stops", "AbortError"));
    await Promise.allSettled(this.#spools.values());
    for (const spool of this.#spools.keys()) spool[Symbol.dispose]();
    this.#spools.clear();
  }
}
