/** The agent as a command runs it: its configuration, everything that is told what it does, its end. */
import { resolve } from "node:path";
import { type AgentEnd, runAgent } from "../agent/agent.ts";
import { prepareFolders } from "../agent/folders.ts";
import { type Clock, scaledClock, systemClock } from "../clock.ts";
import { type AgentConfig, loadAgentConfig } from "../config/agent_config.ts";
import { formatMistake, sourceLines } from "../config/mistake.ts";
import { withoutUserinfo } from "../observe/configuration_view.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { createInflux } from "../observe/influx.ts";
import { createAgentLog, LOG_FILE_NAME, stderrIsJournal } from "../observe/log.ts";
import { combineObservers, noObserver, type Observer } from "../observe/observer.ts";
import { createPulse } from "../observe/liveness.ts";
import { createStatus, type StatusBoard } from "../observe/status.ts";
import { serveStatusSocket, type StatusSocket } from "../observe/status_socket.ts";
import { createSystemd } from "../observe/systemd.ts";
import { createTransferLog } from "../observe/transfer_log.ts";
import { Connectivity } from "../outbox/connectivity.ts";
import { createServerClient } from "../server/client.ts";
import { VERSION } from "../version.ts";
import { type CommandLine, DEFAULT_CONFIG, type Io } from "./command.ts";
import { DEFAULT_TOKEN_FILE } from "./defaults.ts";
import { withLastResort } from "./last_resort.ts";
import { connectorMistake, withConnectorCommands } from "./connector_commands.ts";

/** How many times faster than the wall's the agent's clock runs; only tests set it. */
const CLOCK_FACTOR_VARIABLE = "TESTFLINGER_AGENT_CLOCK_FACTOR";

/** It could not start; also, by default, a restart: supervisors start again what ends with it. */
const FAILED_STATUS = 1;
/** The configuration is wrong: nothing was done. */
const CONFIG_STATUS = 2;

/** Reads the configuration; what is wrong with it goes to standard error. */
export async function readConfig(file: string, io: Io): Promise<AgentConfig | undefined> {
  const result = await loadAgentConfig(file);
  const wrongConnector = await connectorMistake(result.ok ? result.value : result.valid);
  const mistakes = [
    ...result.ok ? [] : result.mistakes,
    ...wrongConnector === undefined ? [] : [{
      file,
      ...result.placeOf(["connector"]),
      path: "connector",
      message: wrongConnector,
    }],
  ];
  if (result.ok && mistakes.length === 0) {
    for (const warning of result.warnings) io.stderr(`warning: ${formatMistake(warning)}\n`);
    return withConnectorCommands(result.value, file, result.given);
  }
  for (const mistake of mistakes) io.stderr(`${formatMistake(mistake)}\n${sourceLines(mistake)}`);
  const { length } = mistakes;
  io.stderr(
    `${length === 1 ? "One mistake" : `${length} mistakes`} in ${file}; nothing was done.\n`,
  );
  return undefined;
}

/** Runs the agent that the command line describes; resolves with the exit status. */
export async function runCommand(line: CommandLine, io: Io): Promise<number> {
  const file = line.values.config ?? DEFAULT_CONFIG;
  const read = await readConfig(file, io);
  if (read === undefined) return CONFIG_STATUS;
  const config = withPort(read, line.values["metrics-port"]);
  if (config === undefined) {
    io.stderr(`--metrics-port must be a number from 1 to 65535: ${line.values["metrics-port"]}\n`);
    return CONFIG_STATUS;
  }
  const restartStatus = Number(line.values["restart-status"] ?? FAILED_STATUS);
  if (!Number.isInteger(restartStatus) || restartStatus < 1 || restartStatus > 255) {
    io.stderr(
      `--restart-status must be a number from 1 to 255: ${line.values["restart-status"]}\n`,
    );
    return CONFIG_STATUS;
  }
  const tokenFile = line.values["token-file"] ?? DEFAULT_TOKEN_FILE;
  const end = await runConfigured(config, { file, tokenFile }, io);
  return { stopped: 0, failed: FAILED_STATUS, restart: restartStatus }[end];
}

function clockOf(factor: string | undefined): Clock {
  const number = Number(factor);
  return number > 0 ? scaledClock(number) : systemClock;
}

function withPort(config: AgentConfig, port: string | undefined): AgentConfig | undefined {
  if (port === undefined) return config;
  const number = Number(port);
  if (!Number.isInteger(number) || number < 1 || number > 65535) return undefined;
  return { ...config, metrics_port: number };
}

async function runConfigured(
  config: AgentConfig,
  { file, tokenFile }: { file: string; tokenFile: string },
  io: Io,
): Promise<AgentEnd["ended"]> {
  const clock = clockOf(Deno.env.get(CLOCK_FACTOR_VARIABLE));
  // First of all: nothing is written into a folder that cannot be trusted.
  const prepared = prepareFolders(config);
  const agentLog = await createAgentLog({
    level: config.logging_level,
    quiet: prepared.ok && config.logging_quiet,
    folder: prepared.ok ? config.logging_basedir : undefined,
    format: config.log_format,
    agentId: config.agent_id,
    underSystemd: stderrIsJournal(),
  });
  const { log } = agentLog;
  if (!prepared.ok) {
    log.error(prepared.message);
    await agentLog.close();
    return "failed";
  }
  if (Deno.uid() === 0) {
    log.warning(
      "The agent runs as root, and so does everything in its jobs: let it run as a user of its own " +
        "(install.sh makes one)",
    );
  }
  const watchers = await watch(config, { file, folder: prepared.folder, clock, log });
  const lastResort = withLastResort({ signals: io.signals, clock, log, exit: Deno.exit });
  const observer = combineObservers([lastResort.observer, watchers.observer], log);
  const connectivity = new Connectivity(clock, log);
  const server = createServerClient({
    address: config.server_address,
    agentId: config.agent_id,
    tokenFile,
    clock,
    log,
    onContact: (ok, message) => {
      connectivity.report(ok, message);
      observer.connectivity(ok, message);
    },
    onAccess: (problem) => {
      observer.access(problem);
      if (problem === undefined) connectivity.retryNow();
    },
  });
  try {
    const end = await runAgent({
      config,
      folder: prepared.folder,
      server,
      connectivity,
      clock,
      log,
      observer,
      signals: lastResort.signals,
      recentLog: () => agentLog.recent(),
      setRedactor: (redact) => agentLog.setRedactor(redact),
      wantsRelease: config.metrics_port !== undefined,
      onTurn: watchers.turned,
    });
    if (end.ended === "failed") log.error(end.message);
    return end.ended;
  } catch (error) {
    // Mostly the disk: what the agent must remember it must be able to write.
    log.error(
      `The agent cannot run: ${
        messageOf(error)
      }. If the disk of ${prepared.folder} is full or mounted ` +
        "without writing, make room there or mount it for writing",
    );
    return "failed";
  } finally {
    server.close();
    await watchers.close();
    await agentLog.close();
    lastResort.over();
  }
}

/** Everything that is told what the agent does. */
interface Watchers {
  observer: Observer;
  /** The agent's loop turned. */
  turned(): void;
  close(): Promise<void>;
}

async function watch(
  config: AgentConfig,
  { file, folder, clock, log }: { file: string; folder: string; clock: Clock; log: Log },
): Promise<Watchers> {
  const agentId = config.agent_id;
  const liveness = createPulse({ clock });
  const systemd = createSystemd({ clock, log, liveness });
  const transferLog = { observer: createTransferLog({ clock, log }) };
  const influx = createInflux({ agentId, clock, log });
  const board = await createStatus({
    agentId,
    version: VERSION,
    serverAddress: withoutUserinfo(config.server_address),
    configurationFile: resolve(file),
    logFile: resolve(config.logging_basedir, LOG_FILE_NAME),
    folder,
    clock,
    log,
    liveness,
  });
  const health = config.metrics_port === undefined
    ? undefined
    : await serveMetrics(config, config.metrics_port, { board, clock, log });
  let socket: StatusSocket | undefined;
  const door = {
    observer: {
      ...noObserver,
      // The first thing that an agent tells, which it does once its lock is held: before, the socket
      // may be another one's. From then on it can be asked, also while it recovers jobs.
      mode() {
        socket ??= serveStatusSocket({ folder, board, clock, log });
      },
    },
  };
  const observers = [door, liveness, board, systemd, influx, transferLog, health]
    .flatMap((part) => part === undefined ? [] : [part.observer]);
  return {
    observer: combineObservers(observers, log),
    turned() {
      systemd?.ready();
      liveness.beat();
      socket?.renew();
    },
    async close() {
      await socket?.close();
      await health?.close();
      await influx?.close();
      await systemd?.close();
      await board.close();
    },
  };
}

/** Metrics and the status page. They are loaded only where they are wanted: it takes its time. */
async function serveMetrics(
  config: AgentConfig,
  port: number,
  parts: { board: StatusBoard; clock: Clock; log: Log },
): Promise<{ observer: Observer; close(): Promise<void> }> {
  const { createMetrics } = await import("../observe/metrics.ts");
  const { serveHealth } = await import("../observe/health.ts");
  const metrics = await createMetrics({
    agentId: config.agent_id,
    identifier: config.identifier ?? "",
    version: VERSION,
    clock: parts.clock,
  });
  const health = serveHealth({
    ...parts,
    host: config.metrics_host,
    port,
    metrics,
    configuration: config,
  });
  return { observer: metrics.observer, close: () => health.close() };
}
