import { join } from "node:path";
import type { ConnectorContext } from "../context.ts";
import { messageOf } from "./errors.ts";
import { rewriteFile } from "./files.ts";

const FILE_NAME = "device-info.json";

/** Stages after which the agent tells others where the device is. */
const NEEDED_BY: readonly string[] = ["provision", "allocate"];

/**
 * Writes `device-info.json`, for the agent, in place.
 *
 * @throws Error when it cannot be written in a stage whose point it is; elsewhere that is logged.
 */
export async function writeDeviceInfo(
  { config, cwd, log, stage }: Pick<ConnectorContext, "config" | "cwd" | "log" | "stage">,
): Promise<void> {
  const info = {
    device_info: {
      ...(config.device_ip ? { device_ip: config.device_ip } : {}),
      ...(config.agent_name ? { agent_name: config.agent_name } : {}),
    },
  };
  try {
    await rewriteFile(join(cwd, FILE_NAME), JSON.stringify(info));
  } catch (error) {
    if (NEEDED_BY.includes(stage)) throw error;
    log.warning(messageOf(error));
  }
}
