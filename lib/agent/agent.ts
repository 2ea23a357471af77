/** The life of an agent: start, poll loop, stop; and the jobs that it runs meanwhile. */
import { Said } from "../once.ts";
import { importLegacyResults } from "../job/legacy_results.ts";
import { artifactUpload } from "../job/transfer.ts";
import { UploadQueue } from "../job/upload_queue.ts";
import type { EndReason, JobContext, StopSignals } from "../job/job_context.ts";
import { removeFolder, trashOf } from "../job/folder.ts";
import { Job } from "../job/job.ts";
import { endAnyway } from "../job/job_ending.ts";
import { JobGroups, unkeptLimits } from "../job/job_groups.ts";
import { type JobResult, JobRun, type JobRunOptions } from "../job/job_run.ts";
import { JobStore } from "../job/store.ts";
import { findJobs } from "../job/take_up.ts";
import { forgetClaim } from "../job/working_folder.ts";
import { messageOf } from "../message.ts";
import type { Emit } from "../observe/events.ts";
import type { JournalHook } from "../outbox/journal.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { resolve } from "../path.ts";
import { bootId } from "../process/proc.ts";
import type { AgentContext, AgentControl, ControlGroupsResult, LeaveReason } from "./context.ts";
import { type HostTrouble, type LookAtDisk, removeProbes } from "./host_check.ts";
import { areFolders, markOfFolders, prepareFolders, warnOfOpenFolders } from "./folders.ts";
import { KeptSecrets } from "../job/secrets.ts";
import { type Lock, takeLock } from "./lock.ts";
import { Markers } from "./markers.ts";
import { StateFile } from "./state_file.ts";
import { refuseJob } from "./ask_for_job.ts";
import { LAST_STATE_MS, Reporter } from "./reporter.ts";
import { PollLoop } from "./poll_loop.ts";
import {
  DesiredState,
  HOST_RESTARTS,
  REMOVED_COMMENT,
  restartComment,
  STOPPED_COMMENT,
} from "./desired_state.ts";

/** When an agent is stopped, this is left for what is on its way to the server. */
const DRAIN_MS = 10_000;

/** Folders that are the same ones as before need not be examined from the root on in each round. */
const EXAMINE_EVERY_MS = 60_000;

/** What an agent is made of. */
export interface AgentOptions extends AgentContext {
  /** From `prepareFolders()`. */
  folder: string;
  control: AgentControl;
  /** The agent's own log lines since the last call, for its record on the server. */
  recentLog(): string[];
  /** Is given what masks secrets in the agent's own log. */
  setRedactor(redact: (text: string) => string): void;
  /** Whether anything reads the `release` label of the metrics. */
  wantsRelease: boolean;
  /** Where markers and locks are looked for. @default "/tmp" */
  sharedFolder?: string;
  /** Changes with each start of the host. @default the kernel's */
  bootId?: string | undefined;
  /** Told of what is written into the journals of jobs. */
  onJournal?: JournalHook | undefined;
  /** The control groups of this process. @default none are used */
  controlGroups?: Promise<ControlGroupsResult> | undefined;
  /** @default what the kernel says now */
  lookAtDisk?: LookAtDisk | undefined;
  /** Why the device cannot be worked with as it is configured, on one line. @default nobody looks */
  deviceTrouble?(): Promise<string | undefined>;
}

/** Why an agent ended. */
export type AgentEnd =
  /** It was told to stop. */
  | { ended: "stopped" }
  /** It is to be started again. */
  | { ended: "restart" }
  /** It was told to leave. */
  | { ended: "left" }
  /** It is to be started again, and a job that runs goes on meanwhile. */
  | { ended: "handed over" }
  /** It could not start: `message` is for the operator. */
  | { ended: "failed"; message: string };

/** Runs an agent until it is told to stop, to restart or to leave. */
export async function runAgent(options: AgentOptions): Promise<AgentEnd> {
  const { config, folder, log, sharedFolder } = options;
  const taken = takeLock({
    agentId: config.agent_id,
    folder,
    log,
    ...(sharedFolder !== undefined && { sharedFolder }),
  });
  if (!taken.held) {
    const message = `Another agent '${config.agent_id}' runs on this host: ${taken.owner} holds ` +
      `${taken.path}. Stop it first, or give this one another agent_id.`;
    return { ended: "failed", message };
  }
  try {
    warnOfOpenFolders(config, log);
    return await new Agent(options, folder, taken).run();
  } finally {
    taken.release();
  }
}

class Agent {
  readonly #options: AgentOptions;
  readonly #stop = new AbortController();
  readonly #forceStop = new AbortController();
  readonly #leave = new AbortController();
  readonly #stopSignals: StopSignals = {
    stop: this.#stop.signal,
    forceStop: this.#forceStop.signal,
    leave: this.#leave.signal,
  };
  readonly #lock: Lock;
  readonly #state: StateFile;
  readonly #store: JobStore;
  readonly #groups: Promise<JobGroups | undefined>;
  /** Jobs wait for it: one of them may have the id of one that is gone. */
  #oldGroupsAreGone: Promise<void> = Promise.resolve();
  readonly #uploads: UploadQueue;
  readonly #desired: DesiredState;
  readonly #reporter: Reporter;
  readonly #pollLoop: PollLoop;
  readonly #markers: Markers;
  /** What a job tells. */
  readonly #emit: Emit;
  #leaving: LeaveReason | undefined;
  /** Folders of jobs that nobody could remove, as the log has said. */
  readonly #foldersSaid = new Said();
  /** The agent's folders, as they were when it last followed the way to each. */
  #examined: { mark: string | undefined; until: number } | undefined;
  readonly #secrets = new KeptSecrets((outbox) => this.#uploads.of(outbox.jobId).includes(outbox));

  constructor(options: AgentOptions, folder: string, lock: Lock) {
    this.#options = options;
    this.#lock = lock;
    const { config, server, connectivity, clock, log, sharedFolder } = options;
    this.#store = new JobStore(folder, log, options.onJournal);
    this.#groups = this.#openGroups(folder);
    this.#state = new StateFile(folder, log);
    this.#desired = new DesiredState(this.#state, log);
    this.#reporter = new Reporter({ ...options, desired: this.#desired });
    this.#emit = (event) => {
      options.emit(event);
      if (event.type === "phase_began") this.#reporter.showPhase(event.phase);
    };
    this.#uploads = new UploadQueue({
      store: this.#store,
      uploader: {
        server,
        connectivity,
        clock,
        log,
        agentId: config.agent_id,
        outputBytes: config.output_bytes,
        openArtifacts: (outbox, folder) =>
          artifactUpload(outbox, folder, {
            redact: (text) => this.#secrets.redact(text),
            emit: this.#emit,
          }),
        onRetry: () => this.#emit({ type: "retried" }),
      },
      emit: this.#emit,
      clock,
      log,
      removeFolder: (path) => this.#removeFolder(path),
      maxSpool: config.max_spool,
    });
    this.#markers = new Markers({
      agentId: config.agent_id,
      log,
      ...(sharedFolder !== undefined && { folder: sharedFolder }),
    });
    this.#pollLoop = new PollLoop({
      ...options,
      emit: this.#emit,
      isLeaving: () => this.#leaving !== undefined,
      signals: this.#stopSignals,
      desired: this.#desired,
      markers: this.#markers,
      reporter: this.#reporter,
      folder: this.#store.folder,
      restoreFolders: () => this.#restoreFolders(),
      deviceTrouble: async () => await options.deviceTrouble?.(),
      runJob: (received, more) => this.#acceptJob(received, more),
    });
  }

  /** Makes the folders again that have been removed under the agent; says why it cannot. */
  #restoreFolders(): HostTrouble | undefined {
    const { config, log, clock } = this.#options;
    const mark = markOfFolders(config);
    const isExamined = mark !== undefined && mark === this.#examined?.mark &&
      clock.monotonic() < this.#examined.until;
    if (isExamined) {
      this.#lock.renew();
      return undefined;
    }
    const isWhole = areFolders([config.execution_basedir, this.#store.jobsFolder]);
    const prepared = prepareFolders(config);
    if (!prepared.ok) return { cause: "folders", message: prepared.message };
    try {
      this.#store.makeFolder();
      this.#lock.renew();
      const until = clock.monotonic() + EXAMINE_EVERY_MS;
      this.#examined = { mark: markOfFolders(config), until };
      if (isWhole) return undefined;
      this.#state.write();
    } catch (error) {
      return { cause: "folders", message: messageOf(error) };
    }
    log.error(
      "Folders of this agent were removed while it ran, and were created again. What the server " +
        "did not have yet may be lost: find out what removes files there",
      { results_basedir: config.results_basedir, execution_basedir: config.execution_basedir },
    );
    return undefined;
  }

  /** From start to stop. */
  async run(): Promise<AgentEnd> {
    const { log, control, config, clock } = this.#options;
    control.listen({
      restart: () => {
        this.#desired.requestRestart(HOST_RESTARTS.signal, "SIGUSR1 asks for a restart");
        this.#pollLoop.wakeUp();
      },
      offline: async (comment) => {
        await this.#markers.make("OFFLINE", comment);
        this.#pollLoop.wakeUp();
        return "The agent takes no more jobs; a running job is finished first.";
      },
      online: async () => {
        const stays = await this.#markers.remove("OFFLINE");
        this.#desired.comeBack();
        this.#pollLoop.wakeUp();
        const { offline } = this.#desired;
        return stays ??
          (offline === undefined
            ? "The agent takes jobs again."
            : `It stays ${offline.state}: that is kept on the server, so set it online there.`);
      },
      leave: (why) => {
        this.#leaving = why;
        this.#pollLoop.wakeUp();
      },
      stop: (signal, again) => this.#onStop(signal, again),
      handOver: () => this.#onHandOver(),
    });
    log.info(`Agent ${config.agent_id} starts`, { server: config.server_address });
    const removeOwnProbes = () =>
      removeProbes([config.execution_basedir, this.#store.folder], config.agent_id);
    await removeOwnProbes();
    const reporting = new AbortController();
    let reporter: Promise<void> | undefined;
    let end: AgentEnd = { ended: "stopped" };
    try {
      // 1. The record on the server is kept fresh from now on, also while the next step takes long.
      this.#reporter.register();
      reporter = this.#reporter.run(reporting.signal);
      // 2. What an earlier process left is delivered; a job that runs is taken over where it is.
      await importLegacyResults(config.results_basedir, { store: this.#store, clock, log });
      await this.#takeUpJobs();
      if (!this.#leave.signal.aborted) this.#reporter.showIdle();
      // 3. The poll loop.
      end = { ended: await this.#pollLoop.run() };
      if (this.#leave.signal.aborted) end = { ended: "handed over" };
      // 4. The end: what is on its way, then the last state. The next process goes on with both when
      // there is one in a moment.
      if (end.ended !== "handed over") await this.#sayGoodbye(end);
    } finally {
      reporting.abort();
      await reporter;
      await this.#oldGroupsAreGone;
      await this.#uploads.stop();
      await removeOwnProbes();
    }
    const isBack = end.ended === "restart" || end.ended === "handed over" ||
      end.ended === "left" && this.#leaving !== "removed";
    log.info(isBack ? "The agent ends, to be started again" : "The agent ends");
    return end;
  }

  #onStop(signal: string, again: boolean): void {
    this.#options.log.info(
      again
        ? `${signal} again: the agent ends at once`
        : `${signal}: the agent ends what it is doing and stops`,
    );
    const reason: EndReason = { kind: "stopped", at: this.#options.clock.monotonic() };
    this.#stop.abort(reason);
    if (again) this.#forceStop.abort(reason);
    this.#pollLoop.wakeUp();
  }

  #onHandOver(): void {
    this.#leave.abort(new DOMException("The agent hands over", "AbortError"));
    this.#pollLoop.wakeUp();
  }

  /** The control groups of this agent's jobs, as soon as those of the process are ready. */
  async #openGroups(folder: string): Promise<JobGroups | undefined> {
    const opened = await this.#options.controlGroups;
    this.#tellOfGroups(opened);
    return opened?.ok
      ? new JobGroups(opened.groups, this.#options.config, resolve(folder))
      : undefined;
  }

  /** Whether jobs have control groups, and which of their limits nobody keeps. */
  #tellOfGroups(controlGroups: ControlGroupsResult | undefined): void {
    const { config, log } = this.#options;
    const controllers = controlGroups?.ok ? controlGroups.groups.controllers : [];
    const unkept = unkeptLimits(config, controllers);
    const reason = controlGroups?.ok === false
      ? `there are no control groups: ${controlGroups.reason}`
      : "it was started without the controllers of control groups that this takes";
    if (unkept.length > 0) {
      log.warning(
        `The agent cannot keep jobs within ${unkept.join(" and ")}: ${reason}. ` +
          "'testflinger-agent doctor' says what to do",
      );
    } else if (controlGroups?.ok) {
      log.debug("Each job has a control group", {
        folder: controlGroups.groups.folder,
        controllers: controllers.join(" "),
      });
    } else if (controlGroups !== undefined) {
      log.debug(`Jobs have no control groups: ${controlGroups.reason}`);
    }
  }

  /** Of jobs that are gone, since an earlier process came to nothing more than that. */
  async #removeOldGroups(jobIds: readonly string[]): Promise<void> {
    const { clock, log } = this.#options;
    try {
      const groups = await this.#groups;
      const end = await groups?.removeOthers(jobIds, { graceMs: 0, clock });
      const count = end?.ended.length ?? 0;
      if (count > 0) log.warning(`Ended ${count} processes that jobs had left which are gone`);
    } catch (error) {
      log.warning(`Cannot look for control groups of earlier jobs: ${messageOf(error)}`);
    }
  }

  async #takeUpJobs(): Promise<void> {
    const found = await findJobs(this.#store, this.#uploads, this.#options.clock);
    this.#oldGroupsAreGone = this.#removeOldGroups(found.map(({ job }) => job.jobId));
    for (const { job, outbox, isDamaged } of found) {
      if (this.#leave.signal.aborted) return;
      // It may run for hours, and the agent is as ready as it can be.
      this.#emit({ type: "turned" });
      await this.#runJob(job, outbox, { isDamaged, isTakenUp: true });
    }
    await this.#uploads.enforceCap();
  }

  async #acceptJob(
    received: Record<string, unknown>,
    { text, broken }: { text?: string; broken?: string },
  ): Promise<"ran" | "refused"> {
    const { server, connectivity, clock, log } = this.#options;
    const job = new Job(received, text);
    this.#desired.forgetLostDevice(job.jobId);
    let outbox;
    try {
      outbox = await this.#store.accept(job, this.#uploads.of(job.jobId), clock.now());
    } catch (error) {
      await refuseJob(job, {
        reason: messageOf(error),
        folder: this.#store.folder,
        server,
        connectivity,
        log,
        signal: this.#stop.signal,
      });
      return "refused";
    }
    await this.#runJob(job, outbox, { broken });
    await this.#uploads.enforceCap();
    return "ran";
  }

  /** Runs a job from where it is, and delivers it meanwhile. */
  async #runJob(
    job: Job,
    outbox: Outbox,
    { isTakenUp = false, ...options }: JobRunOptions & { isTakenUp?: boolean },
  ): Promise<void> {
    this.#reporter.setJob(job.jobId, () => outbox.state.cancelled);
    const context = await this.#jobContext();
    let run: JobRun | undefined;
    const onCancelled = () => run?.noteCancelled();
    this.#uploads.startLive(outbox, { onCancelled, isLeftover: isTakenUp });
    let result: JobResult | undefined;
    try {
      run = new JobRun(job, outbox, context, options);
      result = await run.run();
    } catch (error) {
      await endAnyway(outbox, { error, context }).catch((problem) =>
        this.#options.log.error(
          `Cannot bring job ${job.jobId} to its end: ${
            messageOf(problem)
          }. What there is of it is ` +
            `delivered from ${outbox.folder}; the rest is tried again at the next start of the agent.`,
        )
      );
    }
    if (result === "left running") return;
    this.#reporter.setJob("");
    if (!this.#stop.signal.aborted) this.#reporter.showIdle();
  }

  async #jobContext(): Promise<JobContext> {
    const { config, server, connectivity, clock, log, wantsRelease, setRedactor } = this.#options;
    await this.#oldGroupsAreGone;
    return {
      config,
      server,
      connectivity,
      clock,
      log,
      emit: this.#emit,
      signals: this.#stopSignals,
      bootId: this.#options.bootId ?? await bootId(),
      groups: await this.#groups,
      wantsRelease,
      noteLostDevice: (jobId) => this.#desired.noteLostDevice(jobId),
      forgetReceived: (outbox) => this.#store.forgetReceived(outbox),
      keepSecret: (outbox, secrets) => {
        this.#secrets.keep(outbox, secrets);
        setRedactor((text) => this.#secrets.redact(text));
      },
    };
  }

  async #removeFolder(folder: string): Promise<void> {
    const { config, log } = this.#options;
    const trash = trashOf(config);
    await removeFolder(folder, { trash, log, said: this.#foldersSaid });
    await forgetClaim(folder, config.agent_id);
  }

  /** What is on its way gets some time, then the server is told why nobody asks for jobs. */
  async #sayGoodbye(end: AgentEnd): Promise<void> {
    await this.#uploads.drain(DRAIN_MS, this.#forceStop.signal);
    const { restart, offline } = this.#desired;
    const why = end.ended === "left" ? this.#leaving : undefined;
    // Asked for, it is carried out now, also by one who leaves for another reason.
    const isRestart = end.ended === "restart" || why === "drained";
    // It is back in a moment, and takes no job meanwhile.
    if (why === "changed") return;
    // An administrator's offline stays as it is, comment included; so does that of a lost device. A job
    // that has been ended by this has shown its phases in their place.
    if (offline !== undefined) this.#reporter.showIdle();
    else if (isRestart) this.#reporter.showRestart(restartComment(restart?.comment));
    else this.#reporter.setState("offline", why ? REMOVED_COMMENT : STOPPED_COMMENT);
    await this.#reporter.flush(LAST_STATE_MS, this.#forceStop.signal);
    // Not before: should this process be killed on its way, the next one restarts in its place.
    if (isRestart) this.#desired.restartCarriedOut();
  }
}
