import type { Log } from "../../../lib/log.ts";

/** What the lines begin with that another host has logged. */
const MARK = "[control-host] ";

/** The service's levels, and ours. */
const LEVELS: Readonly<Record<string, keyof Log>> = {
  NOTSET: "debug",
  DEBUG: "debug",
  INFO: "info",
  WARN: "warning",
  WARNING: "warning",
  ERROR: "error",
  FATAL: "error",
  CRITICAL: "error",
};

/**
 * Shows an entry of a control host's log: a JSON object with `level` and `message`.
 *
 * @param warned the levels that nobody knows and that have been warned of.
 * @returns false when it is not JSON; then a warning says so.
 */
export function logEntry(log: Log, data: string, warned: Set<unknown>): boolean {
  let entry: unknown;
  try {
    entry = JSON.parse(data);
  } catch {
    log.warning(`The control host logs what is not JSON: ${data.slice(0, 200)}`);
    return false;
  }
  const isObject = typeof entry === "object" && entry !== null && !Array.isArray(entry);
  const { level, message } = isObject ? entry as { level?: unknown; message?: unknown } : {};
  const text = typeof message === "string" ? message : data;
  const known = typeof level === "string" ? LEVELS[level.toUpperCase()] : undefined;
  if (known === undefined && isObject && !warned.has(level)) {
    warned.add(level);
    log.warning(
      `The control host logs with the level ${JSON.stringify(level)}: such lines are shown as INFO`,
    );
  }
  for (const line of text.split(/\r?\n/)) log[known ?? "info"](`${MARK}${line}`);
  return true;
}
