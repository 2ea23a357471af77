/**
 * What is told of a job and its phases: in its journal, its folder and its log, to the server, and to the
 * consumers of its webhook.
 */
import type { Clock } from "../clock.ts";
import type { Emit } from "../observe/events.ts";
import type { Entry } from "../outbox/entries.ts";
import { type JobState, statusesOf } from "../outbox/job_state.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { join } from "../path.ts";
import type { Phase } from "../phases.ts";
import type { Secrets } from "../process/redactor.ts";
import { readDeviceInfo, readStageFailure } from "./connector_files.ts";
import type { PhaseEnd } from "./phase_command.ts";
import { type Drafts, PhaseLog } from "./phase_log.ts";
import { rewriteFile } from "./untrusted_paths.ts";
import { redactStrings } from "./secrets.ts";

/** A device connector's way of saying that the device could not be brought back. */
const RECOVERY_FAILED_STATUS = 46;

/** To whom it is told, and what must not be. */
export interface PhaseReportOptions {
  outbox: Outbox;
  events: Events;
  emit: Emit;
  secrets: Secrets;
  agentId: string;
  /** As in `JobContext`. */
  noteLostDevice(jobId: string): void;
  /** The job's working folder. */
  folder: string;
}

/** What is said of the end of a phase, besides how it ended. */
export interface PhaseConclusion {
  /** Goes with it: why no other phase will run, for one. */
  drafts?: Drafts;
  /** How long it took. */
  seconds?: number | undefined;
  /** What runs on the device, once that is known. */
  release?: string | undefined;
  /** What the webhook hears as the reason, where that is not the line of the log. */
  reason?: string | undefined;
  /** What the log says of a phase that ended by itself. */
  line?: string | undefined;
}

/** Tells of the phases of one job. */
export class PhaseReport {
  readonly #options: PhaseReportOptions;
  /** As last sent, so that it is sent again only when it has changed. */
  #deviceInfo = "";

  constructor(options: PhaseReportOptions) {
    this.#options = options;
  }

  /** Opens the log of a phase that is about to begin. */
  async announce(phase: Phase): Promise<void> {
    if (this.#options.outbox.state.announced.has(phase)) return;
    const text = banner(phase, this.#options.agentId);
    await this.say(phase, text, [{ t: "phase_announced", phase }]);
  }

  /**
   * Writes down and sends that a phase begins.
   *
   * @param options.isAsked whether the server has just said that the job is not cancelled. @default false
   */
  started(phase: Phase, options: { isAsked?: boolean } = {}): void {
    this.#options.outbox.append(...this.#startDrafts(phase, options));
  }

  #startDrafts(phase: Phase, { isAsked = false } = {}): Drafts {
    return [
      { t: "phase_started", phase },
      {
        t: "send",
        message: { kind: "state", state: phase, ...(isAsked && { isAsked }) },
      },
      ...this.#options.events.drafts(`${phase}_start`),
    ];
  }

  /** Writes down and sends that a phase does not run: consumers of events count on it anyway. */
  skipped(phase: Phase): void {
    const { outbox, events } = this.#options;
    outbox.append(
      { t: "phase_skipped", phase },
      ...events.drafts(`${phase}_start`),
      ...events.drafts(`${phase}_success`),
      // Dashboards count one entry for each job.
      ...(phase === "provision" ? [provisionLog(0, "provision_success")] : []),
    );
  }

  /** Writes down, says and sends how a phase ended. */
  async ended(phase: Phase, end: PhaseEnd, more: PhaseConclusion = {}): Promise<void> {
    const { outbox, events, emit, folder, noteLostDevice } = this.#options;
    const { event, detail, status } = end;
    const outcome = outcomeOf(phase, status);
    if (outcome === "recovery_fail") {
      // Should this process be killed in between, the phase is ended once more by the next one.
      noteLostDevice(outbox.jobId);
      emit({ type: "recovery_failed", job: outbox.jobId });
    }
    const failure = status === 0 ? "" : readStageFailure(folder, phase);
    const statuses = { ...statusesOf(outbox.state), [phase]: status };
    this.#rewriteOutcome(statuses);
    const drafts: Drafts = [
      ...(outbox.state.phases.has(phase) ? [] : this.#startDrafts(phase)),
      ...(isOwnEvent(event) ? events.drafts(event, detail) : []),
      ...events.drafts(outcome, status === 0 ? "" : more.reason ?? (failure || detail)),
      {
        t: "phase_ended",
        phase,
        status,
        ...(more.seconds !== undefined && { seconds: more.seconds }),
        ...(more.release !== undefined && { release: more.release }),
      },
      { t: "send", message: { kind: "status", status: statuses } },
      ...(phase === "provision" ? [provisionLog(status, outcome)] : []),
      ...more.drafts ?? [],
    ];
    const line = more.line ?? detail;
    if (line === "") outbox.append(...drafts);
    else await this.say(phase, line, drafts);
  }

  #rewriteOutcome(status: Record<string, number>): void {
    try {
      const path = join(this.#options.folder, "testflinger-outcome.json");
      rewriteFile(path, JSON.stringify({ status }), 0o644);
    } catch {
      // A job may remove its own folder, or put a link there; what counts is the journal.
    }
  }

  /** Sends what a device connector has said of its device, if that is new. */
  deviceInfo(): void {
    const { outbox, secrets, folder } = this.#options;
    const info = readDeviceInfo(folder);
    if (info === undefined) return;
    const deviceInfo = redactStrings(info, secrets);
    const text = JSON.stringify(deviceInfo);
    if (text === this.#deviceInfo) return;
    this.#deviceInfo = text;
    outbox.send({ kind: "device_info", deviceInfo });
  }

  /** Says one line in the log of a phase that has no command running. */
  async say(phase: Phase, line: string, drafts: Drafts = []): Promise<void> {
    await using log = await PhaseLog.open({
      ...this.#options,
      folder: this.#options.folder,
      phase,
    });
    await log.say(line, drafts);
  }
}

/** Whether a phase of the job has found that the device cannot be brought back. */
export function isDeviceLost({ phases }: JobState): boolean {
  return [...phases.values()].some(({ status }) => status === RECOVERY_FAILED_STATUS);
}

/** The event that says how a phase ended. */
export function outcomeOf(phase: Phase, status: number): EventName {
  if (status === RECOVERY_FAILED_STATUS) return "recovery_fail";
  return `${phase}_${status === 0 ? "success" : "fail"}`;
}

/** The three lines that open the log of a phase. */
function banner(phase: Phase, agentId: string): string {
  const line = `* Starting testflinger ${phase} phase on ${agentId} *`;
  const frame = "*".repeat(line.length);
  return `${frame}\n${line}\n${frame}`;
}

/** Whether an ending is told to the job's webhook by itself, before the failure of the phase. */
function isOwnEvent(event: PhaseEnd["event"]): event is PhaseEnd["event"] & EventName {
  return event === "cancelled" || event === "global_timeout" || event === "output_timeout";
}

function provisionLog(exitCode: number, detail: EventName) {
  return { t: "send" as const, message: { kind: "provision_log" as const, exitCode, detail } };
}

/** The names of the events of a webhook. */
export type EventName =
  | "job_start"
  | `${Phase}_start`
  | `${Phase}_success`
  | `${Phase}_fail`
  | "cancelled"
  | "global_timeout"
  | "output_timeout"
  | "recovery_fail"
  | "job_end";

/** Makes the events of one job, as the consumers of its webhook know them. */
export class Events {
  readonly #outbox: Outbox;
  readonly #secrets: Secrets;
  readonly #clock: Clock;

  constructor(outbox: Outbox, secrets: Secrets, clock: Clock) {
    this.#outbox = outbox;
    this.#secrets = secrets;
    this.#clock = clock;
  }

  /** Something happened: what is written down of it. Nothing is for a job without a webhook. */
  drafts(name: EventName, detail = ""): Entry[] {
    if (this.#outbox.state.accepted?.webhook === undefined) return [];
    const event = {
      event_name: name,
      timestamp: new Date(this.#clock.now()).toISOString().replace("Z", "+00:00"),
      detail: this.#secrets.redactText(detail),
    };
    return [{ t: "event", event }];
  }
}
