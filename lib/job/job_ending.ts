/** The end of a job, once its phases are over: nothing of it is left on the host but its journal. */
import { untilAborted } from "../wait.ts";
import { messageOf } from "../message.ts";
import { type Phase, PHASES } from "../phases.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { interruptedPhase, statusesOf } from "../outbox/job_state.ts";
import { endSurvivors } from "../process/survivors.ts";
import { removeArchive } from "./fetch_attachments.ts";
import { JOB_VARIABLE, jobMark } from "./environment.ts";
import type { Events } from "./phase_report.ts";
import { Job } from "./job.ts";
import type { JobContext } from "./job_context.ts";
import { allGroupsOf, type JobGroup } from "./job_groups.ts";
import { INTERNAL_ERROR_STATUS } from "./phase_command.ts";
import { WorkingFolder } from "./working_folder.ts";

/** What there is of a job that ends. */
export interface JobEndingOptions {
  outbox: Outbox;
  folder: WorkingFolder;
  group: JobGroup | undefined;
  events: Events;
  context: JobContext;
}

/** The last steps of one job. */
export class JobEnding {
  readonly #job: Job;
  readonly #outbox: Outbox;
  readonly #folder: WorkingFolder;
  readonly #group: JobGroup | undefined;
  readonly #events: Events;
  readonly #context: JobContext;

  constructor(job: Job, { outbox, folder, group, events, context }: JobEndingOptions) {
    this.#job = job;
    this.#outbox = outbox;
    this.#folder = folder;
    this.#group = group;
    this.#events = events;
    this.#context = context;
  }

  /** Nothing of a job outlives it: not what left its process group, not what became a daemon. */
  async endProcesses(): Promise<void> {
    const { leave } = this.#context.signals;
    await untilAborted(this.attemptToEndProcesses(), leave);
    if (!leave.aborted) this.#noteOver();
  }

  #noteOver(): void {
    const reason = this.#outbox.state.decided ?? "";
    this.#outbox.append(
      { t: "passed", milestone: "over" },
      ...this.#events.drafts("job_end", reason),
    );
  }

  /** The same for a job that goes on. */
  async attemptToEndProcesses(): Promise<void> {
    await this.#attempt("end what it left running", () => this.#endSurvivors());
  }

  /**
   * Artifacts, outcome, and then nothing of it is left on the host but its journal. May be done again
   * after a kill at any moment.
   */
  async handOver(): Promise<void> {
    const outbox = this.#outbox;
    const isTrusted = this.#folder.whyDistrusted() === undefined;
    const leftIn = isTrusted
      ? await this.#attempt("take its artifacts", () => this.#folder.handOverArtifacts(outbox))
      : undefined;
    this.#sendOutcome();
    await outbox.sync().catch(() => {});
    await removeArchive(outbox);
    if (isTrusted) await this.#attempt("remove its folder", () => this.#folder.remove(leftIn));
    await this.#attempt("forget its secrets", () => this.#context.forgetReceived(outbox));
    this.#finish(leftIn);
  }

  #sendOutcome(): void {
    const { state } = this.#outbox;
    if (state.sent.has("outcome")) return;
    this.#outbox.send({ kind: "outcome", status: statusesOf(state) });
  }

  #finish(leftIn?: string): void {
    this.#outbox.append({
      t: "finished",
      at: this.#context.clock.now(),
      ...(leftIn !== undefined && { folder: leftIn }),
    });
    const reason = this.#outbox.state.decided ?? "";
    const failed = this.#failed();
    const ending = failed && this.#outbox.state.phases.get(failed)?.ending?.event;
    const timedOut = ending === "global_timeout" || ending === "output_timeout";
    this.#context.emit({ type: "job_ended", job: this.#job.jobId, reason, failed, timedOut });
    this.#context.log.info(`Job ${this.#job.jobId} ended`, { because: reason });
  }

  #failed(): Phase | undefined {
    const statuses = statusesOf(this.#outbox.state);
    return PHASES.find((phase) => (statuses[phase] ?? 0) !== 0);
  }

  /** A step that cannot be done is left out: nobody who waits for the job must do so without end. */
  giveUp(step: "end processes" | "hand over"): void {
    if (step === "end processes") return this.#noteOver();
    this.#sendOutcome();
    this.#finish();
  }

  /**
   * Does something that the end of the job must not fail with. Nobody hears of it but the log; so the
   * message says what it was.
   */
  async #attempt<T>(what: string, step: () => T | Promise<T>): Promise<T | undefined> {
    try {
      return await step();
    } catch (error) {
      const { jobId } = this.#job;
      this.#context.log.error(
        `Cannot ${what} at the end of job ${jobId}, which is ended without it: ${messageOf(error)}`,
      );
    }
  }

  /**
   * Ends what is in the job's control group, however it hides. Then whatever else can be found: there is
   * not always a group, and what becomes root, or opens a session of its own on the host, can leave it.
   */
  async #endSurvivors(): Promise<void> {
    const { clock, config, log, signals } = this.#context;
    const options = {
      graceMs: config.cancel_grace * 1000,
      clock,
      forceStop: signals.forceStop,
    };
    let isBlind = false;
    const groups = allGroupsOf(this.#outbox.state, this.#group);
    const endGroups = Promise.all(
      groups.map((group) => group.end(options).catch(() => void (isBlind = true))),
    ).then((ends) => ends.filter((end) => end !== undefined));
    const found = await endSurvivors({
      beside: endGroups.then((ends) =>
        isBlind || ends.some(({ ended, left }) => ended.length + left.length > 0)
          ? "something"
          : "nothing"
      ),
      variable: JOB_VARIABLE,
      value: this.#job.jobId,
      mark: jobMark(this.#job.jobId, config.agent_id),
      // Another agent of this host may have been given the same job.
      owner: { variable: "agent_id", value: config.agent_id },
      groups: this.#outbox.state.groups.map((group) => group.identity),
      ...options,
    });
    // There was no room for a process that looks; by now there is.
    if (isBlind) await Promise.all(groups.map((group) => group.end({ ...options, graceMs: 0 })));
    const ends = [...await endGroups, found];
    const count = ends.reduce((sum, { ended, fleeting }) => sum + ended.length + fleeting, 0);
    if (count > 0) log.info(`Ended ${count} processes that job ${this.#job.jobId} had left`);
    const left = new Map(ends.flatMap(({ left }) => left).map((each) => [each.pid, each]));
    for (const { pid, name, why } of left.values()) {
      log.error(
        `Cannot end process ${pid} (${name}), which job ${this.#job.jobId} left; ` +
          (why === "not_permitted"
            ? "it belongs to another user: end it by hand"
            : "it hangs inside the kernel, or comes back faster than it can be killed: end it by hand"),
      );
    }
  }
}

/**
 * The least that ends a job, for when running it, or ending it in good order, has failed: the server
 * gets an outcome, and the host keeps no secret of it.
 *
 * @throws {Error} when not even that can be done.
 */
export async function endAnyway(
  outbox: Outbox,
  { error, context }: { error: unknown; context: JobContext },
): Promise<void> {
  const { log, config, clock } = context;
  const { state, jobId } = outbox;
  log.error(
    `Job ${jobId} is ended as failed, please report this: the agent failed inside: ` +
      messageOf(error),
    { stack: error instanceof Error ? error.stack : undefined },
  );
  if (!state.sent.has("outcome")) {
    const phase = interruptedPhase(state) ?? "setup";
    outbox.append({ t: "phase_ended", phase, status: INTERNAL_ERROR_STATUS });
    outbox.send({ kind: "outcome", status: statusesOf(state) });
  }
  for (const group of allGroupsOf(state, context.groups?.of(jobId))) {
    await group.end({ graceMs: 0, clock }).catch((problem) =>
      log.error(`Cannot end what job ${jobId} has left running: ${messageOf(problem)}`)
    );
  }
  try {
    context.forgetReceived(outbox);
    await new WorkingFolder(new Job({ job_id: jobId }), config, log).remove();
  } catch (problem) {
    log.error(`Cannot remove what is left of job ${jobId}: ${messageOf(problem)}`);
  }
  outbox.append({ t: "finished", at: clock.now() });
}
