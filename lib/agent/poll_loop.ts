/**
 * The poll loop of an agent. Each round asks what is wanted of it, on the host and on the server, and then,
 * if it may take one, for a job, which is run to its end.
 */
import { Said } from "../once.ts";
import { either } from "../wait.ts";
import { DEVICE_UNUSABLE } from "../observe/words.ts";
import type { StopSignals } from "../job/job_context.ts";
import { isSaidElsewhere } from "../server/connectivity.ts";
import type { Failure } from "../server/api.ts";
import { Backoff } from "../backoff.ts";
import type { AgentRecord } from "../server/schema.ts";
import { askForJob } from "./ask_for_job.ts";
import type { AgentContext } from "./context.ts";
import { type DesiredState, HOST_RESTARTS, isForgotten, NO_JOB } from "./desired_state.ts";
import { type HostTrouble, type LookAtDisk, troubleWith } from "./host_check.ts";
import type { Markers } from "./markers.ts";
import { LAST_STATE_MS, type Reporter } from "./reporter.ts";

/** A server that errs in what it asks for must not keep a lab idle. */
const LONGEST_RETRY_AFTER_MS = 60_000;

/**
 * A pause is longer than `polling_interval` by at least this factor. At 10 s, with two requests a round and a sign of
 * life now and then, an idle agent stays under 12 requests a minute.
 */
const LEAST_STRETCH = 1.1;

/**
 * A round begins at a multiple of this part of `polling_interval`, twelve of which are 1.15 times as long. So the agents of
 * a process, which are spread over the interval, wake up a few at a time: waking up takes a process that has been
 * asleep longer than asking does.
 */
const STEP = 1.15 / 12;

/** What the poll loop is made of. */
export interface PollLoopOptions extends AgentContext {
  signals: StopSignals;
  desired: DesiredState;
  markers: Markers;
  reporter: Reporter;
  /** Whether the agent is to end as soon as no job runs. */
  isLeaving(): boolean;
  /** The agent's own, in which its jobs are written down. */
  folder: string;
  /** @default what the kernel says now */
  lookAtDisk?: LookAtDisk | undefined;
  /** Makes the agent's folders again where they are gone; says why it cannot. */
  restoreFolders(): HostTrouble | undefined;
  /** Why the device cannot be worked with as it is configured, on one line. */
  deviceTrouble(): Promise<string | undefined>;
  /**
   * Runs a job to its end, or ends it as failed because the host cannot write it down.
   *
   * @param broken why the job as it came cannot be run.
   */
  runJob(
    received: Record<string, unknown>,
    more: { text?: string; broken?: string },
  ): Promise<"ran" | "refused">;
}

/** The poll loop of one agent. */
export class PollLoop {
  readonly #options: PollLoopOptions;
  readonly #said = new Said();
  #wake = Promise.withResolvers<void>();

  constructor(options: PollLoopOptions) {
    this.#options = options;
  }

  /** Ends the pause after a round, if there is one. */
  wakeUp(): void {
    this.#wake.resolve();
  }

  /** Rounds, until the agent is told to stop, to restart or to leave. */
  async run(): Promise<"stopped" | "restart" | "left"> {
    const { clock, connectivity, config, emit } = this.#options;
    const backoff = new Backoff({ longestRetryAfterMs: LONGEST_RETRY_AFTER_MS });
    let hasPaused = false;
    while (!this.#isOver) {
      this.#wake = Promise.withResolvers<void>();
      emit({ type: "turned" });
      if (this.#options.isLeaving()) return "left";
      const round = await this.#round();
      if (round.next === "restart") return "restart";
      if (round.next === "at once") {
        backoff.reset();
        continue;
      }
      if (round.next === "pause") {
        backoff.reset();
        // The first one is shorter: agents that begin together do not go on together.
        const stretch = hasPaused ? LEAST_STRETCH : Math.random() * (1 - STEP);
        hasPaused = true;
        const intervalMs = config.polling_interval * 1000;
        const ms = untilStep(clock.monotonic(), intervalMs * stretch, Math.ceil(intervalMs * STEP));
        await this.#pause((wait, either) => clock.sleep(wait, either), ms);
      } else {
        const ms = backoff.next(round.retryAfterMs);
        await this.#pause((wait, either) => connectivity.pause(wait, either), ms);
      }
    }
    return "stopped";
  }

  /** Whether the agent is told to end now, in whatever way. */
  get #isOver(): boolean {
    const { stop, leave } = this.#options.signals;
    return stop.aborted || leave.aborted;
  }

  /** Waits, until something wakes the agent up. */
  async #pause(
    wait: (ms: number, signal: AbortSignal) => Promise<void>,
    ms: number,
  ): Promise<void> {
    const { stop, leave } = this.#options.signals;
    using over = either(stop, leave);
    const waited = wait(ms, over.signal).catch(() => {});
    await Promise.race([waited, this.#wake.promise]);
    over.abort();
    await waited;
  }

  /** One round; says what comes next. */
  async #round(): Promise<Round> {
    const { config, desired, isLeaving, markers, reporter, folder } = this.#options;
    // What is asked on the host is heard even when the server is away.
    if (markers.wantsRestart()) {
      desired.requestRestart(HOST_RESTARTS.marker, "A marker file asks for a restart");
    }
    if (await markers.takeOnline()) desired.comeBack();
    const marker = markers.offlineComment();
    const record = await this.#readRecord();
    if (this.#isOver || isLeaving()) return { next: "at once" };
    this.#noteMarker(marker);

    const offline = desired.offline ??
      (marker === undefined ? undefined : { state: "offline", comment: marker });
    if (offline !== undefined) {
      reporter.show(offline.state, offline.comment);
      if (record.ok && record.isCertain) reporter.see(record.value);
      return record.ok ? { next: "pause" } : later(record);
    }
    if (desired.restart !== undefined && await markers.removeRestart()) {
      return { next: "restart" };
    }
    if (!record.ok) return later(record);

    const unusable = await this.#options.deviceTrouble();
    this.#noteDevice(unusable);
    if (unusable !== undefined) {
      reporter.show("offline", `${DEVICE_UNUSABLE}: ${unusable}`);
      if (record.isCertain) reporter.see(record.value);
      return { next: "pause" };
    }
    const trouble = this.#options.restoreFolders() ??
      await troubleWith([config.execution_basedir, folder], {
        leastFree: config.min_free_space,
        agentId: config.agent_id,
        clock: this.#options.clock,
        lookAt: this.#options.lookAtDisk,
      });
    this.#noteTrouble(trouble);
    reporter.showIdle(trouble === undefined ? "" : `${NO_JOB}${trouble.message}`);
    if (record.isCertain) reporter.see(record.value);
    if (trouble !== undefined) return { next: "pause" };
    return await this.#takeJob(record.value?.restricted_to ?? {});
  }

  /**
   * The agent's record on the server; a server that has forgotten the agent is told of it again.
   * Uncertain is what was read while the agent itself wrote.
   */
  async #readRecord(): Promise<Failure | RecordRead> {
    const { server, desired, reporter, signals } = this.#options;
    using over = either(signals.stop, signals.leave);
    const stop = over.signal;
    let { moment } = desired;
    let record = await server.getAgent(stop);
    if (record.ok && isForgotten(record.value)) {
      reporter.see(record.value);
      await reporter.flush(LAST_STATE_MS, stop);
      moment = desired.moment;
      record = await server.getAgent(stop);
    }
    if (!record.ok) {
      this.#complain("record", record);
      return record;
    }
    this.#forget("record");
    return { ...record, isCertain: desired.learn(record.value, moment) };
  }

  /** What is asked on the host by a file is as good to know later as what is asked on the server. */
  #noteMarker(comment: string | undefined): void {
    const { log, desired: { offline } } = this.#options;
    if (comment !== undefined) {
      if (!this.#said.isNew("marker", comment)) return;
      log.warning("A marker file on this host sets this agent to offline", { comment });
    } else if (this.#said.forget("marker")) {
      log.info(
        offline === undefined
          ? "The marker file is gone: this agent is online again"
          : `The marker file is gone, and this agent stays ${offline.state}`,
        offline === undefined ? {} : { comment: offline.comment },
      );
    }
  }

  #noteDevice(trouble: string | undefined): void {
    const { log } = this.#options;
    if (trouble === undefined) {
      if (this.#said.forget("device")) log.info("The device configuration can be used again");
    } else if (this.#said.isNew("device", trouble)) {
      log.error(`${DEVICE_UNUSABLE}: ${trouble}. The agent is offline until that is fixed`);
    }
  }

  #noteTrouble(trouble: HostTrouble | undefined): void {
    const { log } = this.#options;
    if (trouble === undefined) {
      if (this.#said.forget("host")) log.info("Jobs are taken again");
    } else if (this.#said.isNew("host", trouble.cause)) {
      const what = trouble.message.replace(/\.$/, "");
      log.error(`${NO_JOB}${what}. The agent goes on by itself when that is fixed`);
    }
  }

  async #takeJob(restrictedTo: Record<string, string[] | null | undefined>): Promise<Round> {
    const { log, runJob, isLeaving } = this.#options;
    if (this.#isOver || isLeaving()) return { next: "at once" };
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
        await runJob({ job_id: offer.value.jobId, job_queue: "" }, { broken: offer.value.reason });
        return { next: "at once" };
      case "job":
        // After one that could not be written down the next would fare no better at once.
        return {
          next: await runJob(offer.value.job, { text: offer.value.text }) === "ran"
            ? "at once"
            : "later",
        };
    }
  }

  /** Says once, not at each try, what the server does not do. */
  #complain(what: Question, failure: Failure): void {
    if (isSaidElsewhere(failure)) return;
    if (!this.#said.isNew(what, failure.message)) return;
    this.#options.log.error(
      `Cannot ask for a job: ${failure.message}. It is retried automatically; ` +
        "'testflinger-agent doctor' looks for the cause",
    );
  }

  #forget(what: Question): void {
    this.#said.forget(what);
  }
}

/** How long it is, in milliseconds, from now to the first step of the clock after a pause. */
function untilStep(now: number, pause: number, step: number): number {
  return Math.ceil((now + pause) / step) * step - now;
}

/** The agent's record, as one round has read it. */
interface RecordRead {
  ok: true;
  value: AgentRecord | null;
  isCertain: boolean;
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
