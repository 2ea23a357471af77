/**
 * The agent's own log: to a file, to the console or the journal, and its last lines to whoever posts
 * them to the server. Nothing that goes wrong here ever stops the agent.
 */
import {
  configureSync,
  getLogger,
  type LogLevel,
  type LogRecord,
  type Sink,
} from "@logtape/logtape";
import { join } from "node:path";
import process from "node:process";
import type { Log, LogFields } from "../log.ts";
import {
  formatJournal,
  formatJson,
  formatText,
  journalPrefix,
  type Level,
  type LogEvent,
} from "./log_format.ts";
import { createLineStream } from "./line_stream.ts";
import { createLogFile, type LogFile } from "./log_file.ts";

/** In `logging_basedir`; log shippers look for this name. */
export const LOG_FILE_NAME = "testflinger-agent.log";

/** The server keeps no more of an agent's lines. */
const MAX_RECENT = 100;

/** Where lines for people go. */
export type Console = "stderr" | ((line: string) => void);

/** How a log is made. */
export interface AgentLogOptions {
  /** Python's name of a level; an unknown one means `INFO`, `NOTSET` means everything. */
  level: string;
  /** Log to the file only. A file that cannot be written is still told to the console. */
  quiet: boolean;
  /** `logging_basedir`; made where it is missing. Undefined: the console has to do. */
  folder: string | undefined;
  format: "text" | "json";
  agentId: string;
  /** @default "stderr" */
  console?: Console;
  /** The console is the journal: `<N>` instead of time and level. See {@link stderrIsJournal}. */
  underSystemd: boolean;
  /** Takes the secrets out of a text; may be replaced for each job by `setRedactor`. */
  redact?: (text: string) => string;
  /** Milliseconds since 1970. @default Date.now */
  now?: () => number;
}

/** A log and what belongs to it. */
export interface AgentLog {
  readonly log: Log;
  /** From now on every line goes through `redact`; without an argument as it was made. */
  setRedactor(redact?: (text: string) => string): void;
  /** The lines (as text) since the last call, at most the last 100, for the agent's record on the server. */
  recent(): string[];
  close(): Promise<void>;
}

const LOGTAPE_LEVELS = new Map<string, LogLevel>([
  ["NOTSET", "trace"],
  ["DEBUG", "debug"],
  ["INFO", "info"],
  ["WARN", "warning"],
  ["WARNING", "warning"],
  ["ERROR", "error"],
  ["CRITICAL", "fatal"],
  ["FATAL", "fatal"],
]);

/** LogTape knows only one configuration a process; several agents in one process share it. */
const openLogs = new Map<string, { sink: Sink; lowestLevel: LogLevel }>();
let logsMade = 0;

/** Makes the log of one agent. Never fails: what is wrong with the file is told on the console. */
export function createAgentLog(options: AgentLogOptions): Promise<AgentLog> {
  const now = options.now ?? Date.now;
  const plain = options.redact ?? ((text: string) => text);
  let redact = careful(plain);
  let recent: string[] = [];

  const console = options.console ?? "stderr";
  const stream = console === "stderr" ? createLineStream(Deno.stderr) : undefined;
  const say = typeof console === "function" ? console : (line: string) => stream?.write(line);
  const toConsole = (event: LogEvent) => say(consoleLine(event, options));
  const complain = (level: Level, message: string, fields: LogFields) =>
    toConsole({ time: now(), level, message, fields });
  const toFile = options.folder === undefined ? NO_FILE : fileWriter(
    createLogFile(join(options.folder, LOG_FILE_NAME), {
      onRotationFailed: (reason) =>
        complain(
          "WARNING",
          "Cannot move yesterday's log file aside; lines go on into the same file. Mend the " +
            "permissions of logging_basedir",
          { reason },
        ),
    }),
    complain,
  );

  const sink: Sink = (record) => {
    const event = toEvent(record, redact);
    const text = formatText(event);
    recent.push(text);
    if (recent.length > MAX_RECENT) recent = recent.slice(-MAX_RECENT);
    if (!options.quiet) toConsole(event);
    const line = options.format === "json"
      ? formatJson(event, options.agentId)
      : formatText(event, options.agentId);
    toFile.write(line, event.time);
  };

  const key = `${logsMade++}`;
  openLogs.set(key, { sink, lowestLevel: LOGTAPE_LEVELS.get(options.level) ?? "info" });
  configureLogTape();
  const logger = getLogger(category(key));
  const emit = (level: LogLevel) => (message: string, properties: LogFields = {}) =>
    // emit() and not info(): a message is no template, it may quote a server's braces.
    logger.emit({
      level,
      message: [message],
      rawMessage: message,
      timestamp: now(),
      properties,
    });

  return Promise.resolve({
    log: {
      debug: emit("debug"),
      info: emit("info"),
      warning: emit("warning"),
      error: emit("error"),
    },
    setRedactor(next) {
      redact = careful(next ?? plain);
    },
    recent() {
      const lines = recent;
      recent = [];
      return lines;
    },
    async close() {
      if (openLogs.delete(key)) {
        configureLogTape();
        toFile.close();
      }
      await stream?.close();
    },
  });
}

/**
 * Whether standard error goes to the journal, so that lines need no time of their own.
 *
 * @see systemd.exec(5), `JOURNAL_STREAM`: device and inode of the stream.
 */
export function stderrIsJournal(journalStream = Deno.env.get("JOURNAL_STREAM")): boolean {
  if (journalStream === undefined) return false;
  try {
    const { dev, ino } = process.getBuiltinModule("node:fs").fstatSync(2);
    return journalStream === `${dev}:${ino}`;
  } catch {
    return false;
  }
}

/** Rather no text than a secret, and rather a strange line than none. */
function careful(redact: (text: string) => string): (text: string) => string {
  return (text) => {
    try {
      return redact(text);
    } catch {
      return "(not shown: looking for secrets failed)";
    }
  };
}

function category(key: string): string[] {
  return ["testflinger-agent", key];
}

function configureLogTape(): void {
  configureSync({
    reset: true,
    sinks: Object.fromEntries([...openLogs].map(([key, { sink }]) => [key, sink])),
    loggers: [
      ...[...openLogs].map(([key, { lowestLevel }]) => ({
        category: category(key),
        sinks: [key],
        lowestLevel,
      })),
      // LogTape's own remarks; our sinks deal with their failures themselves.
      { category: ["logtape", "meta"], sinks: [], lowestLevel: "error" as const },
    ],
  });
}

const LEVELS: Partial<Record<LogLevel, Level>> = {
  debug: "DEBUG",
  info: "INFO",
  warning: "WARNING",
  error: "ERROR",
};

function toEvent(record: LogRecord, redact: (text: string) => string): LogEvent {
  const fields: LogFields = {};
  for (const [key, value] of Object.entries(record.properties)) {
    if (value === undefined) continue;
    const text = String(value);
    const clean = redact(text);
    // Numbers stay numbers, unless they are a secret.
    fields[key] = clean === text && (typeof value === "number" || typeof value === "boolean")
      ? value
      : clean;
  }
  return {
    time: record.timestamp,
    level: LEVELS[record.level] ?? "INFO",
    message: redact(record.message.join("")),
    fields,
  };
}

function consoleLine(event: LogEvent, options: AgentLogOptions): string {
  if (options.format === "json") {
    const json = formatJson(event, options.agentId);
    return options.underSystemd ? journalPrefix(event.level) + json : json;
  }
  return options.underSystemd ? formatJournal(event) : formatText(event);
}

const NO_FILE = { write() {}, close() {} };

/** Writes lines to the file; says once that it cannot, and once that it can again. */
function fileWriter(
  file: LogFile,
  complain: (level: Level, message: string, fields: LogFields) => void,
): { write(line: string, time: number): void; close(): void } {
  let lost = 0;
  return {
    write(line, time) {
      try {
        file.write(line, time);
      } catch (error) {
        lost++;
        if (lost > 1) return;
        const reason = error instanceof Error ? error.message : String(error);
        complain(
          "ERROR",
          "Cannot write the agent's log file; jobs are not affected. Make room or mend the " +
            "permissions of logging_basedir; writing is tried again with each line",
          { reason },
        );
        return;
      }
      if (lost > 0) complain("WARNING", "The agent's log file is written again", { lost });
      lost = 0;
    },
    close() {
      try {
        file.close();
      } catch {
        // A file system that is full or gone may say so once more on closing.
      }
    },
  };
}
