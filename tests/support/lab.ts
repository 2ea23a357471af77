/**
 * A lab for tests: a sandbox on loopback and the real agent, in this process, on a clock that runs
 * fast. What a test asserts is what the server has in the end.
 */
import { join } from "node:path";
import { type AgentEnd, runAgent } from "../../lib/agent/agent.ts";
import { Control, type ControlGroupsResult, type LeaveReason } from "../../lib/agent/context.ts";
import { prepareFolders } from "../../lib/agent/folders.ts";
import { type HostClock, scaledClock } from "../../lib/clock.ts";
import { AgentConfig } from "../../lib/config/agent_config.ts";
import { emitterOf, type Sink } from "../../lib/observe/events.ts";
import { Connectivity } from "../../lib/server/connectivity.ts";
import type { JournalHook } from "../../lib/outbox/journal.ts";
import { type Sandbox, type SandboxOptions } from "../../lib/sandbox/sandbox.ts";
import { type ServedSandbox, serveSandbox } from "../../lib/sandbox/serve.ts";
import { createServerClient } from "../../lib/server/client.ts";
import { PHASES } from "../../lib/phases.ts";
import { FakeClock } from "./fake_clock.ts";
import { recordingLog } from "./recording_log.ts";

/** How many times faster than the wall's the agent's clock runs. */
const CLOCK_FACTOR = 10;
/** A test that waits longer than this for the agent has failed; real milliseconds. */
const PATIENCE_MS = 30_000;

/** What a test can set. */
export interface LabOptions {
  /** Another one than the kernel's: the host was started anew since. */
  bootId?: string;
  config?: Record<string, unknown>;
  sandbox?: SandboxOptions;
  /** One that exists, as it was left by an earlier agent. */
  served?: ServedSandbox;
  /** The folder of an earlier agent. */
  folder?: string;
  /** Is told what happens to the agent. */
  sink?: Sink;
  tokenFile?: string;
  /** @default one that runs ten times as fast as the wall's */
  clock?: HostClock;
  /** @default none are used */
  controlGroups?: Promise<ControlGroupsResult>;
  /** Is told of what is written into the journals of jobs. */
  onJournal?: JournalHook;
  /** The agent's own log lines since the last call. */
  recentLog?: () => string[];
  /** Is given what masks secrets in the agent's own log. */
  setRedactor?: (redact: (text: string) => string) => void;
}

/** A running agent. */
export interface RunningAgent {
  /** How it ended. */
  readonly ended: Promise<AgentEnd>;
  /** As SIGUSR1 does. */
  restart(): void;
  /** End when no job runs. */
  leave(why: LeaveReason): void;
  /** As SIGTERM does. */
  stop(): void;
  /** As SIGHUP does. */
  handOver(): void;
}

/** A sandbox, folders, and the agents that a test starts with them. */
export class Lab implements AsyncDisposable {
  readonly folder: string;
  readonly served: ServedSandbox;
  readonly config: AgentConfig;
  readonly log = recordingLog();
  readonly #options: LabOptions;
  readonly #agents: RunningAgent[] = [];

  private constructor(folder: string, served: ServedSandbox, options: LabOptions) {
    this.folder = folder;
    this.served = served;
    this.#options = options;
    this.config = AgentConfig.parse({
      agent_id: "agent-1",
      server_address: served.url,
      job_queues: ["queue-1"],
      polling_interval: 1,
      cancel_grace: 5,
      min_free_space: 0,
      execution_basedir: join(folder, "run"),
      logging_basedir: join(folder, "logs"),
      results_basedir: join(folder, "results"),
      ...options.config,
    });
  }

  /** Makes a lab; its agent is started by `start()`. */
  static async open(options: LabOptions = {}): Promise<Lab> {
    const folder = options.folder ?? await Deno.makeTempDir({ prefix: "lab-" });
    return new Lab(folder, options.served ?? serveSandbox(options.sandbox), options);
  }

  get sandbox(): Sandbox {
    return this.served.sandbox;
  }

  /**
   * Writes the configuration for an agent that is a process of its own.
   *
   * @param more keys besides those of the lab.
   * @returns the file.
   */
  async writeConfig(more: Record<string, unknown> = {}): Promise<string> {
    const { agent_id, server_address, job_queues, min_free_space } = this.config;
    const { execution_basedir, logging_basedir, results_basedir } = this.config;
    const file = join(this.folder, "agent.conf");
    const own = { agent_id, server_address, job_queues, min_free_space };
    const folders = { execution_basedir, logging_basedir, results_basedir };
    await Deno.writeTextFile(file, JSON.stringify({ ...own, ...folders, ...more }));
    return file;
  }

  /** Starts the agent, in this process. */
  start(): RunningAgent {
    const { clock = scaledClock(CLOCK_FACTOR) } = this.#options;
    const connectivity = new Connectivity(clock, this.log);
    const { tokenFile, sink = () => {} } = this.#options;
    const emit = emitterOf(this.config.agent_id, { clock, sink });
    const server = createServerClient({
      address: this.config.server_address,
      agentId: this.config.agent_id,
      clock,
      log: this.log,
      onAnswer: (ok, message) => {
        connectivity.report(ok, message);
        emit({ type: "connectivity", ok, message });
      },
      onAccess: (problem) => {
        emit({ type: "access", problem });
        if (problem === undefined) connectivity.retryNow();
      },
      ...(tokenFile !== undefined && { tokenFile }),
    });
    const control = new Control();
    let stops = 0;
    const prepared = prepareFolders(this.config);
    if (!prepared.ok) throw new Error(prepared.message);
    const ended = runAgent({
      config: this.config,
      folder: prepared.folder,
      server,
      connectivity,
      clock,
      log: this.log,
      emit,
      control,
      recentLog: this.#options.recentLog ?? (() => []),
      setRedactor: this.#options.setRedactor ?? (() => {}),
      wantsRelease: false,
      sharedFolder: this.folder,
      bootId: this.#options.bootId,
      controlGroups: this.#options.controlGroups,
      onJournal: this.#options.onJournal,
    }).finally(() => server.close());
    const agent: RunningAgent = {
      ended,
      restart: () => control.restart(),
      leave: (why) => control.leave(why),
      stop: () => control.stop("SIGTERM", ++stops > 1),
      handOver: () => control.handOver(),
    };
    this.#agents.push(agent);
    return agent;
  }

  /** Submits a job and starts the agent unless one runs; resolves when the job is complete. */
  async run(job: Record<string, unknown>, attachments?: Uint8Array): Promise<string> {
    const jobId = this.submit(job, attachments);
    if (this.#agents.length === 0) this.start();
    await this.complete(jobId);
    return jobId;
  }

  /** Submits a job for the agent's queue. */
  submit(job: Record<string, unknown>, attachments?: Uint8Array): string {
    return this.sandbox.submit({ job_queue: "queue-1", ...job }, attachments);
  }

  /** Resolves when the job is complete. */
  async complete(jobId: string): Promise<void> {
    await this.until(() => this.sandbox.state(jobId) === "complete", `job ${jobId} complete`);
  }

  /** Resolves when something is so on the server. */
  async until<T>(predicate: () => T | false | null | undefined, what: string): Promise<T> {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    try {
      return await this.sandbox.waitFor(predicate, { signal });
    } catch (error) {
      const lines = this.log.lines.map((line) => `${line.level} ${line.message}`).join("\n");
      throw new Error(`Gave up waiting: ${what}. The agent said:\n${lines}`, { cause: error });
    }
  }

  /** Resolves when something is so that the server does not see. */
  async eventually(predicate: () => boolean | Promise<boolean>, what: string): Promise<void> {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    while (!await predicate()) {
      if (signal.aborted) throw new Error(`Gave up waiting: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** The exit statuses that the server has of a job, by phase. */
  statuses(jobId: string): Record<string, unknown> {
    const result = this.sandbox.result(jobId) ?? {};
    return Object.fromEntries(
      PHASES.filter((phase) => `${phase}_status` in result)
        .map((phase) => [phase, result[`${phase}_status`]]),
    );
  }

  /** The names of a job's events, in order. */
  events(jobId: string): string[] {
    return this.sandbox.events(jobId).map((event) => event.event_name);
  }

  /** A job's output in one phase, without the three lines of the banner. */
  output(jobId: string, phase: "setup" | "provision" | "test" | "cleanup"): string {
    return this.sandbox.log(jobId, "output", phase).split("\n").slice(3).join("\n");
  }

  /**
   * What there is in `execution_basedir`. Not counted is the file with which an agent that waits for
   * jobs sees whether it can still write there.
   */
  inExecutionBasedir(): string[] {
    return [...Deno.readDirSync(this.config.execution_basedir)].map(({ name }) => name)
      .filter((name) => !name.startsWith(".probe-"));
  }

  /** What the agent logged at a level. */
  logged(level: "info" | "warning" | "error"): string[] {
    return this.log.lines.filter((line) => line.level === level).map((line) => line.message);
  }

  /** Stops every agent; a clock that stands still goes on for that. */
  async stop(): Promise<void> {
    const { clock } = this.#options;
    for (const agent of this.#agents) {
      agent.stop();
      if (clock instanceof FakeClock) await clock.advanceUntil(agent.ended, 10);
      else await agent.ended;
    }
    this.#agents.length = 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await this.served.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}
