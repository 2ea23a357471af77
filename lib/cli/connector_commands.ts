/**
 * With `connector` in an agent's configuration, phases without a command run the built-in device
 * connector, as a child process of this same program.
 */
import { dirname, resolve } from "node:path";
import type { AgentConfig } from "../config/agent_config.ts";
import { didYouMean, quoted } from "../config/mistake.ts";
import type { Phase } from "../phases.ts";
import type { Stage } from "../../connectors/context.ts";
import { shellCommand } from "../shell.ts";
import { selfCommand } from "./self.ts";

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
 * @param given the keys that stand in the file; an empty command there still skips its phase.
 */
export function withConnectorCommands(
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
