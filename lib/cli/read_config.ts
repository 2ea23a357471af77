/** An agent's configuration as it is run: with the connector's commands, and the device's file next to it. */
import { dirname, join } from "node:path";
import { type AgentConfig, loadAgentConfig } from "../config/agent_config.ts";
import { formatMistake, type Mistake, sourceLines } from "../config/mistake.ts";
import type { ConfigurationRead } from "../host/configurations.ts";
import type { Io } from "./command.ts";
import { connectorMistake, withConnectorCommands } from "./connector_commands.ts";

/** The device's file, in a folder that an agent has for itself. */
const DEVICE_FILE = "default.yaml";

type Read =
  | { ok: true; config: AgentConfig; warnings: readonly Mistake[] }
  | { ok: false; mistakes: readonly Mistake[] };

/** Reads the configuration; what is wrong with it goes to standard error. */
export async function readConfig(file: string, io: Io): Promise<AgentConfig | undefined> {
  const read = await readFile(file);
  if (read.ok) {
    for (const warning of read.warnings) io.stderr(`warning: ${formatMistake(warning)}\n`);
    return read.config;
  }
  const { mistakes } = read;
  for (const mistake of mistakes) io.stderr(`${formatMistake(mistake)}\n${sourceLines(mistake)}`);
  const { length } = mistakes;
  io.stderr(
    `${length === 1 ? "One mistake" : `${length} mistakes`} in ${file}; nothing was done.\n`,
  );
  return undefined;
}

/** Reads the configuration for a host, which says itself what is wrong with it. */
export async function readForHost(file: string): Promise<ConfigurationRead> {
  const read = await readFile(file);
  return read.ok
    ? { ok: true, config: read.config, warnings: read.warnings.map(formatMistake) }
    : { ok: false, mistakes: read.mistakes.map(formatMistake) };
}

async function readFile(file: string): Promise<Read> {
  const result = await loadAgentConfig(file);
  const config = await withDeviceFile(result.ok ? result.value : result.valid, file);
  const wrongConnector = await connectorMistake(config);
  const mistakes: Mistake[] = [
    ...result.ok ? [] : result.mistakes,
    ...wrongConnector === undefined ? [] : [{
      file,
      ...result.placeOf(["connector"]),
      path: "connector",
      message: wrongConnector,
    }],
  ];
  if (!result.ok || mistakes.length > 0) return { ok: false, mistakes };
  const whole = { ...result.value, ...config };
  return {
    ok: true,
    config: withConnectorCommands(whole, file, result.given),
    warnings: result.warnings,
  };
}

/** The established host charm has the device's file next to the agent's. */
export async function withDeviceFile<Config extends Partial<AgentConfig>>(
  config: Config,
  file: string,
): Promise<Config> {
  if (config.connector === undefined || config.connector_config !== undefined) return config;
  const isThere = await Deno.stat(join(dirname(file), DEVICE_FILE))
    .then(({ isFile }) => isFile, () => false);
  return isThere ? { ...config, connector_config: DEVICE_FILE } : config;
}
