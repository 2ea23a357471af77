/** Brings one log of a job to the server: in order, piece by piece, and no piece twice. */
import { type Answer, isFinal } from "../server/api.ts";
import type { Phase } from "../phases.ts";
import { cutAtEnd } from "../bytes.ts";
import type { Delivery, NextStep } from "./delivery.ts";
import { LOG_NAMES, type LogName, type LogState, type Piece } from "./entries.ts";
import { deliveredBefore, regionAt } from "./job_state.ts";

/** A chatty job makes at most five requests a second for its log. */
const BETWEEN_FRAGMENTS_MS = 200;
/** With this much waiting a fragment leaves at once. */
const FULL_FRAGMENT_BYTES = 256 * 1024;
/** Behind an outage, fewer and larger ones: readers cope with 1 MiB, the server's store with 16. */
const LARGEST_FRAGMENT_BYTES = 512 * 1024;

/** The lane of one log. */
export class LogLane {
  readonly #delivery: Delivery;
  readonly #log: LogName;
  /** Resolves when it is known what the server has of earlier runs. */
  readonly #whatIsThere: () => Promise<void>;
  /** When the last fragment left; monotonic milliseconds. */
  #leftAt = -Infinity;
  #lastPhase: Phase | undefined;
  /** Whether it is unknown what became of the piece in flight: always, of an earlier process's. */
  #isDoubtful: boolean;
  #hasComplained = false;

  /** @param whatIsThere is awaited before the first piece leaves. */
  constructor(delivery: Delivery, log: LogName, whatIsThere: () => Promise<void>) {
    this.#delivery = delivery;
    this.#log = log;
    this.#whatIsThere = whatIsThere;
    this.#isDoubtful = this.#state.inFlight !== undefined;
  }

  get #state(): LogState {
    return this.#delivery.state.logs[this.#log];
  }

  /** See {@linkcode Delivery.runLane}. */
  next(): NextStep {
    const { outbox, options, state } = this.#delivery;
    const { settled, inFlight } = this.#state;
    const waiting = outbox.length(this.#log) - settled;
    if (waiting === 0) return this.#delivery.isOver ? "over" : Infinity;
    const untilDue = this.#leftAt + BETWEEN_FRAGMENTS_MS - options.clock.monotonic();
    const isDue = inFlight !== undefined || state.finished !== undefined ||
      waiting >= FULL_FRAGMENT_BYTES || untilDue <= 0 || this.#isWaitedFor || this.#isNewPhase;
    return isDue ? () => this.#deliverPiece() : untilDue;
  }

  /** Whether a message waits for this log: what it says must be in the log when it is read. */
  get #isWaitedFor(): boolean {
    const { settled } = this.#state;
    return this.#delivery.state.pending.some(({ message, after }) =>
      message.kind === "outcome" || settled < after[this.#log]
    );
  }

  /** That a phase begins is not chatter. */
  get #isNewPhase(): boolean {
    const { outbox } = this.#delivery;
    const { settled } = this.#state;
    return regionAt(this.#state, settled, outbox.length(this.#log)).phase !== this.#lastPhase;
  }

  async #deliverPiece(): Promise<void> {
    const { outbox, options, signal } = this.#delivery;
    const log = this.#log;
    await this.#whatIsThere();
    if (this.#state.inFlight === undefined) await this.#announcePiece();
    const piece = this.#state.inFlight;
    if (piece === undefined) return;
    this.#leftAt = options.clock.monotonic();
    this.#lastPhase = piece.phase;
    const text = await outbox.readLog(log, piece.from, piece.to);
    const outcome = await this.#delivery.persist(async (): Promise<Answer<void>> => {
      if (this.#isDoubtful) {
        const looked = await this.#hasArrived(piece);
        if (!looked.ok) return looked;
        if (looked.value) return { ok: true, value: undefined };
      }
      this.#isDoubtful = true;
      return await options.server.postLog(outbox.jobId, log, {
        fragment_number: piece.number,
        timestamp: new Date(options.clock.now()).toISOString().replace("Z", "+00:00"),
        phase: piece.phase,
        log_data: text,
      }, signal);
    });
    this.#isDoubtful = false;
    if (outcome.ok) {
      outbox.append({ t: "fragment_settled", log, how: "delivered" });
      return;
    }
    const { message } = outcome;
    outbox.append({ t: "fragment_settled", log, how: "refused", message });
    if (this.#hasComplained) return;
    this.#hasComplained = true;
    this.#delivery.complain(`a piece of its ${log} log`, outcome);
  }

  /** Writes down which piece is about to be posted, before it is. */
  async #announcePiece(): Promise<void> {
    const { outbox } = this.#delivery;
    const log = this.#log;
    const { settled: from, next: number } = this.#state;
    if (from >= outbox.length(log)) return; // All of it is there already.
    const { phase, end } = regionAt(this.#state, from, outbox.length(log));
    let to = Math.min(end, from + LARGEST_FRAGMENT_BYTES);
    if (to < end) {
      const bytes = await outbox.readLog(log, from, to);
      to = from + bytes.length - cutAtEnd(bytes);
    }
    outbox.append({ t: "fragment", log, number, phase, from, to });
    await outbox.sync().catch(() => {}); // A disk that cannot sync must not hold up the log.
  }

  /**
   * Whether the server has a piece of which it is not known if it arrived. A legacy server cannot
   * be asked: there the piece goes out again, since the outcome carries the log once more anyway.
   */
  async #hasArrived(piece: Piece): Promise<Answer<boolean>> {
    const { outbox, options: { server }, signal, state } = this.#delivery;
    if (server.generation === "legacy") return { ok: true, value: false };
    const view = await server.viewResult(outbox.jobId, signal);
    if (!view.ok) return view;
    const key = `${piece.phase}_${this.#log}` as const;
    const earlier = (state.baseline?.[key] ?? 0) +
      deliveredBefore(this.#state, piece.phase, piece.from);
    return { ok: true, value: (view.value.logBytes[key] ?? 0) > earlier };
  }
}

/**
 * Finds out what the server has, where the journal does not tell: how much text of earlier runs of
 * the same job, and, when entries of the journal are missing, how much of this run's own.
 */
export async function findWhatIsThere(delivery: Delivery): Promise<void> {
  const { outbox, options: { server }, signal, state } = delivery;
  const isRerun = state.accepted?.rerun === true && state.baseline === undefined;
  if (!isRerun && !outbox.isIncomplete) return;
  const view = await delivery.persist(async () => {
    const answer = await server.viewResult(outbox.jobId, signal);
    return answer.ok || !isFinal(answer) ? answer : { ok: true as const, value: { logBytes: {} } };
  });
  if (!view.ok) return;
  const there: Record<string, number> = view.value.logBytes;
  const bytesOf = (log: LogName, bytes: Record<string, number>) =>
    Object.entries(bytes).reduce((sum, [key, n]) => key.endsWith(`_${log}`) ? sum + n : sum, 0);
  if (isRerun) {
    outbox.append({ t: "baseline", bytes: there });
    if (state.continues) return;
    // The earlier run has gone, and with it the numbers that it had come to: no piece has less than a byte.
    const next = { output: bytesOf("output", there), serial: bytesOf("serial", there) };
    outbox.append({ t: "continues", next });
    return;
  }
  for (const log of LOG_NAMES) {
    const { next, refused, settled } = state.logs[log];
    const refusedBytes = Object.values(refused).reduce((sum, bytes) => sum + bytes, 0);
    const known = bytesOf(log, there) - bytesOf(log, state.baseline ?? {}) + refusedBytes;
    const to = Math.min(known, outbox.length(log));
    if (to <= settled) continue;
    outbox.append({ t: "resumed", log, settled: to, next: next + to - settled });
  }
}
