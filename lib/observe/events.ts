/**
 * What happens, as one type. An agent and its jobs tell it to a sink, which is a function: the log,
 * the metrics, the status, InfluxDB and systemd each are one. Telling is cheap, never waits, never
 * fails, and nothing comes back.
 */
import type { Clock } from "../clock.ts";
import type { Log, LogFields } from "../log.ts";
import type { Phase } from "../phases.ts";

/** How long a phase may run, and how long it may be silent; what is left out is not limited. */
export interface LimitsOfPhase {
  totalMs?: number;
  silenceMs?: number;
  /** How long it has been running, where an earlier process has begun it. */
  runningForMs?: number;
}

/** How much a line of the log matters. */
export type Level = "debug" | "info" | "warning" | "error";

/** What happened, without agent and time. */
export type Happening =
  /** A line for the agent's log, cleaned of secrets. */
  | { type: "log"; level: Level; message: string; fields: LogFields }
  /**
   * What the agent is about, and why: `waiting`, `offline`, `maintenance`, `restart`, `stopping` or the
   * name of a phase.
   */
  | { type: "mode"; state: string; comment: string }
  /** The poll loop has come round. */
  | { type: "turned" }
  /** A job that an earlier process left is ended, before anything else. */
  | { type: "recovery_began"; job: string }
  | { type: "recovery_ended"; job: string }
  /** `soFar`: an earlier process has begun it, and has counted it. */
  | { type: "job_began"; job: string; queue: string; name?: string; soFar?: JobSoFar }
  | { type: "phase_began"; job: string; phase: Phase; limits: LimitsOfPhase }
  | { type: "phase_skipped"; job: string; phase: Phase; reason: string }
  | PhaseEnded
  | JobEnded
  /** The device could not be brought back (exit status 46). */
  | { type: "recovery_failed"; job: string }
  /**
   * Output of a phase, cleaned and redacted; its banner comes before `phase_began`. The bytes are good during
   * the call only.
   */
  | { type: "output"; job: string; phase?: Phase; bytes: Uint8Array }
  /** The same of the device's serial log. */
  | { type: "serial"; job: string; bytes: Uint8Array }
  | Transfer
  /** A cancellation has taken effect, this long after it was seen. */
  | { type: "cancelled"; job: string; latencyMs: number }
  /** The server was asked for a job. */
  | { type: "polled" }
  /** A call to the server ended; `message` is a `Failure`'s, one line without secrets. */
  | { type: "connectivity"; ok: boolean; message?: string | undefined }
  /** The server turns the agent away, for this reason; then, without one, no longer. */
  | { type: "access"; problem?: string | undefined }
  /** A call to the server, or a delivery, is tried again. */
  | { type: "retried" }
  /** What is still on disk and has to reach the server. */
  | { type: "undelivered"; bytes: number; fragments: number; jobs: number }
  /** What is free on the fullest of the disks that jobs use. */
  | { type: "free_space"; bytes: number }
  /** What has been asked of the agent has changed. */
  | { type: "requests" } & PendingRequests;

/** What earlier processes have done of a job that is taken up. */
export interface JobSoFar {
  /** When the server handed it out; milliseconds since 1970. */
  startedAt: number;
  /** Those that have ended or were skipped. */
  phases: (PhaseSoFar | { phase: Phase; reason: string })[];
  /** The end of what it has printed, and where phases begin in that, in bytes. */
  output: Uint8Array;
  begins: { phase: Phase; at: number }[];
  /** The same of the serial log. */
  serial: Uint8Array;
}

/** A phase that has ended; what is not known of it is left out. */
interface PhaseSoFar extends Pick<PhaseEnded, "phase" | "status" | "event" | "release"> {
  /** Milliseconds since 1970. */
  startedAt?: number;
  seconds?: number;
}

/** What has been asked of an agent. */
export interface PendingRequests {
  offline?: PendingRequest;
  restart?: PendingRequest;
}

/** Why, or empty; and who or where: `on this host`, `on the server`. */
export interface PendingRequest {
  comment: string;
  by: string;
}

/** How a phase ended. */
export interface PhaseEnded {
  type: "phase_ended";
  job: string;
  phase: Phase;
  /** Exit status, 0 to 255. */
  status: number;
  /** The event that goes to the job's webhook: `test_success`, `global_timeout` ... */
  event: string;
  /** Absent of a phase that the agent ended without having run its command. */
  seconds?: number;
  /** What runs on the device (`22.04.5`, `Core 22`), else `unknown`. */
  release: string;
}

/** How a job ended. */
export interface JobEnded {
  type: "job_ended";
  job: string;
  /** The detail of the event `job_end`: `normal_exit` or what ended the job. */
  reason: string;
  /** The first phase that ended with another status than 0. */
  failed?: Phase | undefined;
  /** Whether that one was ended by a limit. */
  timedOut?: boolean | undefined;
}

/** Something that is not a phase and may take long: attachments and artifacts on their way. Often told. */
export interface Transfer {
  type: "transfer";
  job: string;
  /** `Fetching the attachments`, for one. */
  what: string;
  /** Done so far. */
  bytes: number;
  /** All of it, where that is known. */
  total?: number | undefined;
  /** It has ended, whichever way. */
  isOver: boolean;
}

/** What happened to which agent, and when: milliseconds since 1970. */
export type AgentEvent = Happening & { agent: string; at: number };

/** Listens. Returns at once; what it throws is its own affair. */
export type Sink = (event: AgentEvent) => void;

/** Tells what happens to one agent. */
export type Emit = (event: Happening) => void;

/** What an agent tells goes to `sink`, with its name and the time. */
export function emitterOf(
  agent: string,
  { clock, sink }: { clock: Pick<Clock, "now">; sink: Sink },
): Emit {
  return (event) => sink({ ...event, agent, at: clock.now() });
}

/** What a sink does at each type of event; of the others it takes no notice. */
export type Handlers = {
  [Type in Happening["type"]]?: (event: Extract<AgentEvent, { type: Type }>) => void;
};

/** A sink that is made of one function for each type of event. */
export function sinkOf(handlers: Handlers): Sink {
  return (event) => {
    // What is found under a type takes events of that type, which the compiler cannot follow.
    const handle = handlers[event.type] as Sink | undefined;
    handle?.(event);
  };
}

/**
 * One sink that passes everything on to each of several. One that throws does not keep the others
 * from hearing it, nor the agent from going on; its first failure is logged.
 *
 * @param log where a failing sink is reported.
 */
export function combineSinks(sinks: readonly Sink[], log: Log): Sink {
  const failed = new Set<Sink>();
  return (event) => {
    for (const sink of sinks) {
      try {
        sink(event);
      } catch (error) {
        if (failed.has(sink)) continue;
        failed.add(sink);
        log.error(
          "A part that only watches the agent failed; jobs are not affected, please report this",
          { error: error instanceof Error ? error.stack ?? error.message : String(error) },
        );
      }
    }
  };
}
