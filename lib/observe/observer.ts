/** Methods by which a job tells what happens; each becomes an event. */
import type { Emit } from "./events.ts";
import type { Phase } from "../phases.ts";

/** What the agent is about, and why. */
export interface ModeNotice {
  /** `waiting`, `offline`, `maintenance`, `restart`, `stopping` or the name of a phase. */
  state: string;
  /** Why; `""` when there is nothing to say. */
  comment: string;
}

/** A job that begins. */
export interface JobNotice {
  jobId: string;
  queue: string;
  name?: string;
  /** An earlier process has begun it, and has counted it. */
  isTakenUp?: boolean;
}

/** How long a phase may run, and how long it may be silent; what is left out is not limited. */
export interface PhaseLimits {
  totalMs?: number;
  silenceMs?: number;
  /** How long it has been running, where an earlier process has begun it. */
  runningForMs?: number;
}

/** How a phase ended. */
export interface PhaseResult {
  /** Exit status, 0 to 255. */
  status: number;
  /** The event that goes to the job's webhook: `test_success`, `global_timeout` ... */
  event: string;
  seconds: number;
  /** What runs on the device (`22.04.5`, `Core 22`), else `unknown`. */
  release: string;
}

/** Something that is not a phase and may take long: attachments and artifacts on their way. */
export interface Transfer {
  /** `Fetching the attachments`, for one. */
  what: string;
  jobId: string;
  /** Done so far. */
  bytes: number;
  /** All of it, where that is known. */
  total?: number;
  /** It has ended, whichever way. */
  isOver: boolean;
}

/** What is still on disk and has to reach the server. */
export interface Backlog {
  bytes: number;
  fragments: number;
  jobs: number;
}

/** Someone who listens. Each method returns at once; what it throws is its own affair. */
export interface Observer {
  mode(mode: ModeNotice): void;
  /** A job that an earlier process left is brought to its end, before anything else; then `undefined`. */
  recovering(jobId: string | undefined): void;
  jobStarted(job: JobNotice): void;
  phaseStarted(phase: Phase, limits: PhaseLimits): void;
  phaseSkipped(phase: Phase, reason: string): void;
  phaseEnded(phase: Phase, result: PhaseResult): void;
  /** `reason` is the detail of the event `job_end`: `normal_exit` or what ended the job. */
  jobEnded(result: { reason: string }): void;
  /** The device could not be brought back (exit status 46). */
  recoveryFailed(): void;
  /** Output of the running phase, cleaned and redacted. The bytes are good during the call only. */
  output(bytes: Uint8Array): void;
  /** The same of the device's serial log. */
  serial(bytes: Uint8Array): void;
  /** Often, while one is on its way: what is to be cheap here has to be. */
  transfer(transfer: Transfer): void;
  /** The server was asked for a job. */
  polled(): void;
  /** A call to the server ended; `message` is a `Failure`'s, one line without secrets. */
  connectivity(ok: boolean, message?: string): void;
  /** The server turns the agent away, for this reason; then, with `undefined`, no longer. */
  access(problem: string | undefined): void;
  /** A call to the server, or a delivery, is tried again. */
  retried(): void;
  undelivered(amount: Backlog): void;
  /** A cancellation has taken effect, this long after it was seen. */
  cancelled(latencyMs: number): void;
}

/** What a job tells by these methods, as events. */
export function observerOf(emit: Emit): Observer {
  let job = "";
  let recovering = "";
  return {
    mode: (mode) => emit({ type: "mode", ...mode }),
    recovering(jobId) {
      if (jobId === undefined) return emit({ type: "recovery_ended", job: recovering });
      job = recovering = jobId;
      emit({ type: "recovery_began", job: jobId });
    },
    jobStarted({ jobId, ...notice }) {
      job = jobId;
      emit({ type: "job_began", job, ...notice });
    },
    phaseStarted: (phase, limits) => emit({ type: "phase_began", job, phase, limits }),
    phaseSkipped: (phase, reason) => emit({ type: "phase_skipped", job, phase, reason }),
    phaseEnded: (phase, { status, event, seconds, release }) =>
      emit({ type: "phase_ended", job, phase, status, event, seconds, release }),
    jobEnded: ({ reason }) => emit({ type: "job_ended", job, reason }),
    recoveryFailed: () => emit({ type: "recovery_failed", job }),
    output: (bytes) => emit({ type: "output", job, bytes }),
    serial: (bytes) => emit({ type: "serial", job, bytes }),
    transfer: ({ jobId, what, bytes, total, isOver }) =>
      emit({ type: "transfer", job: jobId, what, bytes, total, isOver }),
    polled: () => emit({ type: "polled" }),
    connectivity: (ok, message) => emit({ type: "contact", ok, message }),
    access: (problem) => emit({ type: "access", problem }),
    retried: () => emit({ type: "retried" }),
    undelivered: (amount) => emit({ type: "undelivered", ...amount }),
    cancelled: (latencyMs) => emit({ type: "cancelled", job, latencyMs }),
  };
}
