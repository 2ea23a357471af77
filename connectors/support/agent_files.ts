/** The files by which a stage speaks to the agent: what is known of the device, and why the stage failed. */
import type { Log } from "../../lib/log.ts";
import { join } from "../../lib/path.ts";
import type { ConnectorContext, Stage } from "../context.ts";
import { fullMessageOf } from "./errors.ts";
import { writeInPlace } from "./files.ts";

const DEVICE_INFO_FILE = "device-info.json";

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
    await writeInPlace(join(cwd, DEVICE_INFO_FILE), JSON.stringify(info));
  } catch (error) {
    if (NEEDED_BY.includes(stage)) throw error;
    log.warning(fullMessageOf(error));
  }
}

const ERROR_FILE = "device-connector-error.json";

/**
 * Leaves the reason of a failure for the agent. The file is one JSON object; it is rewritten in
 * place, since in a container it is a mount that cannot be replaced. Never throws: a failure to
 * write must not hide the failure that is written about.
 */
export async function recordFailure(
  { cwd, log }: { readonly cwd: string; readonly log: Log },
  failure: { readonly stage: Stage; readonly error: unknown },
): Promise<void> {
  const path = join(cwd, ERROR_FILE);
  const info = exceptionInfo(failure.error);
  // The agent calls the phase `test`.
  const names = failure.stage === "runtest" ? ["runtest", "test"] : [failure.stage];
  const entries = Object.fromEntries(names.map((name) => [`${name}_exception_info`, info]));
  try {
    const content = { ...await existing(path), ...entries };
    await writeInPlace(path, JSON.stringify(content));
  } catch (error) {
    log.error(fullMessageOf(error));
  }
}

async function existing(path: string): Promise<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(await Deno.readTextFile(path));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : {};
  } catch {
    // Absent, empty (as the agent makes it), or written by another program: start again.
    return {};
  }
}

function exceptionInfo(error: unknown): Record<string, string | null> {
  const cause = error instanceof Error ? error.cause : undefined;
  return {
    exception_name: nameOf(error),
    exception_message: fullMessageOf(error).trim() || nameOf(error),
    exception_cause: cause === undefined || cause === null
      ? null
      : `${nameOf(cause)}('${fullMessageOf(cause).trim()}')`,
  };
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : "Error";
}
