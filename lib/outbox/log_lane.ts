/** Brings one log of a job to the server: in order, piece by piece, and no piece twice. */
import { Said } from "../once.ts";
import { type Answer, isFinal } from "../server/api.ts";
import { LogText, type TextMemory, textMemory } from "../server/log_text.ts";
import type { Phase } from "../phases.ts";
import { cutAtEnd } from "../bytes.ts";
import type { Delivery, NextStep } from "./delivery.ts";
import { LOG_NAMES, type LogName, type LogState, type Piece } from "./entries.ts";
import { deliveredBefore, segmentAt } from "./job_state.ts";

/** A chatty job makes at most five requests a second for its log. */
const BETWEEN_FRAGMENTS_MS = 200;
/** With this much waiting a fragment leaves at once. */
const FULL_FRAGMENT_BYTES = 256 * 1024;
/** Behind an outage, fewer and larger ones: readers cope with 1 MiB, the server's store with 16. */
const LARGEST_FRAGMENT_BYTES = 512 * 1024;

/** A piece that can be posted as soon as it is announced. */
interface ReadyPiece extends Omit<Piece, "number"> {
  text: LogText;
}

/** The lane of one log. */
export class LogLane {
  readonly #delivery: Delivery;
  readonly #log: LogName;
  /** Resolves when it is known what the server has of earlier runs. */
  readonly #whatIsThere: () => Promise<void>;
  /** When the last fragment left; monotonic milliseconds. */
  #leftAt = -Infinity;
  #lastPhase: Phase | undefined;
  /** Up to this number, it is unknown what became of a piece: always, of an earlier process's. */
  #doubtfulTo: number;
  readonly #said = new Said();
  /** The piece behind the one that is on its way, which is made ready and announced meanwhile. */
  #ahead: Promise<ReadyPiece | undefined> | undefined;
  /** Of large pieces that have arrived, for the next ones. */
  #memories: TextMemory[] = [];

  /** @param whatIsThere is awaited before the first piece leaves. */
  constructor(delivery: Delivery, log: LogName, whatIsThere: () => Promise<void>) {
    this.#delivery = delivery;
    this.#log = log;
    this.#whatIsThere = whatIsThere;
    const { ahead, inFlight } = this.#state;
    this.#doubtfulTo = ahead?.number ?? inFlight?.number ?? -1;
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
    return segmentAt(this.#state, settled, outbox.length(this.#log)).phase !== this.#lastPhase;
  }

  async #deliverPiece(): Promise<void> {
    const { outbox, options, signal } = this.#delivery;
    const log = this.#log;
    await this.#whatIsThere();
    const ready = await this.#ahead ??
      (this.#state.inFlight === undefined ? await this.#announcePiece() : undefined);
    this.#ahead = undefined;
    const piece = this.#state.inFlight;
    if (piece === undefined) return;
    this.#leftAt = options.clock.monotonic();
    this.#lastPhase = piece.phase;
    const text = ready?.text ?? new LogText(await outbox.readLog(log, piece.from, piece.to));
    let outcome: Answer<void>;
    let tries = 0;
    try {
      outcome = await this.#delivery.persist(async (): Promise<Answer<void>> => {
        tries++;
        if (piece.number <= this.#doubtfulTo) {
          const looked = await this.#hasArrived(piece);
          if (!looked.ok) return looked;
          if (looked.value) return { ok: true, value: undefined };
        }
        // None behind it was posted before it.
        this.#doubtfulTo = piece.number;
        const posted = options.server.postLog(outbox.jobId, log, {
          fragment_number: piece.number,
          timestamp: new Date(options.clock.now()).toISOString().replace("Z", "+00:00"),
          phase: piece.phase,
          log_data: text,
        }, signal);
        this.#ahead ??= this.#lookAhead(piece).catch(() => undefined);
        return await posted;
      });
    } finally {
      await this.#ahead;
    }
    if (outcome.ok) {
      outbox.append({ t: "fragment_settled", log, how: "delivered" });
      // Of a try that has failed some may still be on its way.
      if (tries === 1 && text.memory !== undefined) this.#memories.push(text.memory);
      return;
    }
    const { message } = outcome;
    outbox.append({ t: "fragment_settled", log, how: "refused", message });
    // Else a power cut might leave the next one without it, which would then be taken for this one.
    await outbox.syncEntries().catch(() => {});
    if (this.#said.isNew("refused")) this.#delivery.complain(`a piece of its ${log} log`, outcome);
  }

  /** Writes down which piece is about to be posted, before it is. */
  async #announcePiece(): Promise<ReadyPiece | undefined> {
    const { outbox } = this.#delivery;
    const { settled: from } = this.#state;
    if (from >= outbox.length(this.#log)) return; // All of it is there already.
    const ready = await this.#makeReady(from);
    await this.#writeDown("fragment", ready);
    return ready;
  }

  /**
   * Makes ready what is behind `piece`, which is on its way, and announces it. Only what will not grow any
   * more, as there is enough for it.
   */
  async #lookAhead({ to: from }: Piece): Promise<ReadyPiece | undefined> {
    const { outbox, options: { server } } = this.#delivery;
    if (this.#state.ahead !== undefined) return undefined; // An earlier process has announced it.
    const { end } = segmentAt(this.#state, from, outbox.length(this.#log));
    if (end < from + LARGEST_FRAGMENT_BYTES) return undefined;
    const ready = await this.#makeReady(from);
    if (server.generation === "current") ready.text.prepareJson();
    // It is in flight still: that is acknowledged when this is done.
    await this.#writeDown("fragment_ahead", ready);
    return ready;
  }

  /** The piece that begins at `from`, as large as can be. */
  async #makeReady(from: number): Promise<ReadyPiece> {
    const { outbox } = this.#delivery;
    const { phase, end } = segmentAt(this.#state, from, outbox.length(this.#log));
    const most = Math.min(end, from + LARGEST_FRAGMENT_BYTES);
    const isLarge = most - from >= FULL_FRAGMENT_BYTES;
    if (!isLarge) this.#memories = [];
    const memory = isLarge ? this.#memories.pop() ?? textMemory(LARGEST_FRAGMENT_BYTES) : undefined;
    const bytes = await outbox.readLog(this.#log, from, most, memory?.utf8);
    if (most === end) return { from, to: end, phase, text: new LogText(bytes, memory) };
    const whole = bytes.subarray(0, bytes.length - cutAtEnd(bytes));
    return { from, to: from + whole.length, phase, text: new LogText(whole, memory) };
  }

  async #writeDown(t: "fragment" | "fragment_ahead", piece: ReadyPiece): Promise<void> {
    const { outbox } = this.#delivery;
    const log = this.#log;
    const { phase, from, to } = piece;
    outbox.append({ t, log, number: this.#state.next, phase, from, to });
    // A disk that cannot sync must not hold up the log.
    await Promise.allSettled([outbox.syncLog(log, to), outbox.syncEntries()]);
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
