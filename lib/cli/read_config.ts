/**
 * An agent's configuration as it is run: with the connector's commands, and the device's file next to it,
 * which can be used or not.
 */
import type { Stage } from "../../connectors/context.ts";
import { type AgentConfig, loadAgentConfig } from "../config/agent_config.ts";
import { didYouMean, formatMistake, type Mistake, quoted, sourceLines } from "../config/mistake.ts";
import type { ConfigurationRead } from "../host/configurations.ts";
import { basename, dirname, join, resolve } from "../path.ts";
import type { Phase } from "../phases.ts";
import { shellCommand } from "../shell.ts";
import { connectorCalls } from "./check/phase_commands.ts";
import { type Io, selfCommand } from "./command.ts";

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

// With `connector` in an agent's configuration, phases without a command run the built-in device
// connector, as a child process of this same program.

/** The stage of a connector that runs a phase. */
const STAGES: Record<Phase, Stage> = {
  setup: "setup",
  provision: "provision",
  firmware_update: "firmware_update",
  test: "runtest",
  allocate: "allocate",
  reserve: "reserve",
  cleanup: "cleanup",
};

/** What is wrong with the keys `connector` and `connector_config`, in one line. */
export async function connectorMistake(
  { connector, connector_config }: Partial<AgentConfig>,
): Promise<string | undefined> {
  if (connector === undefined) return undefined;
  const { CONNECTOR_NAMES, loadConnector } = await import(
    "../../connectors/registry.ts"
  );
  const found = await loadConnector(connector);
  if (found === undefined) {
    const meant = didYouMean(connector, CONNECTOR_NAMES);
    return `there is no device connector ${quoted(connector)}, ` +
      (meant === undefined
        ? `there are: ${CONNECTOR_NAMES.join(", ")}`
        : `did you mean ${quoted(meant)}?`);
  }
  if (connector_config !== undefined || found.configOptional) return undefined;
  return `${quoted(connector)} must come with connector_config, the device's own file`;
}

/**
 * Fills in the commands that the file does not give, for a connector that exists.
 *
 * @param file the configuration file: `connector_config` is looked for next to it.
 * @param given the keys that the file has; an empty command there still skips its phase.
 */
function withConnectorCommands(
  config: AgentConfig,
  file: string,
  given: ReadonlySet<string>,
): AgentConfig {
  const { connector, connector_config } = config;
  if (connector === undefined) return config;
  const deviceFile = connector_config && resolve(dirname(file), connector_config);
  const filled = { ...config, ...deviceFile !== undefined && { connector_config: deviceFile } };
  for (const [phase, stage] of Object.entries(STAGES)) {
    const key = `${phase}_command`;
    if (given.has(key)) continue;
    const argv = [
      ...[...selfCommand(), "device-connector", connector, stage],
      ...deviceFile === undefined ? [] : ["-c", deviceFile],
      "testflinger.json",
    ];
    Object.assign(filled, { [key]: `exec ${shellCommand(argv)}` });
  }
  return filled;
}

/**
 * Makes what tells why the device configuration of an agent with the key `connector` cannot be used: one
 * line, with file, line and key; undefined while it can.
 */
export function createDeviceCheck(): (config: AgentConfig) => Promise<string | undefined> {
  const known = new Map<string, { stamp: string; trouble: string | undefined }>();
  return async (config) => {
    const { connector, connector_config: file } = config;
    if (connector === undefined || file === undefined) return undefined;
    const stamp = await stampOf(file);
    const key = JSON.stringify([config.agent_id, connector, file]);
    const last = known.get(key);
    if (last?.stamp === stamp) return last.trouble;
    const trouble = await troubleOf(config, { connector, file });
    known.set(key, { stamp, trouble });
    return trouble;
  };
}

/** What changes with the file. */
async function stampOf(file: string): Promise<string> {
  return await Deno.stat(file).then(
    ({ mtime, size, ino }) => JSON.stringify([mtime, size, ino]),
    () => "not there",
  );
}

async function troubleOf(
  config: AgentConfig,
  { connector: name, file }: { connector: string; file: string },
): Promise<string | undefined> {
  const { checkDevice } = await import("./check/device_file.ts");
  const { loadConnector } = await import("../../connectors/registry.ts");
  // By now the phases without a command have the connector's.
  const provisions = connectorCalls({ provision_command: config.provision_command }, file)
    .some((call) => call.connector === name && call.stage === "provision");
  const mistakes = (await checkDevice(file, { connector: await loadConnector(name), provisions }))
    .filter(({ severity }) => severity === "mistake");
  const [first] = mistakes;
  if (first === undefined) return undefined;
  const more = mistakes.length === 1 ? "" : ` (and ${mistakes.length - 1} more)`;
  return `${formatMistake({ ...first, file: basename(file) })}${more}`;
}
