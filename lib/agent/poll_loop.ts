/**
 * The poll loop of an agent. Each round asks what is wanted of it, on the host and on the server, and then,
 * if it may take one, for a job, which is run to its end.
 */
import type { Clock } from "../clock.ts";
import type { AgentConfig } from "../config/agent_config.ts";
import type { StopSignals } from "../job/job_context.ts";
import type { Log } from "../log.ts";
import type { Observer } from "../observe/observer.ts";
import { type Connectivity, isSaidElsewhere } from "../outbox/connectivity.ts";
import type { Answer, Failure, ServerApi } from "../server/api.ts";
import { Backoff } from "../server/backoff.ts";
import type { AgentRecord } from "../server/schema.ts";
import { askForJob } from "./ask_for_job.ts";
import { lackOfSpace } from "./free_space.ts";
import type { Markers } from "./markers.ts";
import { LAST_STATE_MS, type Reporter } from "./reporter.ts";
import type { DesiredState } from "./desired_state.ts";

/** Whatever a server asks for: an agent that asks for no job for longer seems to be dead. */
const LONGEST_PATIENCE_MS = 60_000;

/** What the poll loop is made of. */
export interface RoundsOptions {
  config: AgentConfig;
  server: ServerApi;
  connectivity: Connectivity;
  clock: Clock;
  log: Log;
  observer: Observer;
  signals: StopSignals;
  desired: DesiredState;
  markers: Markers;
  reporter: Reporter;
  /** Called at the beginning of each round. */
  onTurn?(): void;
  /**
   * Runs a job to its end.
   *
   * @param broken why the job as it came cannot be run.
   */
  runJob(received: Record<string, unknown>, broken?: string): Promise<void>;
}

/** The poll loop of one agent. */
export class PollLoop {
  readonly #options: RoundsOptions;
  /** What was last complained of, so that it is said once and not at each try. */
  readonly #complaints = new Map<Question, string>();
  #wake = Promise.withResolvers<void>();
  #noSpace = false;

  constructor(options: RoundsOptions) {
    this.#options = options;
  }

  /** Ends the pause after a round, if there is one. */
  wakeUp(): void {
    this.#wake.resolve();
  }

  /** PollLoop, until the agent is told to stop or to restart. */
  async run(): Promise<"stopped" | "restart"> {
    const { clock, connectivity, config, onTurn, signals } = this.#options;
    const backoff = new Backoff({ longestRetryAfterMs: LONGEST_PATIENCE_MS });
    while (!signals.stop.aborted) {
      this.#wake = Promise.withResolvers<void>();
      onTurn?.();
      const round = await this.#round();
      if (round.next === "restart") return "restart";
      if (round.next === "at once") {
        backoff.reset();
        continue;
      }
      if (round.next === "pause") {
        backoff.reset();
        const ms = config.polling_interval * 1000;
        await this.#pause((wait, either) => clock.sleep(wait, either), ms);
      } else {
        const ms = backoff.next(round.retryAfterMs);
        await this.#pause((wait, either) => connectivity.pause(wait, either), ms);
      }
    }
    return "stopped";
  }

  /** Waits, until something wakes the agent up. */
  async #pause(
    wait: (ms: number, signal: AbortSignal) => Promise<void>,
    ms: number,
  ): Promise<void> {
    const { stop } = this.#options.signals;
    const over = new AbortController();
    const waited = wait(ms, AbortSignal.any([stop, over.signal])).catch(() => {});
    await Promise.race([waited, this.#wake.promise]);
    over.abort();
    await waited;
  }

  /** One round; says what comes next. */
  async #round(): Promise<Round> {
    const { config, desired, markers, reporter, signals } = this.#options;
    // What is asked on the host is heard even when the server is away.
    if (await markers.wantsRestart()) {
      desired.requestRestart("Restart marker file", "A marker file asks for a restart");
    }
    const marker = await markers.offlineComment();
    const record = await this.#readRecord();
    if (signals.stop.aborted) return { next: "at once" };

    const offline = desired.offline ??
      (marker === undefined ? undefined : { state: "offline", comment: marker });
    if (offline !== undefined) {
      reporter.show(offline.state, offline.comment);
      if (record.ok) reporter.correct(record.value);
      return record.ok ? { next: "pause" } : later(record);
    }
    if (desired.restart !== undefined && await markers.removeRestart()) {
      return { next: "restart" };
    }
    if (!record.ok) return later(record);

    const full = await lackOfSpace(
      [config.execution_basedir, config.results_basedir],
      config.min_free_space,
    );
    this.#noteSpace(full);
    reporter.showIdle(full === undefined ? "" : `No job is taken: ${full}`);
    reporter.correct(record.value);
    if (full !== undefined) return { next: "pause" };
    return await this.#takeJob(record.value?.restricted_to ?? {});
  }

  /** The agent's record on the server; a server that has forgotten the agent is told of it again. */
  async #readRecord(): Promise<Answer<AgentRecord | null>> {
    const { server, desired, reporter, signals: { stop } } = this.#options;
    let { moment } = desired;
    let record = await server.getAgent(stop);
    if (record.ok && record.value === null) {
      reporter.registerUnlessBusy();
      await reporter.flush(LAST_STATE_MS, stop);
      moment = desired.moment;
      record = await server.getAgent(stop);
    }
    if (record.ok) {
      this.#forget("record");
      desired.learn(record.value, moment);
    } else {
      this.#complain("record", record);
    }
    return record;
  }

  #noteSpace(full: string | undefined): void {
    const { log } = this.#options;
    if (full !== undefined && !this.#noSpace) {
      log.error(`No job is taken: ${full}. Make room; the agent goes on by itself then`);
    } else if (full === undefined && this.#noSpace) {
      log.info("There is room again: jobs are taken");
    }
    this.#noSpace = full !== undefined;
  }

  async #takeJob(restrictedTo: Record<string, string[] | null | undefined>): Promise<Round> {
    const { log, runJob } = this.#options;
    const offer = await askForJob(restrictedTo, this.#options);
    if (!offer.ok) {
      this.#complain("job", offer);
      return later(offer);
    }
    this.#forget("job");
    switch (offer.value.kind) {
      case "none":
        return { next: "pause" };
      case "broken":
        log.error(
          `The server handed out job ${offer.value.jobId}, but it cannot be read; it is ended as failed: ` +
            offer.value.reason,
        );
        await runJob({ job_id: offer.value.jobId, job_queue: "" }, offer.value.reason);
        return { next: "at once" };
      case "job":
        await runJob(offer.value.job);
        return { next: "at once" };
    }
  }

  /** Says once, not at each try, what the server does not do. */
  #complain(what: Question, failure: Failure): void {
    if (isSaidElsewhere(failure)) return;
    if (this.#complaints.get(what) === failure.message) return;
    this.#complaints.set(what, failure.message);
    this.#options.log.error(
      `No job can be asked for: ${failure.message}. It is tried again by itself; ` +
        "'testflinger-agent doctor' looks for the cause",
    );
  }

  #forget(what: Question): void {
    this.#complaints.delete(what);
  }
}

/** What an agent asks of the server in each round. */
type Question = "record" | "job";

/** What comes after a round. */
type Round =
  | { next: "at once" }
  | { next: "pause" }
  | { next: "restart" }
  | { next: "later"; retryAfterMs?: number };

function later(failure: Failure): Round {
  return failure.retryAfterMs === undefined
    ? { next: "later" }
    : { next: "later", retryAfterMs: failure.retryAfterMs };
}
