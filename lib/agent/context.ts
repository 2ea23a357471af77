/** What every part of an agent works with, and what may be asked of an agent that runs. */
import type { HostClock } from "../clock.ts";
import type { AgentConfig } from "../config/agent_config.ts";
import type { Log } from "../log.ts";
import type { Emit } from "../observe/events.ts";
import type { Connectivity } from "../outbox/connectivity.ts";
import type { ControlGroupsResult } from "../process/cgroup.ts";
import type { ServerApi } from "../server/api.ts";

export type { ControlGroupsResult };

/** One agent's own, made once and passed down. */
export interface AgentContext {
  config: AgentConfig;
  server: ServerApi;
  connectivity: Connectivity;
  clock: HostClock;
  log: Log;
  /** Tells what happens. */
  emit: Emit;
}

/** Why an agent ends that is not told to stop. */
export type LeaveReason =
  /** Its configuration is another one: it comes back at once. */
  | "changed"
  /** Its configuration is gone, or names another server. */
  | "removed"
  /** The whole process is to be started again. */
  | "drained";

/** What may be asked of an agent that runs. */
export interface AgentRequests {
  /** Restart when it is online and no job runs. Remembered until it is carried out. */
  restart(): void;
  /** Take no more jobs; as a marker file does. Says what became of it. */
  offline(comment: string): Promise<string>;
  /** Take that back. */
  online(): Promise<string>;
  /** End when no job runs, whatever its state. */
  leave(why: LeaveReason): void;
  /** End now, and leave a job that runs to the next process. */
  handOver(): void;
  /** Stop now, in order; `again`: at once. */
  stop(signal: string, again: boolean): void;
}

/** By what an agent is asked. */
export interface AgentControl {
  /** From now on `requests` is told, beginning with what has been asked already. */
  listen(requests: AgentRequests): void;
}
