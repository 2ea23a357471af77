/** `testflinger-agent -c FILE`, and `testflinger-agent run`: agents run by a host until all have ended. */
import { systemClock } from "../clock.ts";
import type { ConfigurationRead, ConfigurationSource } from "../host/configurations.ts";
import { messageOf } from "../message.ts";
import {
  type Command,
  type CommandLine,
  DEFAULT_CONFIG,
  DEFAULT_TOKEN_FILE,
  type Flag,
  type Io,
  selfCommand,
} from "./command.ts";

const FLAGS: readonly Flag[] = [
  {
    name: "config",
    short: "c",
    value: "FILE",
    repeats: true,
    help: `configuration of an agent (default: ${DEFAULT_CONFIG})`,
  },
  {
    name: "config-dir",
    value: "DIR",
    help: "run an agent for each DIR/*.conf and DIR/NAME/testflinger-agent.conf, in one process",
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
    help:
      `JSON with the refresh_token, for agents without a token_file (default: ${DEFAULT_TOKEN_FILE})`,
  },
  {
    name: "restart-status",
    value: "N",
    help: "exit status for a requested restart (default: 1)",
  },
];

const shared = {
  positionals: { least: 0, most: 0 },
  flags: FLAGS,
  run: runAgents,
};

/** The agents of a host in one process. */
export const hostCommand: Command = {
  ...shared,
  name: "run",
  summary: "Runs agents until they are told to stop or to restart; several in one process.",
  examples: [
    {
      line: "testflinger-agent run --config-dir /etc/testflinger-agent",
      does: "run all agents of this host in one process",
    },
    { line: "testflinger-agent run -c a.conf -c b.conf", does: "run these two in one process" },
  ],
};

/** Bare `testflinger-agent`. */
export const agentCommand: Command = {
  ...shared,
  name: "",
  summary: "Runs the agent until it is told to stop or to restart.",
  examples: [
    { line: "testflinger-agent -c rpi4.conf", does: "run the agent that rpi4.conf describes" },
  ],
};

/** It could not start; also, by default, a restart: supervisors start again what ends with it. */
const FAILED_STATUS = 1;
/** The configuration is wrong: nothing was done. */
const CONFIG_STATUS = 2;
const HIGHEST_PORT = 65_535;
const HIGHEST_STATUS = 255;

/**
 * Runs the agents that the command line names; resolves with the exit status. What only this command needs
 * is loaded here: the others, a phase's connector above all, start faster without it.
 */
async function runAgents(line: CommandLine, io: Io): Promise<number> {
  const source = await sourceOf(line, io);
  if (source === undefined) return CONFIG_STATUS;
  const port = numberOf(line, "metrics-port", { most: HIGHEST_PORT, io });
  const restartStatus = numberOf(line, "restart-status", { most: HIGHEST_STATUS, io });
  if (port === "wrong" || restartStatus === "wrong") return CONFIG_STATUS;
  const read = await readerOf(source, io);
  if (read === undefined) return CONFIG_STATUS;
  const { createDeviceCheck } = await import("./read_config.ts");
  const { ControlGroups } = await import("../process/cgroup.ts");
  const { runHost } = await import("../host/host.ts");
  const end = await runHost({
    source,
    read,
    tokenFile: line.values["token-file"] ?? DEFAULT_TOKEN_FILE,
    port,
    signals: io.signals,
    clock: systemClock,
    deviceTrouble: createDeviceCheck(),
    openControlGroups: () => ControlGroups.open(),
    ...io.host,
    program: selfCommand()[0] ?? "",
    restartStatus: restartStatus ?? FAILED_STATUS,
    exit: Deno.exit,
    onUncaught: (handle) => io.onUncaught?.(handle),
  });
  return { stopped: 0, failed: FAILED_STATUS, restart: restartStatus ?? FAILED_STATUS }[end];
}

/** Where the configurations are; what is wrong with that is told. */
async function sourceOf(line: CommandLine, io: Io): Promise<ConfigurationSource | undefined> {
  const folder = line.values["config-dir"];
  const files = line.lists.config ?? [];
  if (folder === undefined) return { files: files.length > 0 ? files : [DEFAULT_CONFIG] };
  if (files.length > 0) {
    io.stderr("--config-dir and --config cannot be given both\n");
    return undefined;
  }
  try {
    for await (const _ of Deno.readDir(folder)) break;
    return { folder };
  } catch (error) {
    io.stderr(`--config-dir must be a folder that can be read: ${messageOf(error)}\n`);
    return undefined;
  }
}

/**
 * How the host reads its configurations. The one of a single agent is read here, so that what is
 * wrong with it is shown where it stands, and nothing is begun.
 */
async function readerOf(
  source: ConfigurationSource,
  io: Io,
): Promise<((file: string) => Promise<ConfigurationRead>) | undefined> {
  const { readConfig, readForHost } = await import("./read_config.ts");
  if (!("files" in source) || source.files.length !== 1) return readForHost;
  const config = await readConfig(source.files[0] ?? "", io);
  if (config === undefined) return undefined;
  let isRead = false;
  return (file) => {
    if (isRead) return readForHost(file);
    isRead = true;
    return Promise.resolve({ ok: true, config, warnings: [] });
  };
}

function numberOf(
  line: CommandLine,
  name: string,
  { most, io }: { most: number; io: Io },
): number | undefined | "wrong" {
  const text = line.values[name];
  if (text === undefined) return undefined;
  const number = Number(text);
  if (Number.isInteger(number) && number >= 1 && number <= most) return number;
  io.stderr(`--${name} must be a number from 1 to ${most}: ${text}\n`);
  return "wrong";
}
