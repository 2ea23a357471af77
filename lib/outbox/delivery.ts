/**
 * What the lanes of one uploader share: the outbox, the server, and how both are waited for. A lane
 * does one kind of thing, one after the other; lanes do not wait for each other.
 */
import { within } from "../wait.ts";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import {
  type Answer,
  type Failure,
  isFinal,
  needsAdministrator,
  type ServerApi,
  type Upload,
} from "../server/api.ts";
import { Backoff } from "../backoff.ts";
import type { Connectivity } from "../server/connectivity.ts";
import type { JobState } from "./job_state.ts";
import type { Outbox } from "./outbox.ts";

/** What an administrator has to mend is not mended in seconds. */
const TURNED_AWAY_BASE_MS = 15_000;

/** What an uploader needs to know and to use. */
export interface UploaderOptions {
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

/**
 * What a lane does next: something; or nothing before so many milliseconds have passed, or before
 * something changes in the outbox, whichever is first; or nothing ever again.
 */
export type NextStep = (() => Promise<void>) | number | "over";

/** One outbox on its way to the server. */
export class Delivery {
  readonly outbox: Outbox;
  readonly options: UploaderOptions;
  readonly signal: AbortSignal;

  /** @param signal ends everything; a later delivery goes on from there. */
  constructor(outbox: Outbox, options: UploaderOptions, signal: AbortSignal) {
    this.outbox = outbox;
    this.options = options;
    this.signal = signal;
  }

  get state(): JobState {
    return this.outbox.state;
  }

  /** Whether the server has everything that it should have before the job is complete, and that too. */
  get isOver(): boolean {
    const { finished, pending } = this.state;
    return finished !== undefined && pending.length === 0 && this.outbox.undeliveredBytes === 0;
  }

  /**
   * Goes through the steps of a lane.
   *
   * @param options.ofLogs whether what it does depends on how long the logs are. @default false
   * @throws the signal's reason when it aborts.
   */
  async runLane(next: () => NextStep, { ofLogs = false } = {}): Promise<void> {
    while (true) {
      this.signal.throwIfAborted();
      const changed = this.outbox.changed(this.signal, { ofLogs });
      changed.catch(() => {}); // Often nobody waits for it: there was something to do.
      const step = next();
      if (step === "over") return;
      if (typeof step === "function") await step();
      else await this.#waitAtMost(step, changed);
    }
  }

  async #waitAtMost(ms: number, changed: Promise<void>): Promise<void> {
    if (ms === Infinity) return await changed;
    await within(changed, { clock: this.options.clock, ms, signal: this.signal });
  }

  /**
   * Makes a call until it succeeds or is refused for good.
   *
   * @returns the success, or the refusal.
   * @throws the signal's reason when it aborts.
   */
  async persist<T>(call: () => Promise<Answer<T>>): Promise<Answer<T>> {
    const { connectivity, log, onRetry } = this.options;
    const outage = new Backoff();
    const turnedAway = new Backoff({ baseMs: TURNED_AWAY_BASE_MS });
    while (true) {
      const answer = await call();
      if (answer.ok || isFinal(answer)) return answer;
      this.signal.throwIfAborted();
      const backoff = needsAdministrator(answer) ? turnedAway : outage;
      onRetry?.();
      log.debug(`Will be tried again: ${answer.message}`, { job_id: this.outbox.jobId });
      await connectivity.pause(backoff.next(answer.retryAfterMs), this.signal);
    }
  }

  /** Something of the job is given up. */
  complain(what: string, failure: Failure): void {
    this.options.log.error(
      `Job ${this.outbox.jobId}: ${what} cannot be delivered and will not be tried again: ` +
        failure.message,
    );
  }

  /** Writes down how a message ended its way. */
  acknowledge(n: number, kind: string, answer: Answer<void>): void {
    if (answer.ok) {
      this.outbox.append({ t: "settled", n, how: "delivered" });
      return;
    }
    this.complain(`its ${kind.replace("_", " ")}`, answer);
    this.outbox.append({ t: "settled", n, how: "refused", message: answer.message });
  }
}
