/**
 * The life of one job, from the moment the server handed it out until nothing of it is left but
 * what is on its way to the server.
 *
 * A job is a fold over its journal. `nextStep()` reads from it what comes next, `#perform()` does it,
 * and doing it writes down that it is done. So a job that begins and one that is found when the agent
 * starts go through the same lines: each step may be begun twice, and is done once.
 */
import { messageOf } from "../message.ts";
import { interruptedPhase, type JobState } from "../outbox/job_state.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { type Phase, PHASES } from "../phases.ts";
import type { Secrets } from "../process/redactor.ts";
import { prepareAttachments } from "./fetch_attachments.ts";
import { CancellationWatch } from "./cancellation.ts";
import {
  Events,
  isDeviceLost,
  outcomeOf,
  type PhaseConclusion,
  PhaseReport,
} from "./phase_report.ts";
import type { Job } from "./job.ts";
import type { JobContext } from "./job_context.ts";
import { JobEnding } from "./job_ending.ts";
import type { JobGroup } from "./job_groups.ts";
import type { Drafts } from "./phase_log.ts";
import { CANCELLED_LINE, INTERNAL_ERROR_STATUS, STOPPED_LINE } from "./phase_command.ts";
import { type EndedPhase, PhaseRunner, UNKNOWN_RELEASE } from "./phase_run.ts";
import { jobSoFar } from "./take_up.ts";
import { prepareSecrets } from "./secrets.ts";
import { WorkingFolder } from "./working_folder.ts";

/** A job that has taken the agent down so often in succession is ended. */
export const MOST_CRASHES = 3;

/** One step in the life of a job. */
export type Step =
  /** Its webhook is told that it starts. */
  | { do: "begin" }
  /** Its folder is made, its attachments are fetched into it. */
  | { do: "prepare" }
  /** A command runs, from its banner to its status on the server; cleanup is the last one. */
  | { do: "phase"; phase: Phase }
  /** All phases have run as they should: only cleanup is left. */
  | { do: "decide" }
  /** What an earlier process could not end is over. */
  | { do: "interrupt" }
  /** Whatever it has left running is ended. */
  | { do: "end processes" }
  /** Artifacts and outcome are put on their way, its folder and its secrets are removed. */
  | { do: "hand over" }
  | { do: "nothing" };

/** What comes next in the life of a job. */
function nextStep(state: JobState): Step {
  const { decided, passed, phases, skipped } = state;
  const isOver = (phase: Phase) => skipped.has(phase) || phases.get(phase)?.status !== undefined;
  if (state.finished !== undefined) return { do: "nothing" };
  // Whatever a damaged journal does not say.
  if (state.sent.has("outcome")) return { do: "hand over" };
  if (state.crashes >= MOST_CRASHES) return { do: "interrupt" };
  if (decided === undefined) {
    if (state.isRebooted) return { do: "interrupt" };
    if (!passed.has("begun")) return { do: "begin" };
    if (!passed.has("prepared")) return { do: "prepare" };
    const phase = PHASES.find((phase) => phase !== "cleanup" && !isOver(phase));
    return phase === undefined ? { do: "decide" } : { do: "phase", phase };
  }
  if (!isOver("cleanup")) return { do: "phase", phase: "cleanup" };
  return passed.has("over") ? { do: "hand over" } : { do: "end processes" };
}

/** How running a job ended. */
export type JobResult = "ended" | "left running";

/** What is known of a job from outside its journal. */
export interface JobRunOptions {
  /** Why the job as it came cannot be run: it is ended as failed in setup. */
  broken?: string | undefined;
  /** Something of the job is lost: it can only be ended. */
  isDamaged?: boolean | undefined;
}

/** Runs one job, from where it is. */
export class JobRun {
  readonly #job: Job;
  readonly #outbox: Outbox;
  readonly #context: JobContext;
  readonly #options: JobRunOptions;
  readonly #secrets: Secrets;
  readonly #events: Events;
  readonly #folder: WorkingFolder;
  readonly #group: JobGroup | undefined;
  readonly #report: PhaseReport;
  readonly #phases: PhaseRunner;
  readonly #ending: JobEnding;
  /** Until the job is decided. */
  #watch: CancellationWatch | undefined;
  /** An earlier process could not end it, and this one does. */
  #isInterrupted = false;

  constructor(job: Job, outbox: Outbox, context: JobContext, options: JobRunOptions = {}) {
    this.#job = job;
    this.#outbox = outbox;
    this.#context = context;
    const { masks, refusal } = prepareSecrets(job);
    this.#secrets = masks;
    this.#options = { ...options, broken: options.broken ?? refusal };
    this.#events = new Events(outbox, masks, context.clock);
    this.#folder = new WorkingFolder(job, context.config, context.log);
    const folder = this.#folder;
    const group = this.#group = context.groups?.of(job.jobId);
    this.#report = new PhaseReport({
      outbox,
      events: this.#events,
      emit: context.emit,
      secrets: masks,
      agentId: context.config.agent_id,
      noteLostDevice: context.noteLostDevice,
      // Where it is, is settled when it is made.
      get folder() {
        return folder.path;
      },
    });
    this.#phases = new PhaseRunner({
      job,
      outbox,
      context,
      folder,
      group,
      secrets: masks,
      report: this.#report,
      // With secrets beyond the limits no command could be started, cleanup included.
      hasSecrets: refusal === undefined,
    });
    this.#ending = new JobEnding(job, { outbox, folder, group, events: this.#events, context });
  }

  get #state(): JobState {
    return this.#outbox.state;
  }

  /** To be called as soon as it is known that the job was cancelled. */
  noteCancelled(): void {
    this.#watch?.noteCancelled();
  }

  /** Runs the job to its end, or until it is left to the next process. */
  async run(): Promise<JobResult> {
    const { leave } = this.#context.signals;
    try {
      await this.#takeUp()
        .catch((error) => this.#fail({ do: "begin" }, failureInside(error), error));
      while (true) {
        if (leave.aborted) return this.#handOver();
        const step = nextStep(this.#state);
        if (step.do === "nothing") return "ended";
        try {
          await this.#perform(step);
        } catch (error) {
          if (leave.aborted) continue;
          await this.#fail(step, failureInside(error), error);
        }
      }
    } finally {
      await this.#phases.dismiss();
      await this.#watch?.[Symbol.asyncDispose]();
      if (this.#isInterrupted) this.#context.emit({ type: "recovery_ended", job: this.#job.jobId });
    }
  }

  #perform(step: Step): Promise<void> | void {
    switch (step.do) {
      case "begin":
        return this.#begin();
      case "prepare":
        return this.#prepare();
      case "phase":
        return step.phase === "cleanup" ? this.#cleanUp() : this.#runPhase(step.phase);
      case "decide":
        return this.#outbox.append({ t: "decided", reason: "normal_exit" });
      case "interrupt":
        return this.#interrupt();
      case "end processes":
        return this.#phases.dismiss().then(() => this.#ending.endProcesses());
      case "hand over":
        return this.#ending.handOver();
    }
  }

  /** Writes down whose the job is now, and tells those who look on. */
  async #takeUp(): Promise<void> {
    const { log, emit, clock, bootId } = this.#context;
    const { jobId, queue, name } = this.#job;
    const isNew = this.#state.takenUp === undefined && this.#state.phases.size === 0;
    this.#outbox.append({
      t: "taken_up",
      boot: bootId,
      at: await clock.sinceBoot(),
      ...(this.#group !== undefined && { cgroup: this.#group.folder }),
    });
    // A version that told its agent only when the job was over has left it.
    if (isDeviceLost(this.#state)) this.#context.noteLostDevice(jobId);
    this.#context.keepSecret(this.#outbox, this.#secrets);
    log.info(`Job ${jobId} ${isNew ? "begins" : "is taken over where it is"}`, { queue });
    emit({
      type: "job_began",
      job: jobId,
      queue: this.#secrets.redactText(queue),
      ...(name !== undefined && { name: this.#secrets.redactText(name) }),
      ...(!isNew && {
        soFar: await jobSoFar(this.#outbox, {
          clock,
          reasonToSkip: (phase) => this.#phases.reasonToSkip(phase),
        }),
      }),
    });
    if (this.#state.passed.has("prepared") && this.#job.hasAttachments) this.#job.dropAttachments();
    if (this.#state.isRebooted) await this.#folder.remake();
    const isOpen = this.#state.decided === undefined && !this.#state.sent.has("outcome");
    if (this.#options.isDamaged && isOpen) await this.#interrupt();
    if (this.#state.decided === undefined) this.#startWatch();
  }

  #startWatch(): void {
    const { server, connectivity, clock } = this.#context;
    const outbox = this.#outbox;
    this.#watch = new CancellationWatch({
      server,
      connectivity,
      clock,
      jobId: this.#job.jobId,
      onCancelled: () => outbox.append({ t: "cancelled" }),
    });
    if (this.#state.cancelled) this.#watch.noteCancelled();
  }

  /** The next process goes on with the next step, or where this one stands. */
  #handOver(): "left running" {
    this.#outbox.append({ t: "handed_over" });
    this.#context.log.info(`Job ${this.#job.jobId} goes on, and is left to the next process`);
    return "left running";
  }

  #begin(): void {
    // Needed soon, and made by a program.
    void this.#group?.prepare();
    const { server } = this.#context;
    const detail = `${server.address}/jobs/${this.#job.jobId}`;
    this.#outbox.append(
      { t: "passed", milestone: "begun" },
      ...this.#events.drafts("job_start", detail),
    );
  }

  async #prepare(): Promise<void> {
    const { stop, leave } = this.#context.signals;
    const watch = this.#watch!;
    const distrust = this.#folder.whyDistrusted();
    if (distrust !== undefined) return await this.#failSetup(distrust);
    await this.#folder.make();
    const { broken } = this.#options;
    if (broken !== undefined) return await this.#failSetup(broken);
    this.#phases.makeFirstReady();
    const refused = await prepareAttachments(this.#job, {
      ...this.#context,
      outbox: this.#outbox,
      folder: this.#folder.path,
      signal: AbortSignal.any([stop, leave, watch.signal]),
    });
    if (watch.isCancelled) return this.#outbox.append(...this.#cancelled());
    if (stop.aborted) return this.#outbox.append({ t: "decided", reason: "stopped" });
    if (leave.aborted) return;
    if (refused !== undefined) return await this.#failSetup(refused);
    this.#outbox.append({ t: "passed", milestone: "prepared" });
  }

  /** One phase but cleanup, and what follows from how it ended. */
  async #runPhase(phase: Phase): Promise<void> {
    const { stop, leave } = this.#context.signals;
    const watch = this.#watch!;
    if (!this.#state.phases.has(phase)) {
      if (stop.aborted) {
        return await this.#endBefore(phase, STOPPED_LINE, [{ t: "decided", reason: "stopped" }]);
      }
      const skip = this.#phases.reasonToSkip(phase);
      if (skip === undefined && !await this.#mayBegin(phase)) return;
      if (leave.aborted) return;
      if (watch.isCancelled) {
        return await this.#endBefore(phase, CANCELLED_LINE, this.#cancelled());
      }
      if (skip !== undefined) return this.#phases.skip(phase, skip);
      this.#report.started(phase, { isAsked: watch.isCertain });
    }
    // Interrupting a provision could brick the device: it is ended by a stop of the agent only.
    const ends = phase === "provision" ? [stop] : [watch.signal, stop];
    const end = await this.#phases.run(phase, AbortSignal.any(ends));
    if (end === "left running") return;
    if (end === "lost") return await this.#interrupt();
    this.#phases.noteCancelLatency(end, watch.signal.reason);
    const { status, event, seconds, release, line } = end;
    const drafts: Drafts = watch.isCancelled
      ? this.#cancelled(event === "cancelled")
      : event === "stopped"
      ? [{ t: "decided", reason: "stopped" }]
      : status !== 0 && phase !== "test"
      ? [{ t: "decided", reason: outcomeOf(phase, status) }]
      : [];
    await this.#report.ended(phase, end, { drafts, seconds, release, line });
  }

  /**
   * Asks whether the job was cancelled. The log of the phase is opened meanwhile: on a server that
   * is far away its way there takes as long as the answer.
   */
  async #mayBegin(phase: Phase): Promise<boolean> {
    const watch = this.#watch!;
    if (!watch.isCancelled) {
      const { leave } = this.#context.signals;
      await Promise.all([watch.check(leave), this.#announce(phase)]);
    }
    if (watch.isCancelled) await this.#endBefore(phase, CANCELLED_LINE, this.#cancelled());
    return !watch.isCancelled;
  }

  /** A phase does not run: its log says why, where it has been opened. */
  async #endBefore(phase: Phase, line: string, drafts: Drafts): Promise<void> {
    if (this.#state.announced.has(phase)) await this.#report.say(phase, line, drafts);
    else this.#outbox.append(...drafts);
  }

  async #announce(phase: Phase): Promise<void> {
    void this.#group?.prepare();
    if (this.#folder.whyDistrusted() === undefined) {
      await Deno.mkdir(this.#folder.path, { recursive: true, mode: 0o700 }).catch(() => {});
      this.#phases.makeReady(phase);
    }
    await this.#report.announce(phase);
  }

  /** @param isTold whether the phase that was ended by it has told the webhook. */
  #cancelled(isTold = false): Drafts {
    this.#context.log.info(`Job ${this.#job.jobId} was cancelled`);
    return [
      { t: "decided", reason: "cancelled" },
      ...(isTold ? [] : this.#events.drafts("cancelled")),
    ];
  }

  /** Cleanup; never cancelled, and run again when a reboot has cut it short. */
  async #cleanUp(): Promise<void> {
    await this.#watch?.[Symbol.asyncDispose]();
    const skip = this.#phases.reasonToSkip("cleanup");
    if (!this.#state.phases.has("cleanup")) {
      if (skip !== undefined) return this.#phases.skip("cleanup", skip);
      this.#report.started("cleanup");
    }
    await this.#announce("cleanup");
    // A first stop waits for the cleanup, a second one does not.
    const { forceStop } = this.#context.signals;
    let end = await this.#phases.run("cleanup", forceStop);
    if (end === "lost" && this.#state.phases.get("cleanup")!.commands < MOST_CLEANUPS) {
      end = await this.#phases.run("cleanup", forceStop, { again: true });
    }
    if (end === "left running") return;
    if (end === "lost") end = LOST_CLEANUP;
    await this.#report.ended("cleanup", end, { seconds: end.seconds, line: end.line });
  }

  /** The job cannot even begin: that is a failure of its setup. */
  async #failSetup(reason: string): Promise<void> {
    this.#context.log.warning(`Job ${this.#job.jobId} fails in setup: ${reason}`);
    await this.#endedByAgent("setup", { status: 1, event: "error", detail: `ERROR: ${reason}` }, {
      reason,
      drafts: [{ t: "decided", reason: "setup_fail" }],
    });
  }

  /** An earlier process could not end it, and nobody else can. */
  async #interrupt(): Promise<void> {
    const phase = interruptedPhase(this.#state) ?? this.#duePhase();
    const message = phase === undefined
      ? "The agent was interrupted between phases"
      : `The agent was interrupted during ${phase}`;
    this.#context.log.warning(
      `${message} of job ${this.#job.jobId}, which is ended`,
    );
    this.#isInterrupted = true;
    this.#context.emit({ type: "recovery_began", job: this.#job.jobId });
    await this.#phases.dismiss();
    await this.#ending.attemptToEndProcesses();
    await this.#folder.remake();
    const decided: Drafts = this.#state.decided === undefined
      ? [{ t: "decided", reason: message }]
      : [];
    if (phase !== undefined) {
      const end = { status: INTERNAL_ERROR_STATUS, event: "error" as const, detail: message };
      return await this.#endedByAgent(phase, end, { drafts: decided });
    }
    // The log of a phase is opened a moment before the phase begins.
    const last = this.#state.logs.output.regions.at(-1)?.phase ?? "setup";
    if (decided.length > 0) return await this.#report.say(last, message, decided);
    await this.#fail(nextStep({ ...this.#state, crashes: 0 }), message);
  }

  /** The phase that would have come next, whose preparation an interruption ends; none when all have been run. */
  #duePhase(): Phase | undefined {
    if (this.#state.decided !== undefined) return undefined;
    const last = [...this.#state.phases.keys()].at(-1);
    if (last === undefined) return "setup";
    return PHASES.slice(PHASES.indexOf(last) + 1)
      .find((phase) => phase !== "cleanup" && this.#phases.reasonToSkip(phase) === undefined);
  }

  /** A phase ends without its command having said how. */
  async #endedByAgent(phase: Phase, end: EndedPhase, more: PhaseConclusion): Promise<void> {
    const { status, event } = end;
    const release = this.#state.release ?? UNKNOWN_RELEASE;
    const { jobId } = this.#job;
    this.#context.emit({ type: "phase_ended", job: jobId, phase, status, event, release });
    await this.#report.ended(phase, end, more);
  }

  /** A step cannot be done: the job goes on without it. */
  async #fail(step: Step, reason: string, error?: unknown): Promise<void> {
    this.#context.log.error(
      `Job ${this.#job.jobId} is ended without a step (${step.do}), please report ` +
        `this: ${reason}`,
      { stack: error instanceof Error ? error.stack : undefined },
    );
    if (step.do === "end processes" || step.do === "hand over") return this.#ending.giveUp(step.do);
    const phase = step.do === "phase" ? step.phase : interruptedPhase(this.#state) ?? "setup";
    const end = {
      status: INTERNAL_ERROR_STATUS,
      event: "error" as const,
      detail: `ERROR: ${reason}`,
    };
    const isDecided = this.#state.decided !== undefined;
    await this.#endedByAgent(phase, end, {
      reason,
      drafts: isDecided ? [] : [{ t: "decided", reason: `${phase}_fail` }],
    });
  }
}

function failureInside(error: unknown): string {
  return `The agent failed inside: ${messageOf(error)}`;
}

/** A cleanup that takes the host down each time is given up after so many. */
const MOST_CLEANUPS = 3;

const LOST_CLEANUP: EndedPhase = {
  status: INTERNAL_ERROR_STATUS,
  event: "error",
  detail: "The agent was interrupted during cleanup",
};
