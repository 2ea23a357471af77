/** An agent that is a process of its own, again and again, with one server and one set of folders. */
import { join } from "node:path";
import { type AgentProcess, type ProgramOptions, startProgram } from "./agent_process.ts";
import type { TestHost } from "./injected_main.ts";
import { Lab } from "./lab.ts";

/** A lab, the configuration file of its agent, and the agent that runs. */
export class House implements AsyncDisposable {
  #agent: AgentProcess | undefined;
  #said = "";

  private constructor(readonly lab: Lab, readonly file: string) {}

  /** Makes one; no agent runs yet. */
  static async open(config: Record<string, unknown>): Promise<House> {
    const lab = await Lab.open({ config: { agent_id: `takeover-${crypto.randomUUID()}` } });
    await Deno.mkdir(lab.config.execution_basedir);
    const file = await lab.writeConfig({ polling_interval: 1, cancel_grace: 1, ...config });
    return new House(lab, file);
  }

  /** Changes the configuration for the agents that start from now on. */
  async configure(config: Record<string, unknown>): Promise<void> {
    const before = JSON.parse(await Deno.readTextFile(this.file));
    await Deno.writeTextFile(this.file, JSON.stringify({ ...before, ...config }));
  }

  /** A file that the commands of jobs may look for. */
  at(name: string): string {
    return join(this.lab.folder, name);
  }

  /** Makes such a file. */
  async touch(name: string): Promise<void> {
    await Deno.writeTextFile(this.at(name), "");
  }

  /**
   * Starts the agent.
   *
   * @param options how, and which one, if not the checkout's modules.
   */
  start(host: TestHost = {}, options: ProgramOptions = {}): AgentProcess {
    const what = options.program === undefined ? { host } : {};
    this.#agent = startProgram(["-c", this.file], { ...what, ...options });
    return this.#agent;
  }

  /** Ends the agent; returns its exit status. */
  async end(signal: Deno.Signal): Promise<number> {
    const agent = this.#agent!;
    agent.kill(signal);
    const status = await agent.exited;
    this.#said += agent.output();
    this.#agent = undefined;
    return status;
  }

  /** What its agents have printed. */
  get said(): string {
    return this.#said + (this.#agent?.output() ?? "");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#agent !== undefined) await this.end("SIGTERM");
    await this.lab[Symbol.asyncDispose]();
  }
}
