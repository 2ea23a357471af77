/** One life of one agent in this process: what is its own, from its log to its socket. */
import { type AgentEnd, runAgent } from "../agent/agent.ts";
import type { LookAtDisk } from "../agent/host_check.ts";
import { prepareFolders } from "../agent/folders.ts";
import { Control, type ControlGroupsResult, type LeaveReason } from "../agent/context.ts";
import type { HostClock } from "../clock.ts";
import type { AgentConfig } from "../config/agent_config.ts";
import { messageOf } from "../message.ts";
import { withoutUserinfo } from "../observe/host_view.ts";
import { combineSinks, type Emit, emitterOf, type Sink } from "../observe/events.ts";
import { createLiveness, type Liveness } from "../observe/liveness.ts";
import {
  type AgentLog,
  type Console,
  createLog,
  createLogLines,
  createTransferLog,
  LOG_FILE_NAME,
  type LogLines,
} from "../observe/agent_log.ts";
import type { PageAction } from "../observe/page_actions.ts";
import { createStatus, type StatusBoard } from "../observe/status.ts";
import type { BrokenConfiguration, HostStatus } from "../observe/status_schema.ts";
import { serveStatusSocket, type StatusSocket } from "../observe/status_socket.ts";
import { Connectivity } from "../server/connectivity.ts";
import type { JournalHook } from "../outbox/journal.ts";
import { resolve } from "../path.ts";
import { createServerClient } from "../server/client.ts";
import type { Connections } from "../server/connections.ts";
import { VERSION } from "../version.ts";
import type { Wanted } from "./configurations.ts";
import { rememberConfiguration } from "../agent/last_configuration.ts";
import { watchFreeSpace, watchRequests } from "./watches.ts";
import { ServerPages } from "./server_pages.ts";

/** What the agents of a process share. */
export interface SharedByAgents {
  clock: HostClock;
  console: Console;
  /** Is told what happens to any of them. */
  sink: Sink;
  connections: Connections;
  /** Of an agent whose configuration names none. */
  tokenFile: string;
  /** Whether anything reads the `release` label of the metrics. */
  wantsRelease(): boolean;
  /** The process and all its agents, for who asks one of them. */
  host(): HostStatus;
  /** What is wrong by now with the configuration of an agent that runs on with its previous one. */
  broken(wanted: Wanted): BrokenConfiguration | undefined;
  /** Changes with each start of the host. @default the kernel's */
  bootId?: string | undefined;
  /** Told of what is written into the journals of jobs. */
  onJournal?: JournalHook | undefined;
  /** Why an agent's device configuration cannot be used, on one line. @default nobody looks */
  deviceTrouble?: ((config: AgentConfig) => Promise<string | undefined>) | undefined;
  /** Looks at the file system of a folder. */
  lookAtDisk: LookAtDisk;
  /** In which jobs may have some of their own. */
  controlGroups: Promise<ControlGroupsResult>;
}

/** An agent from its start to its end. */
export class HostedAgent {
  readonly config: AgentConfig;
  readonly log: AgentLog;
  readonly #wanted: Wanted;
  readonly #prepared: ReturnType<typeof prepareFolders>;
  readonly #shared: SharedByAgents;
  readonly #control = new Control();
  readonly #lines: LogLines;
  readonly #liveness: Liveness;
  readonly #pages: ServerPages;
  readonly #emit: Emit;
  readonly #sinks: Sink[];
  #board: StatusBoard | undefined;
  #socket: StatusSocket | undefined;
  #leaves: LeaveReason | undefined;

  constructor(wanted: Wanted, shared: SharedByAgents) {
    const { config } = wanted;
    this.config = config;
    this.#wanted = wanted;
    this.#shared = shared;
    const { clock, console } = shared;
    const agentId = config.agent_id;
    // First of all: nothing is written into a folder that cannot be trusted.
    this.#prepared = prepareFolders(config);
    this.#lines = createLogLines({
      agentId,
      folder: this.#prepared.ok ? config.logging_basedir : undefined,
      format: config.log_format,
      quiet: this.#prepared.ok && config.logging_quiet,
      console,
    });
    this.#liveness = createLiveness({ clock });
    this.#pages = new ServerPages(config.server_address, clock);
    let sink: Sink = this.#lines.sink;
    this.#emit = emitterOf(agentId, { clock, sink: (event) => sink(event) });
    this.log = createLog({ emit: this.#emit, level: config.logging_level });
    const transfers = createTransferLog({ clock, log: this.log });
    this.#sinks = [this.#lines.sink, this.#liveness.sink, transfers, (event) => shared.sink(event)];
    sink = combineSinks(this.#sinks, this.log);
  }

  /** What it is doing; undefined until it has its folders. */
  get board(): StatusBoard | undefined {
    return this.#board;
  }

  /** Where the server shows a job to people; undefined where it does not. */
  jobPage(jobId: string): string | undefined {
    return this.#pages.of(jobId);
  }

  /** Why it is thought to hang. */
  trouble(): string | undefined {
    return this.#liveness.trouble();
  }

  /** Why it is to end when no job runs, if it is. */
  get leaves(): LeaveReason | undefined {
    return this.#leaves;
  }

  /** Asks it to restart when it is online and no job runs. */
  restart(): void {
    this.#control.restart();
  }

  /** Carries out what is asked on its page, or has it carried out; says which. */
  async act({ action, comment }: PageAction): Promise<string> {
    this.log.info(`Asked for on the page: ${action}`, comment === "" ? {} : { comment });
    if (action === "restart") {
      this.restart();
      return "The agent restarts as soon as it is online and no job runs.";
    }
    return await this.#control.askNow((requests) =>
      action === "offline" ? requests.offline(comment) : requests.online()
    );
  }

  /** Asks it to end when no job runs. */
  leave(why: LeaveReason): void {
    this.#leaves = why;
    this.#control.leave(why);
  }

  /** Tells it to end now, and to leave a job that runs to the next process. */
  handOver(): void {
    this.#control.handOver();
  }

  /** Tells it to stop. */
  stop(signal: string, again: boolean): void {
    this.#control.stop(signal, again);
  }

  /** Runs it to its end. Never fails: what goes wrong is said in the result. */
  async run(): Promise<AgentEnd> {
    const { log } = this;
    if (!this.#prepared.ok) {
      const { message } = this.#prepared;
      log.error(message);
      return { ended: "failed", message };
    }
    const { folder } = this.#prepared;
    try {
      const end = await this.#runIn(folder);
      if (end.ended === "failed") log.error(end.message);
      return end;
    } catch (error) {
      // Mostly the disk: what the agent must remember it must be able to write.
      const message =
        `The agent cannot run: ${messageOf(error)}. If the disk of ${folder} is full ` +
        "or mounted without writing, make room there or mount it for writing";
      log.error(message);
      return { ended: "failed", message };
    }
  }

  async #runIn(folder: string): Promise<AgentEnd> {
    const { config, log } = this;
    const { clock, connections, tokenFile, wantsRelease, bootId, onJournal, controlGroups } =
      this.#shared;
    const board = this.#board = await createStatus({
      agentId: config.agent_id,
      version: VERSION,
      serverAddress: withoutUserinfo(config.server_address),
      configurationFile: resolve(this.#wanted.file),
      brokenConfiguration: () => this.#shared.broken(this.#wanted),
      logFile: resolve(config.logging_basedir, LOG_FILE_NAME),
      folder,
      clock,
      log,
      liveness: this.#liveness,
    });
    this.#sinks.push(board.sink, this.#doorOf(board, folder));
    const connectivity = new Connectivity(clock, log);
    const server = createServerClient({
      address: config.server_address,
      agentId: config.agent_id,
      tokenFile: config.token_file ?? tokenFile,
      clock,
      log,
      shared: connections,
      onAnswer: (ok, message) => {
        connectivity.report(ok, message);
        this.#emit({ type: "connectivity", ok, message });
      },
      onAccess: (problem) => {
        this.#emit({ type: "access", problem });
        if (problem === undefined) connectivity.retryNow();
      },
    });
    const over = new AbortController();
    watchFreeSpace([config.execution_basedir, folder], {
      lookAt: this.#shared.lookAtDisk,
      clock,
      emit: this.#emit,
      signal: over.signal,
    });
    const agentId = config.agent_id;
    this.#sinks.push(
      watchRequests({ agentId, folder, clock, emit: this.#emit, signal: over.signal }),
    );
    try {
      return await runAgent({
        config,
        folder,
        server,
        connectivity,
        clock,
        log,
        emit: this.#emit,
        control: this.#control,
        recentLog: () => this.#lines.recent(),
        setRedactor: (redact) => log.setRedactor(redact),
        wantsRelease: wantsRelease(),
        bootId,
        onJournal,
        controlGroups,
        lookAtDisk: this.#shared.lookAtDisk,
        deviceTrouble: async () => await this.#shared.deviceTrouble?.(config),
      });
    } finally {
      over.abort();
      server.close();
      await this.#socket?.close();
      await board.close();
    }
  }

  /**
   * Opens the socket at the first thing that the agent tells, which it does once its lock is held:
   * before, the socket may be another one's. From then on it can be asked, also while it recovers jobs.
   */
  #doorOf(board: StatusBoard, folder: string): Sink {
    const { clock, host } = this.#shared;
    return ({ type }) => {
      if (type === "mode") {
        if (this.#socket === undefined) rememberConfiguration(folder, this.#wanted.file);
        this.#socket ??= serveStatusSocket({ folder, board, host, clock, log: this.log });
      }
      if (type === "turned") this.#socket?.renew();
    };
  }

  /** Closes its log: nothing is said after that. */
  close(): void {
    this.#lines.close();
  }
}
