/**
 * The life of one job, from the moment the server handed it out until nothing of it is left but
 * what is on its way to the server. Read `run()` from top to bottom.
 */
import { messageOf } from "../message.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { interruptedPhase } from "../outbox/job_state.ts";
import { type Phase, PHASES } from "../phases.ts";
import { FEWEST_MASKED_CHARACTERS } from "../process/patterns.ts";
import type { Secrets } from "../process/redactor.ts";
import { waitWhileAllocated } from "./allocation.ts";
import { bringAttachments } from "./bring_attachments.ts";
import { CancellationWatch } from "./cancellation.ts";
import { readDeviceInfo } from "./connector_files.ts";
import type { EndReason } from "./end_reason.ts";
import { jobMark, phaseEnvironment } from "./environment.ts";
import { type EventName, Events } from "./events.ts";
import { interruption, sayOnce } from "./interruption.ts";
import type { Job } from "./job.ts";
import type { JobContext } from "./job_context.ts";
import { type JobEnd, JobEnding } from "./job_ending.ts";
import { readRelease } from "./os_release.ts";
import { phaseLimits } from "./phase_limits.ts";
import { PhaseReport } from "./phase_report.ts";
import { CANCELLED_LINE, INTERNAL_ERROR_STATUS, type PhaseEnd, runPhase } from "./phase_run.ts";
import { prepareSecrets, shownName, unmaskedNames } from "./secrets.ts";
import { WorkingFolder } from "./working_folder.ts";

/** The label of the metrics when nobody knows what runs on the device. */
const UNKNOWN_RELEASE = "unknown";

/** Runs one job. */
export class JobRun {
  readonly #job: Job;
  readonly #outbox: Outbox;
  readonly #context: JobContext;
  readonly #secrets: Secrets;
  /** Why the job cannot be run with the secrets that it brings. */
  readonly #refusal: string | undefined;
  /** Names of secrets of which the log has said that they are not masked. */
  readonly #unmasked = new Set<string>();
  readonly #events: Events;
  readonly #folder: WorkingFolder;
  readonly #report: PhaseReport;
  readonly #ending: JobEnding;
  #release = UNKNOWN_RELEASE;
  #watch: CancellationWatch | undefined;

  constructor(job: Job, outbox: Outbox, context: JobContext) {
    this.#job = job;
    this.#outbox = outbox;
    this.#context = context;
    const { masks, refusal } = prepareSecrets(job);
    this.#secrets = masks;
    this.#refusal = refusal;
    this.#events = new Events(outbox, this.#secrets, context.clock);
    this.#folder = new WorkingFolder(job, context.config, context.log);
    const folder = this.#folder;
    this.#report = new PhaseReport({
      outbox,
      events: this.#events,
      observer: context.observer,
      secrets: this.#secrets,
      agentId: context.config.agent_id,
      // Where it is, is settled when it is made.
      get folder() {
        return folder.path;
      },
    });
    this.#ending = new JobEnding(job, {
      outbox,
      folder: this.#folder,
      events: this.#events,
      context,
    });
  }

  /** Told by whoever learns that the job was cancelled. */
  noteCancelled(): void {
    this.#watch?.noteCancelled();
  }

  /**
   * Runs the job. Whatever happens, it is brought to its end.
   *
   * @param broken why the job as it came cannot be run: it is ended as failed in setup.
   */
  async run(broken?: string): Promise<JobEnd> {
    let reason: string;
    try {
      this.#begin();
      await using watch = this.#startWatch();
      reason = await this.#prepareAndRunPhases(watch, broken);
    } catch (error) {
      reason = await this.#internalError(error);
    }
    return await this.#end(reason);
  }

  #begin(): void {
    const { log, server, observer } = this.#context;
    const job = this.#job;
    this.#context.keepSecret(this.#outbox, this.#secrets);
    log.info(`Job ${job.jobId} begins`, { queue: job.queue });
    observer.jobStarted({
      jobId: job.jobId,
      queue: this.#secrets.redactText(job.queue),
      ...(job.name !== undefined && { name: this.#secrets.redactText(job.name) }),
    });
    this.#events.emit("job_start", `${server.address}/jobs/${job.jobId}`);
  }

  /**
   * Brings to its end a job that an earlier process left: says where it was interrupted, cleans up
   * if that was not done, and delivers what there is.
   */
  async resume(): Promise<JobEnd> {
    const { state } = this.#outbox;
    const interrupted = interruptedPhase(state);
    this.#context.keepSecret(this.#outbox, this.#secrets);
    await this.#ending.endSurvivors();
    await this.#folder.remake();
    const message = interruption(interrupted);
    this.#context.log.warning(`${message} of job ${this.#job.jobId}, which is brought to its end`);
    // The log of a phase is opened a moment before the phase begins.
    const lastPhase = interrupted ?? state.logs.output.regions.at(-1)?.phase ?? "setup";
    const cleanupEnded = state.phases.get("cleanup")?.status !== undefined;
    if (!cleanupEnded) {
      await this.#ending.attempt(
        "say where it was interrupted",
        () => sayOnce(this.#outbox, lastPhase, message),
      );
    }
    if (interrupted !== undefined && interrupted !== "cleanup") {
      this.#report.status(interrupted, INTERNAL_ERROR_STATUS);
      this.#events.emit(`${interrupted}_fail`, message);
    }
    return await this.#end(message);
  }

  #startWatch(): CancellationWatch {
    const { server, connectivity, clock } = this.#context;
    const outbox = this.#outbox;
    this.#watch = new CancellationWatch({
      server,
      connectivity,
      clock,
      jobId: this.#job.jobId,
      onCancelled: () => outbox.append({ t: "cancelled" }),
    });
    return this.#watch;
  }

  /** Steps 1 to 3: the folder, the attachments, the phases. Returns what `job_end` will say. */
  async #prepareAndRunPhases(watch: CancellationWatch, broken?: string): Promise<string> {
    const distrust = this.#folder.whyDistrusted();
    if (distrust !== undefined) return await this.#failSetup(distrust);
    await this.#folder.make();
    const unusable = broken ?? this.#refusal;
    if (unusable !== undefined) return await this.#failSetup(unusable);
    const { stop } = this.#context.signals;
    const refused = await bringAttachments(this.#job, {
      ...this.#context,
      outbox: this.#outbox,
      folder: this.#folder.path,
      signal: AbortSignal.any([stop, watch.signal]),
    });
    if (watch.isCancelled) return this.#cancelled();
    if (stop.aborted) return "stopped";
    if (refused !== undefined) return await this.#failSetup(refused);

    for (const phase of PHASES) {
      if (phase === "cleanup") break;
      if (stop.aborted) return "stopped";
      const skip = this.#reasonToSkip(phase);
      if (skip === undefined && !await this.#mayBegin(phase, watch)) return this.#cancelled();
      if (watch.isCancelled) return this.#cancelled();
      const end = await this.#runOrSkip(phase, skip, watch);
      if (watch.isCancelled) return this.#cancelled(end);
      if (end.event === "stopped") return "stopped";
      if (end.status !== 0 && phase !== "test") return end.outcome;
    }
    return "normal_exit";
  }

  /**
   * Asks whether the job was cancelled. The log of the phase is opened meanwhile: on a server that
   * is far away its way there takes as long as the answer.
   */
  async #mayBegin(phase: Phase, watch: CancellationWatch): Promise<boolean> {
    if (watch.isCancelled) return false;
    const [isCancelled] = await Promise.all([watch.check(), this.#announce(phase)]);
    if (isCancelled) await this.#report.say(phase, CANCELLED_LINE);
    return !isCancelled;
  }

  async #announce(phase: Phase): Promise<void> {
    if (this.#folder.whyDistrusted() === undefined) {
      await Deno.mkdir(this.#folder.path, { recursive: true, mode: 0o700 }).catch(() => {});
    }
    await this.#report.announce(phase);
  }

  #cancelled(end?: PhaseEnd): string {
    this.#context.log.info(`Job ${this.#job.jobId} was cancelled`);
    // A phase that was ended by the cancellation has said so already.
    if (end?.event !== "cancelled") this.#events.emit("cancelled");
    return "cancelled";
  }

  #reasonToSkip(phase: Phase): string | undefined {
    if (this.#command(phase) === "") return `there is no ${phase}_command in the configuration`;
    return this.#job.reasonToSkip(phase);
  }

  #command(phase: Phase): string {
    return this.#context.config[`${phase}_command`];
  }

  /** One phase, from its start event to its status on the server. */
  async #runOrSkip(
    phase: Phase,
    skip: string | undefined,
    watch: CancellationWatch,
  ): Promise<PhaseEnd & { outcome: EventName }> {
    const { observer, log, signals } = this.#context;
    if (skip !== undefined) {
      log.debug(`Phase ${phase} is skipped: ${skip}`);
      observer.phaseSkipped(phase, skip);
      this.#events.emit(`${phase}_start`);
      this.#events.emit(`${phase}_success`);
      if (phase === "provision") this.#report.provisionSkipped();
      return { status: 0, event: "normal_exit", detail: "", outcome: `${phase}_success` };
    }
    this.#report.started(phase);
    // Interrupting a provision could brick the device: it is ended by a stop of the agent only.
    const ends = phase === "provision" ? [signals.stop] : [watch.signal, signals.stop];
    const end = await this.#runCommand(phase, ends);
    if (phase === "allocate" && end.event === "normal_exit") {
      const { server, clock } = this.#context;
      const signal = AbortSignal.any([...ends]);
      const options = { outbox: this.#outbox, server, clock, log, signal };
      const why = await waitWhileAllocated(this.#job, options);
      if (why !== undefined) await this.#report.say(phase, why);
    }
    const outcome = this.#report.ended(phase, end);
    return { ...end, outcome };
  }

  async #runCommand(phase: Phase, ends: readonly AbortSignal[], note?: string): Promise<PhaseEnd> {
    const { config, clock, observer, log, signals } = this.#context;
    // With secrets beyond the limits no command could be started, cleanup included.
    const secrets = this.#refusal === undefined ? this.#job.secrets(phase) : {};
    const { env, problems } = phaseEnvironment({ jobId: this.#job.jobId, secrets, config });
    const limits = phaseLimits(phase, { job: this.#job, config, clock, stop: signals.stop });
    const started = clock.monotonic();
    log.info(`Phase ${phase} begins`, { job_id: this.#job.jobId });
    observer.phaseStarted(phase, {
      ...(limits.global !== undefined && { totalMs: limits.global * 1000 }),
      ...(limits.output !== undefined && { silenceMs: limits.output * 1000 }),
    });
    const distrust = this.#folder.whyDistrusted();
    if (distrust !== undefined) return await this.#refuseToRun(phase, distrust);
    this.#report.deviceInfo();
    const notes = [
      ...problems,
      ...this.#unmaskedNotes(secrets),
      ...(note === undefined ? [] : [note]),
    ];
    const end = await runPhase({
      phase,
      command: this.#command(phase),
      folder: this.#folder.path,
      env,
      mark: jobMark(this.#job.jobId, config.agent_id),
      secrets: this.#secrets,
      outbox: this.#outbox,
      observer,
      clock,
      limits,
      graceMs: config.cancel_grace * 1000,
      mostUndelivered: config.max_spool / 2,
      signal: AbortSignal.any([...ends]),
      forceStop: signals.forceStop,
      ...(notes.length > 0 && { note: notes.join("\n") }),
    });
    this.#report.deviceInfo();
    if (phase === "provision" && end.status === 0) this.#release = await this.#readRelease();
    const seconds = (clock.monotonic() - started) / 1000;
    observer.phaseEnded(phase, {
      status: end.status,
      event: end.event,
      seconds,
      release: this.#release,
    });
    log.info(`Phase ${phase} ended`, {
      job_id: this.#job.jobId,
      status: end.status,
      seconds: Math.round(seconds * 10) / 10,
      ...(end.event !== "normal_exit" && { because: end.event }),
    });
    this.#noteCancelLatency(end);
    return end;
  }

  /** Said once for each name: it would be a line in each phase otherwise. */
  #unmaskedNotes(secrets: Record<string, string>): string[] {
    const names = unmaskedNames(secrets).filter((name) => !this.#unmasked.has(name));
    for (const name of names) this.#unmasked.add(name);
    return names.map((name) =>
      `WARNING: The secret ${
        shownName(name)
      } has fewer than ${FEWEST_MASKED_CHARACTERS} characters ` +
      "and is not masked."
    );
  }

  /** Whoever owns the folder would decide what the command finds there. */
  async #refuseToRun(phase: Phase, distrust: string): Promise<PhaseEnd> {
    const detail = `ERROR: ${distrust}`;
    await this.#report.say(phase, detail);
    const end: PhaseEnd = { status: INTERNAL_ERROR_STATUS, event: "error", detail };
    this.#context.observer.phaseEnded(phase, { ...end, seconds: 0, release: this.#release });
    return end;
  }

  #noteCancelLatency(end: PhaseEnd): void {
    const reason: EndReason | undefined = this.#watch?.signal.reason;
    if (end.event !== "cancelled" || reason?.kind !== "cancelled") return;
    this.#context.observer.cancelled(this.#context.clock.monotonic() - reason.seenAt);
  }

  async #readRelease(): Promise<string> {
    if (!this.#context.wantsRelease) return UNKNOWN_RELEASE;
    const info = readDeviceInfo(this.#folder.path);
    const deviceIp = info?.device_ip;
    if (typeof deviceIp !== "string") return UNKNOWN_RELEASE;
    const { clock, signals } = this.#context;
    return await readRelease(deviceIp, {
      username: this.#job.testUsername,
      clock,
      signal: signals.stop,
    });
  }

  /** Cleanup, then the end: always. */
  async #end(reason: string): Promise<JobEnd> {
    await this.#ending.attempt("clean up", () => this.#cleanUp());
    return await this.#ending.end(reason);
  }

  /** The cleanup phase; never cancelled, and run again when an earlier process did not end it. */
  async #cleanUp(): Promise<void> {
    const { state } = this.#outbox;
    if (state.phases.get("cleanup")?.status !== undefined) return;
    const isAgain = state.phases.has("cleanup");
    this.#events.emit("cleanup_start");
    const skip = this.#reasonToSkip("cleanup");
    if (skip !== undefined) {
      this.#context.observer.phaseSkipped("cleanup", skip);
      this.#events.emit("cleanup_success");
      return;
    }
    this.#outbox.append({ t: "phase_started", phase: "cleanup" });
    this.#outbox.send({ kind: "state", state: "cleanup" });
    await this.#announce("cleanup");
    // A first stop waits for the cleanup, a second one does not.
    const note = isAgain ? "Cleanup is run again, since it was interrupted." : undefined;
    const end = await this.#runCommand("cleanup", [this.#context.signals.forceStop], note)
      .catch((error) => internalEnd(error));
    this.#events.emit(end.status === 0 ? "cleanup_success" : "cleanup_fail", end.detail);
    this.#report.status("cleanup", end.status);
  }

  /** The job cannot even begin: that is a failure of its setup. */
  async #failSetup(reason: string): Promise<string> {
    this.#context.log.warning(`Job ${this.#job.jobId} fails in setup: ${reason}`);
    this.#report.started("setup");
    await this.#report.say("setup", `ERROR: ${reason}`);
    this.#events.emit("setup_fail", reason);
    this.#report.status("setup", 1);
    return "setup_fail";
  }

  /** Something that nobody planned. The phase that ran, or setup, has failed with it. */
  async #internalError(error: unknown): Promise<string> {
    const reason = `The agent failed inside: ${messageOf(error)}`;
    this.#context.log.error(
      `Job ${this.#job.jobId} is brought to its end, please report this: ${reason}`,
      { stack: error instanceof Error ? error.stack : undefined },
    );
    const phase = interruptedPhase(this.#outbox.state) ?? "setup";
    await this.#report.say(phase, `ERROR: ${reason}`);
    this.#events.emit(`${phase}_fail`, reason);
    this.#report.status(phase, INTERNAL_ERROR_STATUS);
    return `${phase}_fail`;
  }
}

function internalEnd(error: unknown): PhaseEnd {
  return { status: INTERNAL_ERROR_STATUS, event: "error", detail: messageOf(error) };
}
