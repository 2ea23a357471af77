/** What is told of the phases of a job: in its record, its folder and its log, and to the server. */
import { join } from "node:path";
import type { Observer } from "../observe/observer.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { statusesOf } from "../outbox/job_state.ts";
import type { Phase } from "../phases.ts";
import type { Secrets } from "../process/redactor.ts";
import { readDeviceInfo, readFailure } from "./connector_files.ts";
import type { EventName, Events } from "./events.ts";
import { PhaseLog } from "./log.ts";
import type { PhaseEnd } from "./phase_run.ts";
import { redactStrings } from "./redact_strings.ts";
import { rewriteFile } from "./regular_file.ts";

/** A device connector's way of saying that the device could not be brought back. */
export const RECOVERY_FAILED_STATUS = 46;

/** To whom it is told, and what must not be. */
export interface PhaseReportOptions {
  outbox: Outbox;
  events: Events;
  observer: Observer;
  secrets: Secrets;
  agentId: string;
  /** The job's working folder. */
  folder: string;
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
    await this.say(phase, banner(phase, this.#options.agentId));
  }

  /** Writes down and sends that a phase begins. */
  started(phase: Phase): void {
    const { outbox, events } = this.#options;
    outbox.append({ t: "phase_started", phase });
    outbox.send({ kind: "state", state: phase });
    events.emit(`${phase}_start`);
  }

  /** Writes down and sends how a phase ended. Returns the event that says so. */
  ended(phase: Phase, end: PhaseEnd): EventName {
    const { outbox, events, observer, folder } = this.#options;
    const { event, detail, status } = end;
    if (isOwnEvent(event)) events.emit(event, detail);
    const recoveryFailed = status === RECOVERY_FAILED_STATUS;
    const outcome: EventName = recoveryFailed
      ? "recovery_fail"
      : `${phase}_${status === 0 ? "success" : "fail"}`;
    if (recoveryFailed) observer.recoveryFailed();
    const failure = status === 0 ? "" : readFailure(folder, phase) || detail;
    events.emit(outcome, failure);
    this.status(phase, status);
    if (phase === "provision") {
      outbox.send({ kind: "provision_log", exitCode: status, detail: outcome });
    }
    return outcome;
  }

  /** A phase's status: in the record, in `testflinger-outcome.json`, on the server. */
  status(phase: Phase, status: number): void {
    const { outbox, folder } = this.#options;
    outbox.append({ t: "phase_ended", phase, status });
    const statuses = statusesOf(outbox.state);
    try {
      const path = join(folder, "testflinger-outcome.json");
      rewriteFile(path, JSON.stringify({ status: statuses }), 0o644);
    } catch {
      // A job may remove its own folder, or put a link there; what counts is the record.
    }
    outbox.send({ kind: "status", status: statuses });
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

  /** What is posted of a provision that is skipped: dashboards count one entry for each job. */
  provisionSkipped(): void {
    this.#options.outbox.send({
      kind: "provision_log",
      exitCode: 0,
      detail: "provision_success" satisfies EventName,
    });
  }

  /** Says one line in the log of a phase that has no command running. */
  async say(phase: Phase, line: string): Promise<void> {
    await using log = await PhaseLog.open({ ...this.#options, phase });
    await log.say(line);
  }
}
