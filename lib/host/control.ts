/** Passes on to an agent what is asked of it, also what was asked before it could listen. */
import type { AgentControl, AgentRequests, LeaveReason } from "../agent/context.ts";

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
    if (this.#requests === undefined) return "The agent is about to begin; try again in a moment.";
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
