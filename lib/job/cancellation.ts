/** Learns from the server that the job was cancelled: there is no other way for an agent to know. */
import { untilAborted, within } from "../wait.ts";
import type { Clock } from "../clock.ts";
import type { Connectivity } from "../server/connectivity.ts";
import type { ServerApi } from "../server/api.ts";
import { Backoff } from "../backoff.ts";
import type { EndReason } from "./job_context.ts";

/** People wait for a cancellation; the server must not be asked more often than this. */
const ASK_EVERY_MS = 1000;
/** Nor less often, as long as it answers. */
const LONGEST_PAUSE_MS = 10_000;
/**
 * A server that can only be asked for the whole result puts the job's log together for each answer:
 * it is left alone ten times as long as that took, and a second for each MiB.
 */
const PAUSES_PER_ANSWER = 10;
const BYTES_PER_PAUSE_MS = 1024 * 1024 / 1000;
/** Whatever a server that is in trouble asks for: a job that is cancelled must not run on for hours. */
const LONGEST_RETRY_AFTER_MS = 60_000;
/** A server that is slow to say whether the job was cancelled does not hold up its next phase. */
const LONGEST_CHECK_MS = 2000;
/** What was answered longer ago than this, for what else took its time, is asked again before a state is posted. */
const CERTAIN_FOR_MS = 1000;

/** What a watch needs. */
export interface CancellationWatchOptions {
  server: ServerApi;
  connectivity: Connectivity;
  clock: Clock;
  jobId: string;
  /** Called once, when the job is first known to be cancelled. */
  onCancelled?(): void;
}

/** Watches the state of one job from its beginning to its cleanup. */
export class CancellationWatch implements AsyncDisposable {
  readonly #options: CancellationWatchOptions;
  readonly #cancelled = new AbortController();
  readonly #over = new AbortController();
  readonly #watching: Promise<void>;
  /** When `check()` was answered last; monotonic milliseconds. */
  #checkedAt = -Infinity;

  constructor(options: CancellationWatchOptions) {
    this.#options = options;
    this.#watching = this.#watch();
  }

  /** Aborts, with an `EndReason`, once the job is known to be cancelled. */
  get signal(): AbortSignal {
    return this.#cancelled.signal;
  }

  /** Whether the job is known to be cancelled. */
  get isCancelled(): boolean {
    return this.#cancelled.signal.aborted;
  }

  /**
   * Whether a check was answered in the last moments, so that a state that is posted now overwrites no
   * cancellation.
   */
  get isCertain(): boolean {
    return this.#options.clock.monotonic() - this.#checkedAt < CERTAIN_FOR_MS;
  }

  /** To be called when the cancellation becomes known in another way. */
  noteCancelled(): void {
    if (this.isCancelled) return;
    const reason: EndReason = { kind: "cancelled", seenAt: this.#options.clock.monotonic() };
    this.#options.onCancelled?.();
    this.#cancelled.abort(reason);
  }

  /**
   * Asks now. What the server does not answer in time counts as no cancellation: a job is not held
   * up by an outage. It is not certain then.
   */
  async check(leave?: AbortSignal): Promise<boolean> {
    this.#checkedAt = -Infinity;
    if (this.isCancelled || !this.#options.connectivity.isUp) return this.isCancelled;
    const over = new AbortController();
    const asked = this.#ask(over.signal).then((asked) => {
      if (asked.ok) this.#checkedAt = this.#options.clock.monotonic();
    });
    const known = Promise.race([asked, this.#whenCancelled(over.signal)]);
    try {
      await within(leave === undefined ? known : untilAborted(known, leave), {
        clock: this.#options.clock,
        ms: LONGEST_CHECK_MS,
      });
    } finally {
      over.abort();
    }
    return this.isCancelled;
  }

  #whenCancelled(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      this.#cancelled.signal.addEventListener("abort", () => resolve(), { once: true, signal });
    });
  }

  /** Asks once. */
  async #ask(signal: AbortSignal): Promise<Asked> {
    const { clock, server, jobId } = this.#options;
    const begun = clock.monotonic();
    const answer = await server.getJobState(jobId, signal);
    if (!answer.ok) return { ok: false, retryAfterMs: answer.retryAfterMs };
    if (answer.value === "cancelled") this.noteCancelled();
    return { ok: true, pauseMs: pauseAfter(clock.monotonic() - begun, answer.bytes) };
  }

  async #watch(): Promise<void> {
    const { clock, connectivity } = this.#options;
    const signal = AbortSignal.any([this.#over.signal, this.#cancelled.signal]);
    const backoff = new Backoff({ longestRetryAfterMs: LONGEST_RETRY_AFTER_MS });
    let pauseMs = ASK_EVERY_MS;
    try {
      while (true) {
        await clock.sleep(pauseMs, signal);
        const asked = await this.#ask(signal);
        if (asked.ok) {
          pauseMs = asked.pauseMs;
          backoff.reset();
        } else {
          await connectivity.pause(backoff.next(asked.retryAfterMs), signal);
        }
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** Stops watching. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort();
    await this.#watching;
  }
}

/** What came of asking, and how long to wait before the next time. */
type Asked =
  | { ok: true; pauseMs: number }
  | { ok: false; retryAfterMs: number | undefined };

/** How long the server is left alone after an answer that cost it so much. */
function pauseAfter(answerMs: number, answerBytes: number): number {
  const wantedMs = Math.max(answerMs * PAUSES_PER_ANSWER, answerBytes / BYTES_PER_PAUSE_MS);
  return Math.min(LONGEST_PAUSE_MS, Math.max(ASK_EVERY_MS, Math.round(wantedMs)));
}
