/**
 * The files through which a device connector speaks to the agent. A job's own commands can write
 * them too, so they are read with care: regular files only, and no more than is reasonable.
 */
import { join } from "../path.ts";
import type { Phase } from "../phases.ts";
import { readSmallFile } from "./untrusted_paths.ts";

/** Either file is a few hundred bytes. */
const LARGEST_FILE_BYTES = 1024 * 1024;

/** A server's store takes no more. */
const DEEPEST = 100;

type JsonObject = Record<string, unknown>;

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether nesting goes deeper than anybody means it: a program that walks down there runs out of stack. */
function isDeep(value: object): boolean {
  let level: object[] = [value];
  for (let depth = 0; depth < DEEPEST; depth++) {
    level = level.flatMap((one) => Object.values(one))
      .filter((inner) => typeof inner === "object" && inner !== null);
    if (level.length === 0) return false;
  }
  return true;
}

function readObject(path: string): JsonObject | undefined {
  try {
    const bytes = readSmallFile(path, LARGEST_FILE_BYTES);
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return isObject(value) && !isDeep(value) ? value : undefined;
  } catch {
    return undefined; // Absent, empty, half-written, not JSON: nothing was said.
  }
}

/** The content of `device-info.json`: `{device_ip, agent_name, ...}`; undefined when there is none. */
export function readDeviceInfo(folder: string): JsonObject | undefined {
  const content = readObject(join(folder, "device-info.json"));
  return isObject(content?.device_info) ? content.device_info : undefined;
}

/**
 * What `device-connector-error.json` says of a phase: `Name: message`, with ` caused by ...` where
 * there is a cause; empty when it says nothing.
 */
export function readStageFailure(folder: string, phase: Phase): string {
  const content = readObject(join(folder, "device-connector-error.json"));
  const info = content?.[`${phase}_exception_info`];
  if (!isObject(info)) return "";
  const detail = `${shown(info.exception_name)}: ${shown(info.exception_message)}`;
  const cause = info.exception_cause;
  return cause === null || cause === undefined ? detail : `${detail} caused by ${shown(cause)}`;
}

/** Not String(): an object of a job's may have a `toString` that is none. */
function shown(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value) ?? "undefined";
}
