/**
 * The agents of a host in one process, and what there is once for all of them: the signals, the
 * console, systemd, InfluxDB, one endpoint. `testflinger-agent -c FILE` is a host with one agent.
 */
import { Said } from "../once.ts";
import { within } from "../wait.ts";
import type { ControlGroupsResult } from "../agent/context.ts";
import { sharedDisks } from "../agent/host_check.ts";
import { foldersOfJobs, prepareFolders } from "../agent/folders.ts";
import { type HostClock, systemClock } from "../clock.ts";
import { type AgentConfig, defaultConfig } from "../config/agent_config.ts";
import type { Log } from "../log.ts";
import { combineSinks, emitterOf, type Sink } from "../observe/events.ts";
import { hostStatus, type HostView } from "../observe/host_view.ts";
import { createInflux } from "../observe/influx.ts";
import { createLineStream } from "../observe/line_stream.ts";
import {
  type Console,
  consoleLines,
  createLog,
  createLogLines,
  lineOf,
  stderrIsJournal,
} from "../observe/agent_log.ts";
import type { PageActions } from "../observe/page_actions.ts";
import type { BrokenConfiguration } from "../observe/status_schema.ts";
import { createSystemd } from "../observe/systemd.ts";
import type { JournalHook } from "../outbox/journal.ts";
import { Connections } from "../server/connections.ts";
import { VERSION } from "../version.ts";
import { AgentPool, type PoolEnd, type PoolMember } from "./agent_pool.ts";
import {
  type BrokenFile,
  type ConfigurationRead,
  Configurations,
  type ConfigurationSource,
  type Look,
  type Wanted,
} from "./configurations.ts";
import type { HostedAgent } from "./hosted_agent.ts";
import { type Endpoint, openEndpoint } from "./endpoint.ts";
import { withLastResort } from "./last_resort.ts";
import type { Signals } from "./signals.ts";

/** How often the configurations are looked at. */
const LOOK_EVERY_MS = 10_000;

/** How long handing over waits for that. */
const LOOK_LIMIT_MS = 500;

/** Between an answer that says what comes, and that. */
const ANSWER_MS = 500;

/** What a host is made of. */
export interface HostOptions {
  source: ConfigurationSource;
  read(file: string): Promise<ConfigurationRead>;
  /** Of agents whose configuration names none. */
  tokenFile: string;
  /** Port of the endpoint; without it the first configuration's that names one. */
  port?: number | undefined;
  signals: Signals;
  clock: HostClock;
  /** Changes with each start of the host. @default the kernel's */
  bootId?: string | undefined;
  /** Told of what is written into the journals of jobs. */
  onJournal?: JournalHook | undefined;
  /** Makes the control groups of this process ready. */
  openControlGroups(): Promise<ControlGroupsResult>;
  /** Why an agent's device configuration cannot be used, on one line. @default nobody looks */
  deviceTrouble?: ((config: AgentConfig) => Promise<string | undefined>) | undefined;
  /** The file that is this program. */
  program: string;
  /** The exit status by which a supervisor knows that the process is to be started again. */
  restartStatus: number;
  /** Ends the process at once. */
  exit(status: number): void;
  /** From now on `handle` is told of errors that nobody has caught; without it they end the process. */
  onUncaught(handle: (error: unknown) => void): void;
}

/** Runs the agents of a host until all have ended. */
export async function runHost(options: HostOptions): Promise<PoolEnd> {
  const isOne = "files" in options.source && options.source.files.length === 1;
  const stream = createLineStream(Deno.stderr);
  const console: Console = {
    write: (line) => stream.write(line),
    isJournal: stderrIsJournal(),
    isShared: !isOne,
  };
  try {
    return await new Host(options, { isOne, console }).run();
  } finally {
    await stream.close();
  }
}

class Host {
  readonly #options: HostOptions;
  readonly #isOne: boolean;
  readonly #console: Console;
  readonly #configurations: Configurations;
  readonly #closing = new AbortController();
  /** The look at the configurations that goes on, or was the last. */
  #looking: Promise<void> = Promise.resolve();
  #broken: readonly BrokenFile[] = [];
  /** Of broken files. */
  readonly #said = new Said();
  #log: Log;
  #pool: AgentPool | undefined;
  #endpoint: Endpoint | undefined;
  #handOver = () => {};
  readonly #startedAt: number;
  /** How often the configurations were read again for a SIGHUP. */
  #reloads = 0;

  constructor(options: HostOptions, { isOne, console }: { isOne: boolean; console: Console }) {
    this.#options = options;
    this.#isOne = isOne;
    this.#console = console;
    this.#configurations = new Configurations(options.source, options.read, options.clock);
    this.#log = this.#consoleLog();
    this.#startedAt = options.clock.now();
  }

  async run(): Promise<PoolEnd> {
    const { clock, signals, exit, onUncaught, tokenFile, restartStatus, program } = this.#options;
    const look = await this.#configurations.look();
    const [first] = look.wanted.values();
    const lines = this.#isOne && first !== undefined ? this.#agentLines(first.config) : undefined;
    const log = this.#log;
    if (Deno.uid() === 0) {
      log.warning(
        "The agent runs as root, and so does everything in its jobs: run it as a separate user " +
          "(install.sh makes one)",
      );
    }
    // Who waits for the process to end does so by the clock on the wall.
    const lastResort = withLastResort({ signals, clock: systemClock, log, exit });
    const programAtStart = markOf(program);
    const connections = new Connections(clock);
    let sink: Sink = () => {};
    // Jobs wait for them; the first request for one does not.
    const controlGroups = this.#options.openControlGroups();
    const pool = this.#pool = new AgentPool({
      shared: {
        clock,
        console: this.#console,
        sink: (event) => sink(event),
        connections,
        tokenFile,
        wantsRelease: () => this.#endpoint !== undefined,
        host: () => hostStatus(this.#view(), clock.now()),
        broken: (wanted) => this.#brokenOf(wanted),
        bootId: this.#options.bootId,
        onJournal: this.#options.onJournal,
        deviceTrouble: this.#options.deviceTrouble,
        lookAtDisk: sharedDisks(
          [...look.wanted.values()].flatMap(({ config }) => foldersOfJobs(config)),
          clock,
        ),
        controlGroups,
      },
      log,
      startsAgain: !this.#isOne,
      look: () => this.#look(),
      onBegin: (config) => this.#endpoint?.add(config),
      onGone: (agentId) => this.#endpoint?.remove(agentId),
    });
    const systemd = createSystemd({ clock, log, trouble: () => whyAllHang(pool.members) });
    const influx = createInflux({ clock, log });
    await this.#openEndpoint(look);
    const served: Sink = (event) => this.#endpoint?.sink(event);
    const sinks = [lastResort.sink, pool.sink, systemd?.sink, influx?.sink, served];
    sink = combineSinks(sinks.filter((one) => one !== undefined), log);

    const over = () => systemd?.stopping();
    this.#handOver = () => {
      lastResort.leave(restartStatus);
      pool.handOver();
    };
    lastResort.signals.listen({
      restart: () => pool.restart(),
      stop: (signal, again) => {
        over();
        pool.stop(signal, again);
      },
      hangUp: () => {
        // An upgrade ends the process; what is in the files of several agents does not.
        const isUpgraded = markOf(program) !== programAtStart;
        if (!this.#isOne && !isUpgraded) {
          log.info("SIGHUP: the configurations are read again");
          return void this.#look({ all: true }).then(() => this.#reloads++);
        }
        void this.#whyNotHandOver().then((why) => {
          if (why !== undefined) {
            this.#reloads++;
            return log.error(`SIGHUP: the agent does not hand over: ${why}`);
          }
          log.info("SIGHUP: the agent hands over to the next process, and jobs go on");
          this.#handOver();
        });
      },
    });
    if (!this.#isOne) {
      // What goes wrong for one agent must not end the others.
      onUncaught((error) =>
        log.error(
          "Unexpected error in this process; please report this",
          {
            error: error instanceof Error ? error.stack ?? error.message : String(error),
          },
        )
      );
    }
    this.#take(look);
    if (!this.#isOne) systemd?.ready();
    const watching = this.#watch();
    try {
      return await pool.ended;
    } finally {
      over();
      this.#closing.abort();
      await watching;
      await this.#looking;
      connections.close();
      await this.#endpoint?.close();
      await influx?.close();
      await systemd?.close();
      const opened = await controlGroups;
      if (opened.ok) await opened.groups.release().catch(() => {});
      lastResort.over();
      lines?.close();
    }
  }

  /** Looks at the configurations now and then. */
  async #watch(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await this.#options.clock.sleep(LOOK_EVERY_MS, signal).catch(() => {});
      if (!signal.aborted) await this.#look();
    }
  }

  /** Looks at the configurations, one look after the other. */
  #look(options?: { all: boolean }): Promise<void> {
    const look = async () => {
      const found = await this.#configurations.look(options);
      // One agent's process takes up what has changed when it starts again, and not before.
      if (this.#isOne) return this.#takeBroken(found.broken);
      this.#take(found);
      await this.#openEndpoint(found);
    };
    return this.#looking = this.#looking.then(look).catch((error) =>
      this.#log.error("The configurations could not be looked at; it is tried again", {
        error: String(error),
      })
    );
  }

  /** Of one agent's process: without its file the next one cannot start. What cannot be read in time holds up nothing. */
  async #whyNotHandOver(): Promise<string | undefined> {
    if (!this.#isOne) return undefined;
    await within(this.#look({ all: true }), { clock: this.#options.clock, ms: LOOK_LIMIT_MS });
    const [broken] = this.#broken;
    return broken && `the next process could not start with ${broken.file} as it is now`;
  }

  #take({ wanted, broken, warnings }: Look): void {
    for (const warning of warnings) this.#log.warning(warning);
    this.#takeBroken(broken);
    const isEmpty = wanted.size === 0 && broken.length === 0;
    if (isEmpty && this.#said.isNew("empty")) {
      const where = "folder" in this.#options.source ? ` in ${this.#options.source.folder}` : "";
      this.#log.warning(
        `There is no agent's configuration${where}, so nothing runs: ` +
          "one that is put there is taken up within 10 s",
      );
    } else if (!isEmpty) this.#said.forget("empty");
    this.#pool?.want(wanted);
  }

  #takeBroken(broken: readonly BrokenFile[]): void {
    const before = this.#broken;
    this.#broken = broken;
    for (const { file, mistakes, agentId } of broken) {
      if (!this.#said.isNew(file, mistakes.join("\n"))) continue;
      const then = agentId === undefined
        ? "No agent runs for it"
        : `Agent ${agentId} keeps running with the previous configuration`;
      this.#log.error(`A configuration cannot be used. ${then}: ${mistakes.join("; ")}`);
    }
    for (const { file } of before) {
      if (broken.some((one) => one.file === file)) continue;
      this.#said.forget(file);
      this.#log.info(`The configuration ${file} is no longer in the way`);
    }
  }

  /** At the first port that is named, as soon as one is: one endpoint serves all. */
  async #openEndpoint({ wanted }: Look): Promise<void> {
    if (this.#endpoint !== undefined) return;
    const configs = [...wanted.values()].map(({ config }) => config);
    const { port = configs.find((config) => config.metrics_port !== undefined)?.metrics_port } =
      this.#options;
    if (port === undefined) return;
    const named = configs.find((config) => config.metrics_port === port) ?? configs[0];
    const others = configs.filter(({ metrics_port }) =>
      metrics_port !== undefined && metrics_port !== port
    );
    if (others.length > 0) {
      this.#log.warning("One port serves all agents of this process; the others are not opened", {
        port,
        not_opened: others.map(({ metrics_port }) => metrics_port).join(", "),
      });
    }
    this.#endpoint = await openEndpoint({
      host: named?.metrics_host ?? "127.0.0.1",
      port,
      view: this.#view(),
      clock: this.#options.clock,
      log: this.#log,
    });
    for (const { hosted } of this.#pool?.members ?? []) {
      if (hosted !== undefined) this.#endpoint.add(hosted.config);
    }
  }

  #view(): HostView {
    const defaults = defaultConfig();
    const viewOf = ({ wanted, hosted, trouble }: PoolMember) => ({
      agentId: wanted.config.agent_id,
      file: wanted.file,
      broken: this.#brokenOf(wanted),
      configuration: hosted?.config ?? wanted.config,
      defaults,
      board: hosted?.board,
      trouble,
      leaves: hosted?.leaves,
      actions: hosted && this.#actionsOf(hosted),
      jobPage: (jobId: string) => hosted?.jobPage(jobId),
    });
    return {
      version: VERSION,
      startedAt: this.#startedAt,
      reloads: () => this.#reloads,
      agents: () => this.#pool?.members.map(viewOf) ?? [],
      agent: (agentId) => {
        const member = this.#pool?.get(agentId);
        return member && viewOf(member);
      },
      broken: () =>
        this.#broken.map(({ agentId, ...one }) => ({
          file: one.file,
          ...inJson(one),
          ...(agentId !== undefined && { agent_id: agentId }),
        })),
    };
  }

  /** What is wrong by now with the file of an agent that runs on with its previous configuration. */
  #brokenOf({ file, config }: Wanted): BrokenConfiguration | undefined {
    const broken = this.#broken.find((one) => one.file === file && one.agentId === config.agent_id);
    return broken && inJson(broken);
  }

  #actionsOf(hosted: HostedAgent): PageActions | undefined {
    const { page_actions: areWanted, page_token_file: tokenFile } = hosted.config;
    if (!areWanted || tokenFile === undefined) return undefined;
    return {
      tokenFile,
      act: async (asked) => {
        if (asked.action !== "hand-over") return await hosted.act(asked);
        hosted.log.info("Asked for on the page: hand over");
        const why = await this.#whyNotHandOver();
        if (why !== undefined) throw new Error(why);
        // The answer is to be read before the process ends.
        this.#options.clock.sleep(ANSWER_MS).then(this.#handOver);
        return "The process hands over to the next one, which its supervisor starts; jobs go on.";
      },
    };
  }

  /** Lines of the process itself: of one agent's host they are the agent's. */
  #agentLines(config: AgentConfig): { close(): void } {
    const agentId = config.agent_id;
    const lines = createLogLines({
      agentId,
      // What cannot be trusted is told by the agent itself, and is not written into here either.
      folder: prepareFolders(config).ok ? config.logging_basedir : undefined,
      format: config.log_format,
      quiet: config.logging_quiet,
      console: this.#console,
    });
    const emit = emitterOf(agentId, { clock: this.#options.clock, sink: lines.sink });
    this.#log = createLog({ emit, level: config.logging_level });
    return lines;
  }

  #consoleLog(): Log {
    const say = consoleLines({ console: this.#console, format: "text", agentId: "" });
    const sink: Sink = (event) => {
      if (event.type === "log") say(lineOf(event));
    };
    return createLog({ emit: emitterOf("", { clock: this.#options.clock, sink }), level: "INFO" });
  }
}

function inJson({ since, mistakes }: BrokenFile): BrokenConfiguration {
  return { since: new Date(since).toISOString(), mistakes: [...mistakes] };
}

/** Another one for another file, or when it was written again. */
function markOf(file: string): string {
  try {
    const { dev, ino, mtime } = Deno.statSync(file);
    return `${dev} ${ino} ${mtime?.getTime()}`;
  } catch {
    return "";
  }
}

/** Why the process is thought to hang: each of its agents does. */
function whyAllHang(members: readonly PoolMember[]): string | undefined {
  const troubles = members.flatMap(({ hosted }) => hosted?.trouble() ?? []);
  return members.length > 0 && troubles.length === members.length ? troubles.join("; ") : undefined;
}
