/** `testflinger-agent -c FILE`: runs the agent. */
import { runAgent } from "../agent/agent.ts";
import { systemClock } from "../clock.ts";
import { type AgentConfig, loadAgentConfig } from "../config/agent_config.ts";
import { formatMistake } from "../config/mistake.ts";
import { createInflux } from "../observe/influx.ts";
import { createAgentLog, stderrIsJournal } from "../observe/log.ts";
import { combineObservers, noObserver, type Observer } from "../observe/observer.ts";
import { createPulse } from "../observe/pulse.ts";
import { createSystemd } from "../observe/systemd.ts";
import { Contact } from "../outbox/contact.ts";
import { createServerClient } from "../server/client.ts";
import type { Command, CommandLine, Io } from "./command.ts";

const DEFAULT_CONFIG = "testflinger-agent.conf";
const DEFAULT_TOKEN_FILE = "/var/lib/testflinger-agent/refresh_token";

/** The configuration is wrong: nothing was done. */
const CONFIG_STATUS = 2;

/** Bare `testflinger-agent`. */
export const agentCommand: Command = {
  name: "",
  summary: "Runs the agent until it is told to stop or to restart.",
  positionals: { least: 0, most: 0 },
  flags: [
    {
      name: "config",
      short: "c",
      value: "FILE",
      help: `configuration of the agent (default: ${DEFAULT_CONFIG})`,
    },
    {
      name: "metrics-port",
      short: "p",
      aliases: ["metrics_port"],
      value: "N",
      help: "serve metrics and the status page on this port",
    },
    {
      name: "token-file",
      value: "FILE",
      help: `JSON with the refresh_token (default: ${DEFAULT_TOKEN_FILE})`,
    },
  ],
  examples: [
    { line: "testflinger-agent -c rpi4.conf", does: "run the agent that rpi4.conf describes" },
  ],
  run: runCommand,
};

/** Reads the configuration; what is wrong with it goes to standard error. */
export async function readConfig(file: string, io: Io): Promise<AgentConfig | undefined> {
  const result = await loadAgentConfig(file);
  if (result.ok) {
    for (const warning of result.warnings) io.stderr(`warning: ${formatMistake(warning)}\n`);
    return result.value;
  }
  for (const mistake of result.mistakes) io.stderr(`${formatMistake(mistake)}\n`);
  const { length } = result.mistakes;
  io.stderr(
    `${length === 1 ? "One mistake" : `${length} mistakes`} in ${file}; nothing was done.\n`,
  );
  return undefined;
}

async function runCommand(line: CommandLine, io: Io): Promise<number> {
  const read = await readConfig(line.values.config ?? DEFAULT_CONFIG, io);
  if (read === undefined) return CONFIG_STATUS;
  const config = withPort(read, line.values["metrics-port"]);
  if (config === undefined) {
    io.stderr(`--metrics-port must be a number from 1 to 65535: ${line.values["metrics-port"]}\n`);
    return CONFIG_STATUS;
  }
  return await runConfigured(config, line.values["token-file"] ?? DEFAULT_TOKEN_FILE, io);
}

function withPort(config: AgentConfig, port: string | undefined): AgentConfig | undefined {
  if (port === undefined) return config;
  const number = Number(port);
  if (!Number.isInteger(number) || number < 1 || number > 65535) return undefined;
  return { ...config, metrics_port: number };
}

async function runConfigured(config: AgentConfig, tokenFile: string, io: Io): Promise<number> {
  const clock = systemClock;
  const agentLog = await createAgentLog({
    level: config.logging_level,
    quiet: config.logging_quiet,
    folder: config.logging_basedir,
    format: config.log_format,
    agentId: config.agent_id,
    underSystemd: stderrIsJournal(),
  });
  const { log } = agentLog;
  const contact = new Contact(clock, log);
  const pulse = createPulse({ clock });
  const systemd = createSystemd({ clock, log, pulse });
  const influx = createInflux({ agentId: config.agent_id, clock, log });
  const watchers: Observer[] = [
    ...(systemd === undefined ? [] : [systemd.observer]),
    ...(influx === undefined ? [] : [influx.observer]),
  ];
  const observer = watchers.length === 0 ? noObserver : combineObservers(watchers, log);
  const server = createServerClient({
    address: config.server_address,
    agentId: config.agent_id,
    tokenFile,
    clock,
    log,
    onContact: (ok) => {
      contact.report(ok);
      observer.contact(ok);
    },
  });
  try {
    const end = await runAgent({
      config,
      server,
      contact,
      clock,
      log,
      observer,
      signals: io.signals,
      recentLog: () => agentLog.recent(),
      setRedactor: (redact) => agentLog.setRedactor(redact),
      wantsRelease: config.metrics_port !== undefined,
      onTurn: () => pulse.beat(),
    });
    if (end.ended === "failed") log.error(end.message);
    return end.ended === "stopped" ? 0 : 1;
  } finally {
    server.close();
    await influx?.close();
    await systemd?.close();
    await agentLog.close();
  }
}
