/**
 * Brings every job's spool to the server. The job that runs is delivered live; what earlier runs or
 * an outage left goes one after the other beside it, so that neither waits for the other.
 */
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import type { Observer } from "../observe/observer.ts";
import { Courier, type CourierOptions } from "../outbox/courier.ts";
import type { Spool } from "../outbox/spool.ts";
import { Backoff } from "../server/backoff.ts";
import type { JobStore } from "./store.ts";

/** What all deliveries share. */
export interface DeliveriesOptions {
  store: JobStore;
  courier: Omit<CourierOptions, "onCancelled" | "isLeftover">;
  observer: Observer;
  clock: Clock;
  log: Log;
  /** Removes the folder of a job whose artifacts had to stay in it. */
  removeFolder(folder: string): Promise<void>;
  /** Bytes; see `max_spool` in the configuration. */
  maxSpool: number;
}

/** Dashboards look every few seconds at what is on its way. */
const TELL_EVERY_MS = 2_000;

/** One job on its way. */
interface Delivery {
  done: Promise<void>;
  /** Stops its courier. */
  pause: AbortController;
  how: Pick<CourierOptions, "onCancelled" | "isLeftover">;
}

/** All deliveries of one agent. */
export class Deliveries {
  readonly #options: DeliveriesOptions;
  readonly #stop = new AbortController();
  /** Every spool that the server does not have wholly, in the order of acceptance. */
  readonly #deliveries = new Map<Spool, Delivery>();
  /** The end of the queue in which finished jobs of earlier runs are delivered. */
  #backlog: Promise<void> = Promise.resolve();
  #telling: Promise<void> | undefined;

  constructor(options: DeliveriesOptions) {
    this.#options = options;
  }

  /** Spools of `jobId` that the server does not have wholly. */
  of(jobId: string): Spool[] {
    return [...this.#deliveries.keys()].filter((spool) => spool.jobId === jobId);
  }

  /** Starts to deliver a job that runs now; after what an earlier run of the same job left. */
  startLive(spool: Spool, onCancelled: () => void): void {
    this.#start(spool, this.#earlierThan(spool), { onCancelled });
  }

  /** Resolves when what was accepted before of the same job is through. */
  async #earlierThan(spool: Spool): Promise<void> {
    const all = this.of(spool.jobId);
    const earlier = all.includes(spool) ? all.slice(0, all.indexOf(spool)) : all;
    await Promise.all(earlier.map((other) => this.#deliveries.get(other)?.done));
  }

  /** Delivers what an earlier process left, when its turn comes. */
  startLeftover(spool: Spool): void {
    const before = Promise.all([this.#backlog, this.#earlierThan(spool)]);
    this.#backlog = this.#start(spool, before, { isLeftover: true });
  }

  /** Returns what resolves when the next of the backlog may begin: at the end, or at the first trouble. */
  #start(spool: Spool, before: Promise<unknown>, how: Delivery["how"]): Promise<void> {
    const pause = new AbortController();
    const signal = AbortSignal.any([pause.signal, this.#stop.signal]);
    const next = Promise.withResolvers<void>();
    const done = this.#deliver(spool, { before, signal, how, onTrouble: next.resolve });
    done.finally(next.resolve);
    this.#deliveries.set(spool, { done, pause, how });
    this.#telling ??= this.#tellNowAndThen();
    return next.promise;
  }

  /** Delivers when its turn has come. What the agent's own disk does not give now, it may give later. */
  async #deliver(
    spool: Spool,
    { before, signal, how, onTrouble }: {
      before: Promise<unknown>;
      signal: AbortSignal;
      how: Delivery["how"];
      onTrouble(): void;
    },
  ): Promise<void> {
    const { clock, log } = this.#options;
    const backoff = new Backoff();
    let told: string | undefined;
    await Promise.race([before, aborted(signal)]);
    while (!signal.aborted) {
      try {
        return await this.#tryToDeliver(spool, signal, how);
      } catch (error) {
        if (signal.aborted) return;
        const reason = messageOf(error);
        if (reason !== told) {
          told = reason;
          log.error(
            `Cannot deliver job ${spool.jobId}: ${reason}. What is left of it is kept in ` +
              `${spool.folder}, and is tried again by itself.`,
          );
        }
        onTrouble();
        await clock.sleep(backoff.next(), signal).catch(() => {});
      }
    }
  }

  async #tryToDeliver(spool: Spool, signal: AbortSignal, how: Delivery["how"]): Promise<void> {
    const { store, removeFolder, courier } = this.#options;
    await new Courier(spool, { ...courier, ...how }).run(signal);
    const folder = spool.standing.finished?.folder;
    if (folder !== undefined) await removeFolder(folder);
    const { output, serial } = spool.standing.logs;
    for (const later of this.of(spool.jobId)) {
      if (later === spool) continue;
      later.append({ t: "continues", next: { output: output.next, serial: serial.next } });
    }
    await store.remove(spool);
    this.#deliveries.delete(spool);
    this.#tell();
  }

  async #tellNowAndThen(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      this.#tell();
      await this.#options.clock.sleep(TELL_EVERY_MS, signal).catch(() => {});
    }
  }

  /** Tells the observer how much is on its way. */
  #tell(): void {
    const spools = [...this.#deliveries.keys()];
    this.#options.observer.undelivered({
      bytes: spools.reduce((sum, spool) => sum + spool.undeliveredBytes, 0),
      fragments: spools.reduce((sum, spool) => sum + spool.undeliveredFragments, 0),
      jobs: spools.filter((spool) => spool.standing.finished !== undefined).length,
    });
  }

  /**
   * While what is kept takes more room than it may, gives up the logs and the artifacts of the oldest
   * jobs that have ended. Their outcomes stay: nobody must wait for a job for ever.
   */
  async enforceCap(): Promise<void> {
    const { store, maxSpool, log } = this.#options;
    const sizes = new Map<Spool, number>();
    for (const spool of this.#deliveries.keys()) sizes.set(spool, await store.size(spool));
    let total = [...sizes.values()].reduce((sum, size) => sum + size, 0);
    for (const [spool, size] of sizes) {
      if (total <= maxSpool) return;
      const delivery = this.#deliveries.get(spool);
      const isEligible = spool.standing.finished !== undefined && !spool.standing.givenUp;
      if (delivery === undefined || !isEligible) continue;
      log.error(
        `What could not be delivered takes up ${total} bytes, more than max_spool allows ` +
          `(${maxSpool}): the log and the artifacts of job ${spool.jobId} are given up, its outcome ` +
          "is kept. Find out why the server does not take them, or raise max_spool.",
      );
      delivery.pause.abort(new DOMException("The job makes room", "AbortError"));
      await delivery.done;
      if (!this.#deliveries.has(spool)) continue; // It was delivered in this moment.
      await spool.giveUp();
      total -= size;
      this.#start(spool, this.#earlierThan(spool), delivery.how);
    }
  }

  /** Waits until the server has everything, at most `ms`. Returns whether it has. */
  async drain(ms: number, hasten?: AbortSignal): Promise<boolean> {
    const over = new AbortController();
    const signal = hasten === undefined ? over.signal : AbortSignal.any([over.signal, hasten]);
    const limit = this.#options.clock.sleep(ms, signal).catch(() => {});
    await Promise.race([Promise.all(this.#all()), limit]);
    over.abort();
    await limit;
    return this.#deliveries.size === 0;
  }

  #all(): Promise<void>[] {
    return [...this.#deliveries.values()].map(({ done }) => done);
  }

  /** Stops delivering; the next process goes on with what is left. */
  async stop(): Promise<void> {
    this.#stop.abort(new DOMException("The agent stops", "AbortError"));
    await Promise.allSettled([...this.#all(), this.#telling]);
    for (const spool of this.#deliveries.keys()) spool[Symbol.dispose]();
    this.#deliveries.clear();
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
