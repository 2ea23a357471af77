/** What every part of an agent works with, and what may be asked of an agent that runs. */
import type { HostClock } from "../clock.ts";
import type { AgentConfig } from "../config/agent_config.ts";
import type { Log } from "../log.ts";
import type { Emit } from "../observe/events.ts";
import type { Connectivity } from "../server/connectivity.ts";
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
interface AgentRequests {
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

/** What is asked of one agent. */
export class Control implements AgentControl {
  #requests: AgentRequests | undefined;
  #asked: ((requests: AgentRequests) => void)[] = [];

  listen(requests: AgentRequests): void {
    this.#requests = requests;
    for (const ask of this.#asked.splice(0)) ask(requests);
  }

  restart(): void {
    this.#ask((requests) => requests.restart());
  }

  /** Passes on what is asked by a person, who is told when it could not be. */
  async askNow(ask: (requests: AgentRequests) => Promise<string>): Promise<string> {
    if (this.#requests === undefined) return "The agent is starting; try again in a moment.";
    return await ask(this.#requests);
  }

  leave(why: LeaveReason): void {
    this.#ask((requests) => requests.leave(why));
  }

  handOver(): void {
    this.#ask((requests) => requests.handOver());
  }

  stop(signal: string, again: boolean): void {
    this.#ask((requests) => requests.stop(signal, again));
  }

  #ask(ask: (requests: AgentRequests) => void): void {
    if (this.#requests === undefined) this.#asked.push(ask);
    else ask(this.#requests);
  }
}
