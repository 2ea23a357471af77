/**
 * The agents of a process, each supervised by itself: what ends one of them, an error included, the
 * others do not notice.
 */
import type { AgentEnd } from "../agent/agent.ts";
import type { AgentConfig } from "../config/agent_config.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { type Sink, sinkOf } from "../observe/events.ts";
import { Backoff } from "../backoff.ts";
import type { Wanted } from "./configurations.ts";
import { HostedAgent, type SharedByAgents } from "./hosted_agent.ts";

/** How the pool ends: told to stop, to be started again, or its only agent could not start. */
export type PoolEnd = "stopped" | "restart" | "failed";

/** What a pool needs. */
export interface PoolOptions {
  shared: SharedByAgents;
  log: Log;
  /** Whether an agent that restarts, or fails, begins again in this process; else the pool ends. */
  startsAgain: boolean;
  /** Looks at the configurations before an agent begins again. */
  look(): Promise<void>;
  /** An agent begins, or is no more. */
  onBegin(config: AgentConfig): void;
  onGone(agentId: string): void;
}

/** One agent of the pool. */
export interface PoolMember {
  readonly wanted: Wanted;
  /** Undefined between two lives. */
  readonly hosted: HostedAgent | undefined;
  /** Why it does not run, or is thought to hang. */
  readonly trouble: string | undefined;
}

class Member implements PoolMember {
  wanted: Wanted;
  hosted: HostedAgent | undefined;
  failure: string | undefined;
  /** Ends the pause before the next try. */
  wake = new AbortController();

  constructor(wanted: Wanted) {
    this.wanted = wanted;
  }

  get trouble(): string | undefined {
    return this.failure ?? this.hosted?.trouble();
  }
}

/** The agents of a process. */
export class AgentPool {
  /** Has to be told what happens to the agents. */
  readonly sink: Sink;
  /** Resolves when the pool was told to end, and no agent is left. */
  readonly ended: Promise<PoolEnd>;
  readonly #options: PoolOptions;
  readonly #members = new Map<string, Member>();
  readonly #end = Promise.withResolvers<PoolEnd>();
  #wanted: ReadonlyMap<string, Wanted> = new Map();
  #ending: PoolEnd | undefined;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.ended = this.#end.promise;
    const works = ({ agent }: { agent: string }) => {
      const member = this.#members.get(agent);
      if (member !== undefined) member.failure = undefined;
    };
    this.sink = sinkOf({ turned: works, recovery_began: works });
  }

  /** By agent id, in the order of their names. */
  get members(): PoolMember[] {
    return [...this.#members.entries()].sort(([a], [b]) => a < b ? -1 : 1)
      .map(([, member]) => member);
  }

  /** The agent of this id. */
  get(agentId: string): PoolMember | undefined {
    return this.#members.get(agentId);
  }

  /** From now on these should run: new ones at once, others after their jobs. */
  want(wanted: ReadonlyMap<string, Wanted>): void {
    this.#wanted = wanted;
    if (this.#ending !== undefined) return;
    for (const [agentId, member] of this.#members) this.#adjust(member, wanted.get(agentId));
    this.#fill();
  }

  #adjust(member: Member, next: Wanted | undefined): void {
    const { config } = member.hosted ?? member.wanted;
    const isSame = next !== undefined && JSON.stringify(next.config) === JSON.stringify(config);
    if (isSame) {
      member.wanted = next;
      return;
    }
    member.wake.abort();
    // Another server must not go on to show the agent as one that waits there.
    const staysThere = next?.config.server_address === config.server_address;
    member.hosted?.leave(staysThere ? "changed" : "removed");
  }

  /** Begins what is wanted and not there. An agent that another one of the same file was waits for that one's end. */
  #fill(): void {
    const files = new Set([...this.#members.values()].map(({ wanted }) => wanted.file));
    for (const [agentId, wanted] of this.#wanted) {
      if (this.#members.has(agentId) || files.has(wanted.file)) continue;
      const member = new Member(wanted);
      this.#members.set(agentId, member);
      void this.#supervise(agentId, member);
    }
  }

  /** Restart the process: each agent ends when no job runs on it. */
  restart(): void {
    if (!this.#options.startsAgain) {
      // It asks first whether it may: offline, for one, it waits.
      for (const { hosted } of this.#members.values()) hosted?.restart();
      return;
    }
    this.#ending ??= "restart";
    for (const { hosted, wake } of this.#members.values()) {
      wake.abort();
      hosted?.leave("drained");
    }
    this.#endIfEmpty();
  }

  /** Start the process again now: jobs go on meanwhile. */
  handOver(): void {
    this.#ending ??= "restart";
    for (const { hosted, wake } of this.#members.values()) {
      wake.abort();
      hosted?.handOver();
    }
    this.#endIfEmpty();
  }

  /** Stop the process: each agent ends now, in order; `again`: at once. */
  stop(signal: string, again: boolean): void {
    this.#ending = "stopped";
    for (const { hosted, wake } of this.#members.values()) {
      wake.abort();
      hosted?.stop(signal, again);
    }
    this.#endIfEmpty();
  }

  /** One agent, from life to life. */
  async #supervise(agentId: string, member: Member): Promise<void> {
    const backoff = new Backoff({ capMs: LONGEST_PAUSE_MS });
    while (true) {
      const end = await this.#live(member);
      if (!this.#options.startsAgain) this.#ending ??= endOfProcess(end);
      if (this.#ending !== undefined) break;
      if (end.ended === "failed") {
        member.failure = end.message;
        await this.#pause(member, backoff.next());
      } else {
        backoff.reset();
        await this.#options.look();
      }
      const next = this.#wanted.get(agentId);
      if (next === undefined || this.#ending !== undefined) break;
      member.wanted = next;
    }
    this.#members.delete(agentId);
    this.#options.onGone(agentId);
    if (this.#ending === undefined) this.#fill();
    this.#endIfEmpty();
  }

  async #live(member: Member): Promise<AgentEnd> {
    const { shared, onBegin } = this.#options;
    const hosted = new HostedAgent(member.wanted, shared);
    member.wake = new AbortController();
    member.hosted = hosted;
    try {
      onBegin(hosted.config);
      return await hosted.run();
    } catch (error) {
      const message = `The agent cannot run: ${messageOf(error)}. Please report this`;
      hosted.log.error(message);
      return { ended: "failed", message };
    } finally {
      member.hosted = undefined;
      hosted.close();
    }
  }

  async #pause(member: Member, ms: number): Promise<void> {
    await this.#options.shared.clock.sleep(ms, member.wake.signal).catch(() => {});
  }

  #endIfEmpty(): void {
    if (this.#ending !== undefined && this.#members.size === 0) this.#end.resolve(this.#ending);
  }
}

/** An agent that cannot start is tried again, at the latest after so long. */
const LONGEST_PAUSE_MS = 300_000;

function endOfProcess(end: AgentEnd): PoolEnd {
  return end.ended === "left" || end.ended === "handed over" ? "restart" : end.ended;
}
