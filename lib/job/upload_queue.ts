/**
 * Brings every job's outbox to the server. The job that runs is delivered live; what earlier runs or
 * an outage left is delivered meanwhile, one after the other, so that neither waits for the other.
 */
import { Said } from "../once.ts";
import { untilAborted, within } from "../wait.ts";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import type { Emit } from "../observe/events.ts";
import type { UploaderOptions } from "../outbox/delivery.ts";
import { deliver } from "../outbox/uploader.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { Backoff } from "../backoff.ts";
import { makeRoom, type SparePart } from "./space_cap.ts";
import type { JobStore } from "./store.ts";

/** What all uploads share. */
export interface UploadQueueOptions {
  store: JobStore;
  uploader: Omit<UploaderOptions, "onCancelled" | "isLeftover">;
  emit: Emit;
  clock: Clock;
  log: Log;
  /** Removes the folder of a job whose artifacts had to stay in it. */
  removeFolder(folder: string): Promise<void>;
  /** Bytes; see `max_spool` in the configuration. */
  maxSpool: number;
}

/**
 * For so long nothing of a job must have arrived before it is given up to make room: a server that is
 * there takes what has just ended.
 */
const STUCK_AFTER_MS = 30_000;

/** Dashboards look every few seconds at what is on its way. */
const TELL_EVERY_MS = 2_000;

/** One job on its way. */
interface QueuedUpload {
  done: Promise<void>;
  /** Stops its uploader. */
  pause: AbortController;
  how: Pick<UploaderOptions, "onCancelled" | "isLeftover">;
  /** Whether its turn has come. */
  hasBegun: boolean;
  /** Since when this is left of it, though it was tried; monotonic milliseconds. */
  trouble?: { since: number; left: string };
}

/** All uploads of one agent. */
export class UploadQueue {
  readonly #options: UploadQueueOptions;
  readonly #stop = new AbortController();
  /** Every outbox that the server does not have wholly, in the order of acceptance. */
  readonly #uploads = new Map<Outbox, QueuedUpload>();
  /** The end of the queue in which finished jobs of earlier runs are delivered. */
  #backlog: Promise<void> = Promise.resolve();
  #telling: Promise<void> | undefined;
  #makingRoom: Promise<void> | undefined;
  /** When the disk was last looked at; monotonic milliseconds. */
  #lookedAt = -Infinity;

  constructor(options: UploadQueueOptions) {
    this.#options = options;
  }

  /** Outboxes of `jobId` that the server does not have wholly. */
  of(jobId: string): Outbox[] {
    return [...this.#uploads.keys()].filter((outbox) => outbox.jobId === jobId);
  }

  /** Starts to deliver a job that runs now; after what an earlier run of the same job left. */
  startLive(outbox: Outbox, how: Pick<UploaderOptions, "onCancelled" | "isLeftover">): void {
    this.#start(outbox, this.#earlierThan(outbox), how);
  }

  /** Resolves when what was accepted before of the same job is through, or complete at least. */
  async #earlierThan(outbox: Outbox): Promise<void> {
    const all = this.of(outbox.jobId);
    const earlier = all.includes(outbox) ? all.slice(0, all.indexOf(outbox)) : all;
    await Promise.all(
      earlier.map((other) => Promise.race([this.#uploads.get(other)?.done, this.#complete(other)])),
    );
  }

  async #complete(outbox: Outbox): Promise<void> {
    const { signal } = this.#stop;
    while (!outbox.isComplete && !signal.aborted) {
      await outbox.changed(signal, { ofLogs: true }).catch(() => {});
    }
  }

  /** Delivers what an earlier process left, when its turn comes. */
  startLeftover(outbox: Outbox): void {
    const before = Promise.all([this.#backlog, this.#earlierThan(outbox)]);
    this.#backlog = this.#start(outbox, before, { isLeftover: true });
  }

  /** Returns what resolves when the next of the backlog may begin: at the end, or at the first trouble. */
  #start(outbox: Outbox, before: Promise<unknown>, how: QueuedUpload["how"]): Promise<void> {
    const pause = new AbortController();
    const signal = AbortSignal.any([pause.signal, this.#stop.signal]);
    const next = Promise.withResolvers<void>();
    const done = this.#deliver(outbox, { before, signal, how, onTrouble: next.resolve });
    done.finally(next.resolve);
    this.#uploads.set(outbox, { done, pause, how, hasBegun: false });
    this.#telling ??= this.#tellNowAndThen();
    return next.promise;
  }

  /** Delivers when its turn has come. What the agent's own disk does not give now, it may give later. */
  async #deliver(
    outbox: Outbox,
    { before, signal, how, onTrouble }: {
      before: Promise<unknown>;
      signal: AbortSignal;
      how: QueuedUpload["how"];
      onTrouble(): void;
    },
  ): Promise<void> {
    const { clock, log } = this.#options;
    const backoff = new Backoff();
    const said = new Said();
    await untilAborted(before, signal);
    const upload = this.#uploads.get(outbox);
    if (upload !== undefined) upload.hasBegun = true;
    while (!signal.aborted) {
      try {
        return await this.#tryToDeliver(outbox, signal, how);
      } catch (error) {
        if (signal.aborted) return;
        const reason = messageOf(error);
        if (said.isNew("delivery", reason)) {
          log.error(
            `Cannot deliver job ${outbox.jobId}: ${reason}. What is left of it is kept in ` +
              `${outbox.folder}, and is retried automatically.`,
          );
        }
        onTrouble();
        await clock.sleep(backoff.next(), signal).catch(() => {});
      }
    }
  }

  async #tryToDeliver(
    outbox: Outbox,
    signal: AbortSignal,
    how: QueuedUpload["how"],
  ): Promise<void> {
    const { store, removeFolder, uploader } = this.#options;
    const onRetry = () => {
      this.#noteTrouble(outbox);
      uploader.onRetry?.();
    };
    await deliver(outbox, { ...uploader, ...how, onRetry }, signal);
    const folder = outbox.state.finished?.folder;
    if (folder !== undefined) await removeFolder(folder);
    const { output, serial } = outbox.state.logs;
    for (const later of this.of(outbox.jobId)) {
      if (later === outbox) continue;
      later.append({ t: "continues", next: { output: output.next, serial: serial.next } });
    }
    await store.remove(outbox);
    this.#uploads.delete(outbox);
    this.#tell();
  }

  async #tellNowAndThen(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      this.#tell();
      await this.enforceCap();
      await this.#options.clock.sleep(TELL_EVERY_MS, signal).catch(() => {});
    }
  }

  /** Tells how much is on its way. */
  #tell(): void {
    const outboxes = [...this.#uploads.keys()];
    this.#options.emit({
      type: "undelivered",
      bytes: outboxes.reduce((sum, outbox) => sum + outbox.undeliveredBytes, 0),
      fragments: outboxes.reduce((sum, outbox) => sum + outbox.undeliveredFragments, 0),
      jobs: outboxes.filter((outbox) => outbox.state.finished !== undefined).length,
    });
  }

  /**
   * While what is kept takes more room than it may, gives up logs and artifacts of ended jobs that the
   * server does not take. Their outcomes stay: nobody must wait for a job for ever.
   */
  async enforceCap(): Promise<void> {
    const now = this.#options.clock.monotonic();
    const isHeldUp = [...this.#uploads.values()].some((upload) => this.#isStuck(upload));
    if (isHeldUp && now - this.#lookedAt >= STUCK_AFTER_MS) {
      this.#lookedAt = now;
      this.#makingRoom ??= this.#makeRoom().finally(() => this.#makingRoom = undefined);
    }
    await this.#makingRoom;
  }

  async #makeRoom(): Promise<void> {
    const { maxSpool, log } = this.#options;
    const uploads = [...this.#uploads];
    const occupants = uploads.map(([outbox, upload]) => ({
      outbox,
      // One whose turn has not come is held up by the one before it.
      isStuck: outbox.state.finished !== undefined && (!upload.hasBegun || this.#isStuck(upload)),
    }));
    const giveUp = (outbox: Outbox, part: SparePart) => this.#giveUp(outbox, part);
    await makeRoom(occupants, { maxSpool, log, giveUp });
  }

  /** Whether nothing of it has arrived for some time, though it was tried. */
  #isStuck({ trouble }: QueuedUpload): boolean {
    return trouble !== undefined &&
      this.#options.clock.monotonic() - trouble.since >= STUCK_AFTER_MS;
  }

  /** A call for `outbox` has failed: since when does nothing of it arrive any more? */
  #noteTrouble(outbox: Outbox): void {
    const upload = this.#uploads.get(outbox);
    if (upload === undefined) return;
    const left = `${outbox.undeliveredBytes} ${outbox.state.pending.length}`;
    if (upload.trouble?.left === left) return;
    upload.trouble = { since: this.#options.clock.monotonic(), left };
  }

  async #giveUp(outbox: Outbox, part: SparePart): Promise<boolean> {
    const upload = this.#uploads.get(outbox);
    if (upload === undefined) return false;
    upload.pause.abort(new DOMException("The job makes room", "AbortError"));
    await upload.done;
    if (!this.#uploads.has(outbox)) return false; // It was delivered in this moment.
    await outbox.giveUp(part);
    this.#start(outbox, this.#earlierThan(outbox), upload.how);
    return true;
  }

  /** Waits until the server has everything, at most `ms`. Returns whether it has. */
  async drain(ms: number, forceStop?: AbortSignal): Promise<boolean> {
    const all = Promise.all(this.#all()).then(() => {});
    const over = forceStop === undefined ? all : untilAborted(all, forceStop);
    await within(over, { clock: this.#options.clock, ms });
    return this.#uploads.size === 0;
  }

  #all(): Promise<void>[] {
    return [...this.#uploads.values()].map(({ done }) => done);
  }

  /** Stops delivering; the next process goes on with what is left. */
  async stop(): Promise<void> {
    this.#stop.abort(new DOMException("The agent stops", "AbortError"));
    await Promise.allSettled([...this.#all(), this.#telling]);
    for (const outbox of this.#uploads.keys()) outbox[Symbol.dispose]();
    this.#uploads.clear();
  }
}
