/** Whether an agent's device configuration can be used, looked at again when the file has changed. */
import { basename } from "node:path";
import type { AgentConfig } from "../config/agent_config.ts";
import { formatMistake } from "../config/mistake.ts";
import { connectorCalls } from "./check/connector_calls.ts";

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
