/** How one event of the agent's log looks: as text, as JSON, for the journal. One event, one line. */
import type { LogFields } from "../log.ts";

/** How much an event matters, as Python names it. */
export type LevelName = "DEBUG" | "INFO" | "WARNING" | "ERROR";

/** One event, secrets already taken out. */
export interface LogEvent {
  /** Milliseconds since 1970. */
  time: number;
  level: LevelName;
  message: string;
  fields: LogFields;
}

/**
 * What an event says at most, in UTF-16 units. The journal cuts lines at 48 KiB and the server keeps
 * a hundred lines an agent; whatever is longer is output, and belongs in a job's log.
 */
const MAX_TEXT = 4096;

/** Numbers of RFC 5424, which the journal reads from `<N>` at the beginning of a line. */
const SYSLOG_PRIORITY: Record<LevelName, number> = { DEBUG: 7, INFO: 6, WARNING: 4, ERROR: 3 };

/**
 * What must not reach a terminal or a log shipper as it is: C0 and C1 controls (escape sequences,
 * new lines), line and paragraph separators, and the marks that reverse the direction of text and so
 * make a line read as something else.
 */
// deno-lint-ignore no-control-regex -- control characters are what is looked for
const UNSAFE = /[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

const SHORT_ESCAPES: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** The text with everything unsafe written as `\n`, `\x1b` or `\u202e`, and cut to a sane length. */
export function escapeText(text: string): string {
  return shorten(text).replaceAll(UNSAFE, (unsafe) => {
    const code = unsafe.charCodeAt(0);
    return SHORT_ESCAPES[unsafe] ??
      (code < 0x100
        ? `\\x${code.toString(16).padStart(2, "0")}`
        : `\\u${code.toString(16).padStart(4, "0")}`);
  });
}

/**
 * `2026-11-22 23:59:59,123 WARNING message key=value`, time as the host's clock shows it; with an
 * agent, `... WARNING [rpi4-1] message`, for a file that several agents may write to.
 */
export function formatText(event: LogEvent, agentId?: string): string {
  const name = agentId === undefined ? "" : `[${escapeText(agentId)}] `;
  return `${localTime(event.time)} ${event.level} ${name}${sentence(event)}`;
}

const NAME_IN_TEXT = /^[\d-]+ [\d:,]+ [A-Z]+ (\[.*\] .*)/s;
const NAME_IN_JSON = /^\{"time":"[^"]*","level":"[A-Z]+","agent":("(?:[^"\\]|\\.)*")/;

/** Whether a line of a log file is another agent's; one without a name is not. */
export function isOfAnother(line: string, agentId: string): boolean {
  const json = NAME_IN_JSON.exec(line)?.[1];
  if (json !== undefined) return json !== JSON.stringify(agentId);
  const rest = NAME_IN_TEXT.exec(line)?.[1];
  return rest !== undefined && !rest.startsWith(`[${escapeText(agentId)}] `);
}

/** `<4>message key=value`, or `<4>[rpi4-1] message ...`: the journal keeps time and unit itself. */
export function formatJournal(event: LogEvent, agentId?: string): string {
  const name = agentId === undefined ? "" : `[${escapeText(agentId)}] `;
  return `<${SYSLOG_PRIORITY[event.level]}>${name}${sentence(event)}`;
}

/** The priority prefix alone, for lines in another format. */
export function journalPrefix(level: LevelName): string {
  return `<${SYSLOG_PRIORITY[level]}>`;
}

/** `{"time": ISO 8601 UTC, "level", "agent", "message", "fields"?}` on one line. */
export function formatJson(event: LogEvent, agentId: string): string {
  const fields = Object.entries(event.fields).filter(([, value]) => value !== undefined)
    .map(([key, value]) => [key, typeof value === "string" ? shorten(value) : value]);
  const json = JSON.stringify({
    time: new Date(event.time).toISOString(),
    level: event.level,
    agent: agentId,
    message: shorten(event.message),
    ...(fields.length > 0 ? { fields: Object.fromEntries(fields) } : {}),
  });
  // What JSON leaves as it is and a terminal or an editor would act upon.
  return json.replaceAll(
    UNSAFE,
    (unsafe) => `\\u${unsafe.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** `2026-11-22` of the host's time zone. */
export function localDate(ms: number): string {
  const date = new Date(ms);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

function localTime(ms: number): string {
  const date = new Date(ms);
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
  return `${localDate(ms)} ${time},${String(date.getMilliseconds()).padStart(3, "0")}`;
}

function sentence(event: LogEvent): string {
  // Where a message of a server or of the system that is a sentence is part of one of ours.
  let text = escapeText(event.message).replaceAll(/(?<=[\w)'"])\.\.(?= |$)/g, ".");
  for (const [key, value] of Object.entries(event.fields)) {
    if (value !== undefined) text += ` ${escapeText(key)}=${quoted(value)}`;
  }
  return text;
}

/** The value as it is where it reads as one word, else in double quotes. */
function quoted(value: string | number | boolean): string {
  const text = escapeText(String(value));
  return /^[^\s"=]+$/.test(text) ? text : `"${text.replaceAll('"', '\\"')}"`;
}

function shorten(text: string): string {
  const whole = text.length <= MAX_TEXT
    ? text
    : `${text.slice(0, MAX_TEXT)}... (${text.length - MAX_TEXT} characters more)`;
  return whole.toWellFormed();
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}
