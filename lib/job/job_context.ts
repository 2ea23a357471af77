/** What a job needs of its agent, and why the agent ends a phase of it. */
import type { HostClock } from "../clock.ts";
import type { AgentConfig } from "../config/agent_config.ts";
import type { Log } from "../log.ts";
import type { Emit } from "../observe/events.ts";
import type { Connectivity } from "../server/connectivity.ts";
import type { Outbox } from "../outbox/outbox.ts";
import type { Secrets } from "../process/redactor.ts";
import type { ServerApi } from "../server/api.ts";
import type { JobGroups } from "./job_groups.ts";

/** The signals by which an agent is told to end. */
export interface StopSignals {
  /** In order: end the phase, clean up, deliver. */
  stop: AbortSignal;
  /** At once. */
  forceStop: AbortSignal;
  /** To leave everything as it is, to the next process. */
  leave: AbortSignal;
}

/** What a job needs of its agent. */
export interface JobContext {
  config: AgentConfig;
  server: ServerApi;
  connectivity: Connectivity;
  clock: HostClock;
  log: Log;
  emit: Emit;
  signals: StopSignals;
  /** Changes with each start of the host. */
  bootId: string;
  /** Control groups for jobs, where the agent may make some. */
  groups: JobGroups | undefined;
  /** Whether anything reads the `release` label of the metrics. */
  wantsRelease: boolean;
  /**
   * The device could not be brought back: the agent must not take another job. Told before the journal says so, and
   * again by each process that finds it there.
   */
  noteLostDevice(jobId: string): void;
  /** Forgets the job as it was received, when it has ended. */
  forgetReceived(outbox: Outbox): void;
  /** Masks these secrets in the agent's own log, until the server has everything of the job. */
  keepSecret(outbox: Outbox, secrets: Secrets): void;
}

/** Why a running phase is ended from outside: the reason of the signal that ends it. */
export type EndReason =
  /** The job was cancelled on the server; `seenAt` in monotonic milliseconds. */
  | { kind: "cancelled"; seenAt: number }
  /** The agent is told to stop; `at` in monotonic milliseconds. */
  | { kind: "stopped"; at: number };

/** Narrows the reason of an abort signal. */
export function isEndReason(reason: unknown): reason is EndReason {
  return typeof reason === "object" && reason !== null && "kind" in reason &&
    (reason.kind === "cancelled" || reason.kind === "stopped");
}
