/** Runs the phases of one job: what is decided before a command starts, and read after it ended. */
import { Said } from "../once.ts";
import { within } from "../wait.ts";
import { FEWEST_MASKED_CHARACTERS } from "../process/patterns.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { type Phase, PHASES } from "../phases.ts";
import { size } from "../observe/words.ts";
import type { ReadyCommand } from "../process/keeper_start.ts";
import type { Secrets } from "../process/redactor.ts";
import { type GroupUsage, usageInAll } from "../process/exit.ts";
import { waitWhileAllocated } from "./allocation.ts";
import { readDeviceInfo } from "./connector_files.ts";
import { isEndReason, type JobContext } from "./job_context.ts";
import { withHooks } from "./hooks.ts";
import { jobMark, phaseEnvironment } from "./environment.ts";
import type { Job } from "./job.ts";
import type { JobGroup } from "./job_groups.ts";
import { readRelease } from "./os_release.ts";
import {
  type CommandStart,
  INTERNAL_ERROR_STATUS,
  makeCommandReady,
  type PhaseEnd,
  runCommand,
} from "./phase_command.ts";
import { phaseLimits } from "./phase_limits.ts";
import type { PhaseReport } from "./phase_report.ts";
import { shownName, unmaskedNames } from "./secrets.ts";
import type { WorkingFolder } from "./working_folder.ts";

/** The label of the metrics when nobody knows what runs on the device. */
export const UNKNOWN_RELEASE = "unknown";

/** Handing over takes 2 s at most, with a hundred jobs, too. */
const USAGE_LIMIT_MS = 500;

/** What phases are run with. */
export interface PhaseRunnerOptions {
  job: Job;
  outbox: Outbox;
  context: JobContext;
  folder: WorkingFolder;
  group: JobGroup | undefined;
  /** Masks the secrets of the job. */
  secrets: Secrets;
  report: PhaseReport;
  /** Whether commands get the secrets of their phase. */
  hasSecrets: boolean;
}

/** How a phase ended, and what is known since. */
export interface EndedPhase extends PhaseEnd {
  seconds?: number | undefined;
  release?: string | undefined;
  /** What its log says of it. */
  line?: string | undefined;
}

/** A command that waits for its phase. */
interface ReadyPhase {
  /** Undefined if it could not be made. */
  made: Promise<{ start: CommandStart; command: ReadyCommand | undefined } | undefined>;
  /** Aborts when it is taken, or dropped. */
  over: AbortController;
}

/** So many commands wait at most: making one ready may take longer than a short phase. */
const MOST_READY = 2;

/** A command waits for so long: a phase that takes longer is not delayed much by the start of the next one. */
const READY_MS = 10_000;

/** Runs the phases of one job. */
export class PhaseRunner {
  readonly #options: PhaseRunnerOptions;
  readonly #ready = new Map<Phase, ReadyPhase>();
  readonly #said = new Said();

  constructor(options: PhaseRunnerOptions) {
    this.#options = options;
  }

  /** Why a phase does not run; undefined when it does. */
  reasonToSkip(phase: Phase): string | undefined {
    if (this.#command(phase) === "") return `no ${phase}_command`;
    return this.#options.job.reasonToSkip(phase);
  }

  #command(phase: Phase): string {
    const { config } = this.#options.context;
    return withHooks(phase, config[`${phase}_command`], config.hooks_dir);
  }

  /** Passes over a phase. */
  skip(phase: Phase, reason: string): void {
    const { context: { log, emit }, job, report } = this.#options;
    log.debug(`Phase ${phase} is skipped: ${reason}`);
    emit({ type: "phase_skipped", job: job.jobId, phase, reason });
    report.skipped(phase);
  }

  /**
   * Runs the command of a phase that has started, or goes on where an earlier process has left it.
   *
   * @param signal ends it; its reason is an `EndReason`.
   * @param again a reboot has cut it short: it is started once more.
   */
  async run(
    phase: Phase,
    signal: AbortSignal,
    { again = false } = {},
  ): Promise<EndedPhase | "left running" | "lost"> {
    const { job, outbox, context, folder, report } = this.#options;
    const { config, clock, emit, log, signals } = context;
    const secrets = this.#secretsOf(phase);
    const { problems } = phaseEnvironment({ jobId: job.jobId, secrets, config });
    const limits = phaseLimits(phase, { job, config, clock, stop: signals.stop });
    const earlier = again ? undefined : outbox.state.phases.get(phase)?.command;
    const at = earlier?.at ?? await clock.sinceBoot();
    log.info(`Phase ${phase} ${earlier === undefined ? "begins" : "goes on"}`, {
      job_id: job.jobId,
    });
    emit({
      type: "phase_began",
      job: job.jobId,
      phase,
      limits: {
        ...(limits.global !== undefined && { totalMs: limits.global * 1000 }),
        ...(limits.output !== undefined && { silenceMs: limits.output * 1000 }),
        ...(earlier !== undefined && { runningForMs: await clock.sinceBoot() - at }),
      },
    });
    const distrust = folder.whyDistrusted();
    if (distrust !== undefined) {
      const detail = `ERROR: ${distrust}`;
      return this.#told(phase, { status: INTERNAL_ERROR_STATUS, event: "error", detail }, 0);
    }
    report.deviceInfo();
    const start = await this.#startOf(phase);
    await using ready = again ? undefined : await this.#takeReady(phase, start);
    const result = await runCommand({
      ...{ phase, limits, signal, again, outbox, emit, clock, ready },
      ...start,
      onBegun: () => this.makeNextReady(phase),
      secrets: this.#options.secrets,
      graceMs: config.cancel_grace * 1000,
      mostUndelivered: config.max_spool / 2,
      forceStop: signals.forceStop,
      leave: signals.leave,
      onLeft: () => this.#noteUsage(phase),
      notes: [
        ...problems,
        ...this.#unmaskedNotes(phase, secrets),
        ...(again ? ["Cleanup is run again, since it was interrupted."] : []),
      ],
    });
    if (result === "left running" || result === "lost") return result;
    const end = this.#withAllUsage(phase, result);
    report.deviceInfo();
    const isProvisioned = phase === "provision" && end.status === 0;
    const release = isProvisioned ? await this.#readRelease() : undefined;
    if (signals.leave.aborted) return "left running";
    const seconds = (await clock.sinceBoot() - at) / 1000;
    const killed = await this.#killedLine(phase, end.usage);
    const line = killed && joined(killed, end.detail);
    const told = this.#told(phase, { ...end, release, line }, seconds);
    if (phase !== "allocate" || end.event !== "normal_exit") return told;
    const { leave } = signals;
    const how = await waitWhileAllocated(job, { ...context, outbox, signal, leave });
    return leave.aborted ? "left running" : { ...told, line: joined(killed, how) };
  }

  #secretsOf(phase: Phase): Record<string, string> {
    const { job, hasSecrets } = this.#options;
    return hasSecrets ? job.secrets(phase) : {};
  }

  async #startOf(phase: Phase): Promise<CommandStart> {
    const { job, folder, context: { config } } = this.#options;
    const secrets = this.#secretsOf(phase);
    return {
      command: this.#command(phase),
      folder: folder.path,
      env: phaseEnvironment({ jobId: job.jobId, secrets, config }).env,
      mark: jobMark(job.jobId, config.agent_id),
      cgroup: await this.#cgroupOf(phase),
      label: `${config.agent_id}, job ${job.jobId}, ${phase}`,
    };
  }

  /**
   * Makes the commands of this phase and of the next ones ready, while something else takes time: that a
   * phase runs, or asking whether the job was cancelled. One that cannot be made ready says so when it is to begin.
   */
  makeReady(phase: Phase): void {
    const { context: { signals } } = this.#options;
    if (signals.leave.aborted) return;
    this.#makeReady(phase);
    this.makeNextReady(phase);
  }

  /** The same for the first phase, while attachments are fetched. */
  makeFirstReady(): void {
    const first = PHASES.find((phase) => this.reasonToSkip(phase) === undefined);
    if (first !== undefined) this.makeReady(first);
  }

  /** The same for the phases after this one. */
  makeNextReady(phase: Phase): void {
    for (const next of PHASES.slice(PHASES.indexOf(phase) + 1)) {
      if (this.#ready.size >= MOST_READY) return;
      // The phases before it could look at them.
      if (Object.keys(this.#secretsOf(next)).length === 0) this.#makeReady(next);
    }
  }

  #makeReady(phase: Phase): void {
    const { outbox, context: { clock } } = this.#options;
    if (this.#ready.has(phase) || outbox.state.phases.has(phase)) return;
    if (this.reasonToSkip(phase) !== undefined) return;
    const made = this.#startOf(phase).then(async (start) => ({
      start,
      command: await makeCommandReady(start, outbox),
    }));
    const over = new AbortController();
    this.#ready.set(phase, { made: made.catch(() => undefined), over });
    clock.sleep(READY_MS, over.signal).then(() => this.#drop(phase), () => {});
  }

  /** What was made ready for a phase, if it is to be started in the same way. */
  async #takeReady(phase: Phase, start: CommandStart): Promise<ReadyCommand | undefined> {
    const ready = this.#ready.get(phase);
    this.#ready.delete(phase);
    ready?.over.abort();
    const made = await ready?.made;
    const { isDeepStrictEqual } = process.getBuiltinModule("node:util");
    if (made === undefined || isDeepStrictEqual(made.start, start)) return made?.command;
    await made.command?.[Symbol.asyncDispose]();
    return undefined;
  }

  async #drop(phase: Phase): Promise<void> {
    const ready = this.#ready.get(phase);
    this.#ready.delete(phase);
    ready?.over.abort();
    await (await ready?.made)?.command?.[Symbol.asyncDispose]();
  }

  /** What was made ready never begins. */
  async dismiss(): Promise<void> {
    await Promise.all([...this.#ready.keys()].map((phase) => this.#drop(phase)));
  }

  #told(phase: Phase, end: EndedPhase, seconds: number): EndedPhase {
    const { context: { emit, log }, job, outbox } = this.#options;
    const { status, event } = end;
    const release = end.release ?? outbox.state.release ?? UNKNOWN_RELEASE;
    emit({ type: "phase_ended", job: job.jobId, phase, status, event, seconds, release });
    log.info(`Phase ${phase} ended`, {
      job_id: job.jobId,
      status,
      seconds: Math.round(seconds * 10) / 10,
      ...(event !== "normal_exit" && { because: event }),
      ...(end.usage !== undefined && usageFields(end.usage)),
    });
    return { ...end, seconds };
  }

  /** Where the command of a phase is kept together. */
  async #cgroupOf(phase: Phase): Promise<string | undefined> {
    const { group, context: { log }, job } = this.#options;
    const folder = await group?.folderOf(phase);
    if (group !== undefined && folder === undefined && this.#said.isNew("group")) {
      log.warning(
        `No control group could be made for job ${job.jobId}: its limits are not enforced, and processes that ` +
          "hide may outlive it",
      );
    }
    return folder;
  }

  /** The next process is started where controllers are off, and counts from nothing. */
  async #noteUsage(phase: Phase): Promise<void> {
    const { group, outbox, context: { clock } } = this.#options;
    if (!group?.isCountedAnew) return;
    const usage = group.usage(phase).catch(() => undefined);
    const now = await within(usage, { clock, ms: USAGE_LIMIT_MS });
    if (now === undefined) return;
    const { used } = outbox.state.phases.get(phase) ?? {};
    outbox.append({ ...usageInAll(used, now), t: "used", phase });
  }

  #withAllUsage(phase: Phase, end: PhaseEnd): PhaseEnd {
    const { used } = this.#options.outbox.state.phases.get(phase) ?? {};
    return end.usage === undefined ? end : { ...end, usage: usageInAll(used, end.usage) };
  }

  /** What the log says when memory ran out; nothing when it did not. */
  async #killedLine(phase: Phase, usage: GroupUsage | undefined): Promise<string | undefined> {
    if (usage === undefined || usage.killed === 0) return undefined;
    const { group, context: { config } } = this.#options;
    const victims = (await group?.victims(phase).catch(() => []) ?? []).slice(-usage.killed);
    const names = victims.map(({ name, pid }) => `${name} (process ${pid})`).join(", ");
    const { job_memory_max: most } = config;
    return `WARNING: Memory ran out, and the kernel killed ${
      usage.killed === 1 ? "a process" : `${usage.killed} processes`
    } of this phase${names && `: ${names}`}.` +
      (most === undefined ? "" : ` A job may use ${size(most)} here (job_memory_max).`);
  }

  /** Said once for each name: it would be a line in each phase otherwise. */
  #unmaskedNotes(phase: Phase, secrets: Record<string, string>): string[] {
    const { job, outbox } = this.#options;
    const earlier = PHASES.slice(0, PHASES.indexOf(phase))
      .filter((each) => outbox.state.phases.has(each));
    const told = new Set(earlier.flatMap((each) => unmaskedNames(job.secrets(each))));
    return unmaskedNames(secrets).filter((name) => !told.has(name)).map((name) =>
      `WARNING: The secret ${
        shownName(name)
      } has fewer than ${FEWEST_MASKED_CHARACTERS} characters ` +
      "and is not masked."
    );
  }

  /** How long it took from learning of a cancellation to the end of the phase. */
  noteCancelLatency(end: PhaseEnd, reason: unknown): void {
    if (end.event !== "cancelled" || !isEndReason(reason) || reason.kind !== "cancelled") return;
    const { context: { clock, emit }, job } = this.#options;
    const latencyMs = clock.monotonic() - reason.seenAt;
    emit({ type: "cancelled", job: job.jobId, latencyMs });
  }

  async #readRelease(): Promise<string | undefined> {
    const { context: { wantsRelease, clock, signals }, folder, job } = this.#options;
    const deviceIp = wantsRelease ? readDeviceInfo(folder.path)?.device_ip : undefined;
    if (typeof deviceIp !== "string") return undefined;
    return await readRelease(deviceIp, {
      username: job.testUsername,
      env: Deno.env.toObject(),
      clock,
      signal: AbortSignal.any([signals.stop, signals.leave]),
    });
  }
}

/** What a phase has used, for the log. */
function usageFields({ cpuMs, memoryPeak, read, written }: GroupUsage) {
  return {
    ...(cpuMs !== undefined && { cpu_seconds: Math.round(cpuMs / 10) / 100 }),
    ...(memoryPeak !== undefined && { memory_peak: size(memoryPeak) }),
    ...(read !== undefined && { disk_read: size(read) }),
    ...(written !== undefined && { disk_written: size(written) }),
  };
}

/** Lines that there are. */
function joined(...lines: (string | undefined)[]): string | undefined {
  return lines.filter((line) => line !== undefined && line !== "").join("\n") || undefined;
}
