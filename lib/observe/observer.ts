/**
 * The one way in which the agent and its jobs tell the rest of the world what happens: metrics,
 * the status page, InfluxDB and systemd all listen here. Telling is cheap, never waits, never
 * fails, and nothing comes back.
 */
import type { Log } from "../log.ts";
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
}

/** How long a phase may run, and how long it may be silent; what is left out is not limited. */
export interface PhaseLimits {
  totalMs?: number;
  silenceMs?: number;
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

/** Listens to nothing. */
export const noObserver: Observer = {
  mode() {},
  recovering() {},
  jobStarted() {},
  phaseStarted() {},
  phaseSkipped() {},
  phaseEnded() {},
  jobEnded() {},
  recoveryFailed() {},
  output() {},
  transfer() {},
  polled() {},
  connectivity() {},
  access() {},
  retried() {},
  undelivered() {},
  cancelled() {},
};

/**
 * One observer that passes everything on to each of several. One that throws does not keep the
 * others from hearing it, nor the agent from going on; its first failure is logged.
 *
 * @param log where a failing observer is reported.
 */
export function combineObservers(observers: readonly Observer[], log?: Log): Observer {
  const failed = new Set<Observer>();
  const tell = (what: (observer: Observer) => void) => {
    for (const observer of observers) {
      try {
        what(observer);
      } catch (error) {
        if (failed.has(observer)) continue;
        failed.add(observer);
        log?.error(
          "A part that only watches the agent failed; jobs are not affected, please report this",
          { error: error instanceof Error ? error.stack ?? error.message : String(error) },
        );
      }
    }
  };
  return {
    mode: (mode) => tell((o) => o.mode(mode)),
    recovering: (jobId) => tell((o) => o.recovering(jobId)),
    jobStarted: (job) => tell((o) => o.jobStarted(job)),
    phaseStarted: (phase, limits) => tell((o) => o.phaseStarted(phase, limits)),
    phaseSkipped: (phase, reason) => tell((o) => o.phaseSkipped(phase, reason)),
    phaseEnded: (phase, result) => tell((o) => o.phaseEnded(phase, result)),
    jobEnded: (result) => tell((o) => o.jobEnded(result)),
    recoveryFailed: () => tell((o) => o.recoveryFailed()),
    output: (bytes) => tell((o) => o.output(bytes)),
    transfer: (transfer) => tell((o) => o.transfer(transfer)),
    polled: () => tell((o) => o.polled()),
    connectivity: (ok, message) => tell((o) => o.connectivity(ok, message)),
    access: (problem) => tell((o) => o.access(problem)),
    retried: () => tell((o) => o.retried()),
    undelivered: (amount) => tell((o) => o.undelivered(amount)),
    cancelled: (latencyMs) => tell((o) => o.cancelled(latencyMs)),
  };
}
