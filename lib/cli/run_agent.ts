/** The agents that a command line names, run by a host until all have ended. */
import { systemClock } from "../clock.ts";
import type { ConfigurationRead, ConfigurationSource } from "../host/configurations.ts";
import { runHost } from "../host/host.ts";
import { messageOf } from "../message.ts";
import { ControlGroups } from "../process/cgroup.ts";
import { type CommandLine, DEFAULT_CONFIG, DEFAULT_TOKEN_FILE, type Io } from "./command.ts";
import { createDeviceCheck } from "./device_trouble.ts";
import { readConfig, readForHost } from "./read_config.ts";
import { selfCommand } from "./self.ts";

/** It could not start; also, by default, a restart: supervisors start again what ends with it. */
const FAILED_STATUS = 1;
/** The configuration is wrong: nothing was done. */
const CONFIG_STATUS = 2;
const HIGHEST_PORT = 65_535;
const HIGHEST_STATUS = 255;

/** Runs the agents that the command line names; resolves with the exit status. */
export async function runAgents(line: CommandLine, io: Io): Promise<number> {
  const source = await sourceOf(line, io);
  if (source === undefined) return CONFIG_STATUS;
  const port = numberOf(line, "metrics-port", { most: HIGHEST_PORT, io });
  const restartStatus = numberOf(line, "restart-status", { most: HIGHEST_STATUS, io });
  if (port === "wrong" || restartStatus === "wrong") return CONFIG_STATUS;
  const read = await readerOf(source, io);
  if (read === undefined) return CONFIG_STATUS;
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
  if (!("files" in source) || source.files.length !== 1) return readForHost;
  const config = await readConfig(source.files[0] ?? "", io);
  return config && (() => Promise.resolve({ ok: true, config, warnings: [] }));
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
