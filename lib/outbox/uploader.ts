/**
 * Brings what one job has for the server to the server: in order, each thing until the server has
 * answered 2xx or has refused it for good, and never a piece of a log twice.
 */
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { type Answer, type Failure, isFinal, type ServerApi, type Upload } from "../server/api.ts";
import { Backoff } from "../server/backoff.ts";
import type { PhaseStatuses } from "../server/schema.ts";
import type { Connectivity } from "./connectivity.ts";
import { LOG_NAMES, type LogName } from "./entries.ts";
import { generationOf, postOutcome } from "./outcome_post.ts";
import type { Outbox } from "./outbox.ts";
import { deliveredBefore, type PendingMessage, type Piece, regionAt } from "./job_state.ts";
import { wholeCharacters } from "./utf8.ts";

/** A chatty job makes at most five requests a second for its log. */
const BETWEEN_FRAGMENTS_MS = 200;
/** With this much waiting a fragment leaves at once. */
const FULL_FRAGMENT_BYTES = 256 * 1024;
/** Behind an outage, fewer and larger ones: readers cope with 1 MiB, the server's store with 16. */
const LARGEST_FRAGMENT_BYTES = 512 * 1024;
/** How often artifacts that cannot be packed are tried, should the cause be a passing one. */
const PACKING_TRIES = 3;
/** A webhook that its server cannot reach is not tried for ever. */
const EVENT_TRIES = 5;

/** What a uploader needs to know and to use. */
export interface CourierOptions {
  server: ServerApi;
  connectivity: Connectivity;
  clock: Clock;
  log: Log;
  agentId: string;
  /** How much of the end of each log the outcome carries on a legacy server, in bytes. */
  outputBytes: number;
  /** Opens the folder `artifacts` in `folder` as a tar.gz; what is left out is said in the job's log. */
  openArtifacts(outbox: Outbox, folder: string): Upload & Disposable;
  /**
   * The job is an earlier process's: its states are old news, which a cancellation may have
   * overtaken, so the server is asked before each of them.
   */
  isLeftover?: boolean;
  /** A call failed and will be made again. */
  onRetry?: () => void;
  /** The server said that the job was cancelled when the uploader was about to post its state. */
  onCancelled?: () => void;
}

/** Delivers one outbox. */
export class Uploader {
  readonly #outbox: Outbox;
  readonly #options: CourierOptions;
  /** When the last fragment left, by log; monotonic milliseconds. */
  readonly #left: Record<LogName, number> = { output: -Infinity, serial: -Infinity };
  /** Whether it is unknown what became of the piece under way: always, of an earlier process's. */
  readonly #doubtful: Record<LogName, boolean>;
  #turn: LogName = "output";
  #refusedLogs = new Set<LogName>();

  constructor(outbox: Outbox, options: CourierOptions) {
    this.#outbox = outbox;
    this.#options = options;
    this.#doubtful = {
      output: outbox.state.logs.output.inFlight !== undefined,
      serial: outbox.state.logs.serial.inFlight !== undefined,
    };
  }

  /**
   * Delivers until the job has ended and the server has everything.
   *
   * @throws the signal's reason when it aborts; a later uploader goes on from there.
   */
  async run(signal: AbortSignal): Promise<void> {
    const stopped = new AbortController();
    const either = AbortSignal.any([signal, stopped.signal]);
    const lanes = [this.#deliverResults(either), this.#deliverEvents(either)];
    try {
      await Promise.all(lanes);
    } finally {
      stopped.abort(signal.reason);
      await Promise.allSettled(lanes);
    }
  }

  /** Logs and messages, in the order in which the job made them. */
  async #deliverResults(signal: AbortSignal): Promise<void> {
    const { state } = this.#outbox;
    while (true) {
      signal.throwIfAborted();
      const changed = this.#outbox.changed(signal);
      changed.catch(() => {}); // Often nobody waits for it: there was something to do.
      const message = state.pending[0];
      const log = this.#nextLog(message);
      if (log !== undefined) {
        await this.#deliverPiece(log, signal);
      } else if (message !== undefined) {
        await this.#deliverMessage(message, signal);
      } else if (state.finished !== undefined && this.#outbox.undeliveredBytes === 0) {
        return;
      } else {
        await this.#waitForMore(changed, signal);
      }
    }
  }

  /** The log of which a piece should leave now. */
  #nextLog(message: PendingMessage | undefined): LogName | undefined {
    const order: LogName[] = this.#turn === "output" ? ["output", "serial"] : ["serial", "output"];
    return order.find((log) => this.#isDue(log, message));
  }

  #isDue(log: LogName, message: PendingMessage | undefined): boolean {
    const { state } = this.#outbox;
    const { settled, inFlight } = state.logs[log];
    const waiting = this.#outbox.length(log) - settled;
    if (waiting === 0) return false;
    const isFull = waiting >= FULL_FRAGMENT_BYTES;
    if (inFlight !== undefined || state.finished !== undefined || isFull) return true;
    // Whoever reads a status, or that the job is complete, finds the log of it there.
    const barrier = message?.message.kind === "outcome" ? Infinity : message?.after[log] ?? 0;
    return settled < barrier || this.#untilDue(log) <= 0;
  }

  #untilDue(log: LogName): number {
    return this.#left[log] + BETWEEN_FRAGMENTS_MS - this.#options.clock.monotonic();
  }

  /** Waits for a change, or for the moment at which what waits in a log may leave. */
  async #waitForMore(changed: Promise<void>, signal: AbortSignal): Promise<void> {
    const waiting = LOG_NAMES.filter((log) =>
      this.#outbox.length(log) > this.#outbox.state.logs[log].settled
    );
    if (waiting.length === 0) return await changed;
    const over = new AbortController();
    const due = Math.max(0, Math.min(...waiting.map((log) => this.#untilDue(log))));
    const slept = this.#options.clock.sleep(due, AbortSignal.any([signal, over.signal]));
    try {
      await Promise.race([changed, slept]);
    } finally {
      over.abort();
      await slept.catch(() => {});
    }
  }

  async #deliverPiece(log: LogName, signal: AbortSignal): Promise<void> {
    const { state } = this.#outbox;
    this.#turn = log === "output" ? "serial" : "output";
    await this.#measureBaseline(signal);
    if (state.logs[log].inFlight === undefined) await this.#announcePiece(log);
    const piece = state.logs[log].inFlight;
    if (piece === undefined) return;
    this.#left[log] = this.#options.clock.monotonic();
    const text = await this.#outbox.readLog(log, piece.from, piece.to);
    const outcome = await this.#persist(
      async () => {
        if (this.#doubtful[log]) {
          const looked = await this.#hasArrived(log, piece, signal);
          if (!looked.ok) return looked;
          if (looked.value) return { ok: true, value: undefined };
        }
        this.#doubtful[log] = true;
        return await this.#options.server.postLog(this.#outbox.jobId, log, {
          fragment_number: piece.number,
          timestamp: new Date(this.#options.clock.now()).toISOString().replace("Z", "+00:00"),
          phase: piece.phase,
          log_data: text,
        }, signal);
      },
      signal,
    );
    this.#doubtful[log] = false;
    if (outcome.ok) {
      this.#outbox.append({ t: "fragment_settled", log, how: "delivered" });
      return;
    }
    this.#outbox.append({
      t: "fragment_settled",
      log,
      how: "refused",
      message: outcome.message,
    });
    if (!this.#refusedLogs.has(log)) {
      this.#refusedLogs.add(log);
      this.#complain(`a piece of its ${log} log`, outcome);
    }
  }

  /** Writes down which piece is about to be posted, before it is. */
  async #announcePiece(log: LogName): Promise<void> {
    const state = this.#outbox.state.logs[log];
    const from = state.settled;
    const { phase, end } = regionAt(state, from, this.#outbox.length(log));
    let to = Math.min(end, from + LARGEST_FRAGMENT_BYTES);
    if (to < end) {
      const bytes = await this.#outbox.readLog(log, from, to);
      to = from + wholeCharacters(bytes);
    }
    this.#outbox.append({ t: "fragment", log, number: state.next, phase, from, to });
    await this.#outbox.sync().catch(() => {}); // A disk that cannot sync must not hold up the log.
  }

  /**
   * Whether the server has a piece of which it is not known if it arrived. A legacy server cannot
   * be asked: there the piece goes out again, since the outcome carries the log once more anyway.
   */
  async #hasArrived(log: LogName, piece: Piece, signal: AbortSignal): Promise<Answer<boolean>> {
    const { server } = this.#options;
    if (server.generation === "legacy") return { ok: true, value: false };
    const view = await server.viewResult(this.#outbox.jobId, signal);
    if (!view.ok) return view;
    const { state } = this.#outbox;
    const key = `${piece.phase}_${log}` as const;
    const earlier = (state.baseline?.[key] ?? 0) +
      deliveredBefore(state.logs[log], piece.phase, piece.from);
    return { ok: true, value: (view.value.logBytes[key] ?? 0) > earlier };
  }

  /** Finds out how much text of earlier runs of the same job the server has, once. */
  async #measureBaseline(signal: AbortSignal): Promise<void> {
    const { state } = this.#outbox;
    if (state.accepted?.rerun !== true || state.baseline !== undefined) return;
    const view = await this.#persist(
      () => this.#options.server.viewResult(this.#outbox.jobId, signal),
      signal,
    );
    this.#outbox.append({ t: "baseline", bytes: view.ok ? view.value.logBytes : {} });
  }

  async #deliverMessage(pending: PendingMessage, signal: AbortSignal): Promise<void> {
    const answer = pending.message.kind === "outcome"
      ? await this.#deliverOutcome(pending, signal)
      : await this.#postMessage(pending, signal);
    const { n } = pending;
    if (answer.ok) {
      this.#outbox.append({ t: "settled", n, how: "delivered" });
    } else {
      this.#complain(`its ${pending.message.kind.replace("_", " ")}`, answer);
      this.#outbox.append({ t: "settled", n, how: "refused", message: answer.message });
    }
  }

  async #postMessage({ message }: PendingMessage, signal: AbortSignal): Promise<Answer<void>> {
    const { server } = this.#options;
    const { jobId } = this.#outbox;
    let tries = 0;
    return await this.#persist((): Promise<Answer<void>> => {
      tries++;
      switch (message.kind) {
        case "state":
          return this.#postState(message.state, tries, signal);
        case "status":
          return this.#postStatus(message.status, signal);
        case "device_info":
          return server.postResult(jobId, { device_info: message.deviceInfo }, signal);
        case "provision_log":
          return server.postProvisionLog({
            job_id: jobId,
            exit_code: message.exitCode,
            detail: message.detail,
          }, signal);
        case "artifacts":
          return this.#postArtifacts(message.folder, tries, signal);
        case "outcome":
          return postOutcome(this.#outbox, message.status, { ...this.#options, signal });
      }
    }, signal);
  }

  /** What cannot be packed will not be later either: after some tries the job is completed without it. */
  async #postArtifacts(folder: string, tries: number, signal: AbortSignal): Promise<Answer<void>> {
    const { server, openArtifacts } = this.#options;
    try {
      using upload = openArtifacts(this.#outbox, folder);
      return await server.postArtifact(this.#outbox.jobId, upload, signal);
    } catch (error) {
      const reason = messageOf(error);
      const kind = tries < PACKING_TRIES ? "busy" : "refused";
      return { ok: false, kind, message: `cannot pack ${folder}/artifacts: ${reason}` };
    }
  }

  /**
   * A posted state overwrites `cancelled`. One that had to wait may have been overtaken by a
   * cancellation, so before it is tried again the server is asked.
   */
  async #postState(state: string, tries: number, signal: AbortSignal): Promise<Answer<void>> {
    const { server, onCancelled, isLeftover } = this.#options;
    const { jobId } = this.#outbox;
    if (tries > 1 || isLeftover) {
      const now = await server.getJobState(jobId, signal);
      if (!now.ok) return now;
      if (now.value === "cancelled") {
        onCancelled?.();
        return { ok: true, value: undefined };
      }
    }
    return await server.postResult(jobId, { job_state: state }, signal);
  }

  /** The whole outcome; where the server will not have it, as much of it as it does take. */
  async #deliverOutcome(pending: PendingMessage, signal: AbortSignal): Promise<Answer<void>> {
    const whole = await this.#postMessage(pending, signal);
    if (whole.ok) return whole;
    this.#complain("its outcome (only that it is complete will be posted)", whole);
    return await this.#persist(
      () => this.#options.server.postResult(this.#outbox.jobId, { job_state: "complete" }, signal),
      signal,
    );
  }

  /** A legacy server takes statuses with the outcome only. */
  async #postStatus(status: PhaseStatuses, signal: AbortSignal): Promise<Answer<void>> {
    const { server } = this.#options;
    const generation = await generationOf(this.#outbox, server, signal);
    if (!generation.ok) return generation;
    if (generation.value === "legacy") return { ok: true, value: undefined };
    return await server.postResult(this.#outbox.jobId, { status }, signal);
  }

  /** Events have a lane of their own: a webhook that is slow delays no log and no outcome. */
  async #deliverEvents(signal: AbortSignal): Promise<void> {
    const { state } = this.#outbox;
    while (true) {
      signal.throwIfAborted();
      const changed = this.#outbox.changed(signal);
      changed.catch(() => {});
      const count = state.events.length;
      if (state.eventsSettled < count) {
        const answer = await this.#postEvents(count, signal);
        this.#outbox.append(
          answer.ok
            ? { t: "events_settled", count, how: "delivered" }
            : { t: "events_settled", count, how: "refused", message: answer.message },
        );
      } else if (state.finished !== undefined) {
        return;
      } else {
        await changed;
      }
    }
  }

  async #postEvents(count: number, signal: AbortSignal): Promise<Answer<void>> {
    const { accepted, events } = this.#outbox.state;
    const webhook = accepted?.webhook;
    if (accepted === undefined || webhook === undefined) return { ok: true, value: undefined };
    let tries = 0;
    return await this.#persist(async () => {
      const answer = await this.#options.server.postEvents(this.#outbox.jobId, {
        agent_id: this.#options.agentId,
        job_queue: accepted.queue,
        job_status_webhook: webhook,
        events: events.slice(0, count),
      }, signal);
      // 500, 502 and 504 say that the server could not deliver: its trouble with the webhook, and
      // nothing that is worth keeping a job for. An outage of the server itself is waited for.
      const isGivenUp = !answer.ok && answer.kind === "busy" && ++tries >= EVENT_TRIES;
      return isGivenUp ? { ...answer, kind: "refused" as const } : answer;
    }, signal);
  }

  /**
   * Makes a call until it succeeds or is refused for good.
   *
   * @returns the success, or the refusal.
   * @throws the signal's reason when it aborts.
   */
  async #persist<T>(call: () => Promise<Answer<T>>, signal: AbortSignal): Promise<Answer<T>> {
    const backoff = new Backoff();
    while (true) {
      const answer = await call();
      if (answer.ok || isFinal(answer)) return answer;
      signal.throwIfAborted();
      this.#options.onRetry?.();
      this.#options.log.debug(`Will be tried again: ${answer.message}`, {
        job_id: this.#outbox.jobId,
      });
      await this.#options.connectivity.pause(backoff.next(answer.retryAfterMs), signal);
    }
  }

  #complain(what: string, failure: Failure): void {
    this.#options.log.error(
      `Job ${this.#outbox.jobId}: ${what} cannot be delivered and will not be tried again: ` +
        failure.message,
    );
  }
}
