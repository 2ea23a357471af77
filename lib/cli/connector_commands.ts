/**
 * With `connector` in an agent's configuration, phases without a command run the built-in device
 * connector, as a child process of this same program.
 */
import { dirname, resolve } from "node:path";
import type { AgentConfig } from "../config/agent_config.ts";
import type { Phase } from "../phases.ts";
import type { Stage } from "../../connectors/context.ts";
import { selfCommand, shellCommand } from "./self.ts";

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

/** What it comes to; `message` is one line. */
export type ConnectorCommands = { ok: true; config: AgentConfig } | { ok: false; message: string };

/**
 * Fills in the commands that the file does not give.
 *
 * @param file the configuration file: `connector_config` is looked for beside it.
 * @param given the keys that stand in the file; an empty command there still skips its phase.
 */
export async function withConnectorCommands(
  config: AgentConfig,
  file: string,
  given: ReadonlySet<string>,
): Promise<ConnectorCommands> {
  const { connector, connector_config } = config;
  if (connector === undefined || connector_config === undefined) return { ok: true, config };
  const { CONNECTOR_NAMES } = await import("../../connectors/registry.ts");
  if (!CONNECTOR_NAMES.includes(connector)) {
    const names = CONNECTOR_NAMES.join(", ");
    return { ok: false, message: `${file}: connector: there is no '${connector}', only ${names}` };
  }
  const deviceFile = resolve(dirname(file), connector_config);
  const filled = { ...config, connector_config: deviceFile };
  for (const [phase, stage] of Object.entries(STAGES)) {
    const key = `${phase}_command`;
    if (given.has(key)) continue;
    const argv = [...selfCommand(), "device-connector", connector, stage, "-c", deviceFile];
    Object.assign(filled, { [key]: `exec ${shellCommand([...argv, "testflinger.json"])}` });
  }
  return { ok: true, config: filled };
}
