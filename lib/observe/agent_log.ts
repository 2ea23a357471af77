/**
 * An agent's own log: lines are events like all others, and go to a file, to the console or the
 * journal, and the last ones to the server. Nothing that goes wrong here ever stops the agent.
 */
import type { Clock } from "../clock.ts";
import type { Log, LogFields } from "../log.ts";
import { messageOf } from "../message.ts";
import { join } from "../path.ts";
import { megabytes, PLAIN_STEP_MS, progressWords } from "../progress.ts";
import { type AgentEvent, type Emit, type Level, type Sink, sinkOf } from "./events.ts";
import { createLogFile, type LogFile } from "./log_file.ts";
import {
  formatJournal,
  formatJson,
  formatText,
  journalPrefix,
  type LogEvent,
} from "./log_format.ts";
import { duration } from "./words.ts";

/** In `logging_basedir`; log shippers look for this name. */
export const LOG_FILE_NAME = "testflinger-agent.log";

/** The server keeps no more of an agent's lines. */
const MAX_RECENT = 100;

/** How much a line must matter to be written, by Python's names of levels. */
const LOWEST = new Map<string, number>([
  ["NOTSET", 0],
  ["DEBUG", 0],
  ["INFO", 1],
  ["WARN", 2],
  ["WARNING", 2],
  ["ERROR", 3],
  ["CRITICAL", 4],
  ["FATAL", 4],
]);
const LEVELS: readonly Level[] = ["debug", "info", "warning", "error"];

/** Where the lines of a log come from. */
interface LogOptions {
  emit: Emit;
  /** Python's name of a level; an unknown one means `INFO`, `NOTSET` means everything. */
  level: string;
}

/** A log from which secrets are taken out. */
export interface AgentLog extends Log {
  /** From now on every line goes through `redact`. */
  setRedactor(redact: (text: string) => string): void;
}

/** Makes the log of one agent, whose lines become events. */
export function createLog({ emit, level }: LogOptions): AgentLog {
  const lowest = LOWEST.get(level) ?? 1;
  let redact = (text: string) => text;
  const say = (level: Level) => (message: string, fields: LogFields = {}) => {
    if (LEVELS.indexOf(level) < lowest) return;
    emit({ type: "log", level, ...cleaned(message, fields, careful(redact)) });
  };
  return {
    debug: say("debug"),
    info: say("info"),
    warning: say("warning"),
    error: say("error"),
    setRedactor(next) {
      redact = next;
    },
  };
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

function cleaned(message: string, fields: LogFields, redact: (text: string) => string) {
  const clean: LogFields = {};
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    const text = String(value);
    const redacted = redact(text);
    // Numbers stay numbers, unless they are a secret.
    const isPlain = redacted === text && (typeof value === "number" || typeof value === "boolean");
    clean[key] = isPlain ? value : redacted;
  }
  return { message: redact(message), fields: clean };
}

/** Where lines for people go. */
export interface Console {
  write(line: string): void;
  /** It is the journal: `<N>` instead of time and level. See {@link stderrIsJournal}. */
  isJournal: boolean;
  /** The lines of several agents go there, so each line names its agent. */
  isShared: boolean;
}

/** How the lines of an agent are written. */
interface LogLinesOptions {
  agentId: string;
  /** `logging_basedir`; made where it is missing. Undefined: the console has to do. */
  folder: string | undefined;
  format: "text" | "json";
  /** Log to the file only. A file that cannot be written is still told to the console. */
  quiet: boolean;
  console: Console;
}

/** The lines of one agent. */
export interface LogLines {
  readonly sink: Sink;
  /** The lines (as text) since the last call, at most the last 100, for the agent's record on the server. */
  recent(): string[];
  close(): void;
}

/** Writes an agent's lines to its file and to the console, and keeps the last ones. */
export function createLogLines(options: LogLinesOptions): LogLines {
  const { agentId, folder, format, quiet, console } = options;
  const toConsole = consoleLines({ console, format, agentId });
  // Not through the log: that would come back here.
  const toFile = folder === undefined
    ? NO_FILE
    : fileWriter(join(folder, LOG_FILE_NAME), toConsole);
  let recent: string[] = [];
  let isClosed = false;
  return {
    sink(event) {
      if (event.type !== "log" || isClosed) return;
      const line = lineOf(event);
      const text = formatText(line);
      recent.push(text);
      if (recent.length > MAX_RECENT) recent = recent.slice(-MAX_RECENT);
      if (!quiet) toConsole(line);
      toFile.write(
        format === "json" ? formatJson(line, agentId) : formatText(line, agentId),
        line.time,
      );
    },
    recent() {
      const lines = recent;
      recent = [];
      return lines;
    },
    close() {
      isClosed = true;
      toFile.close();
    },
  };
}

/** Makes lines for people of events of the log. */
export function consoleLines(
  { console, format, agentId }: { console: Console; format: "text" | "json"; agentId: string },
): (line: LogEvent) => void {
  return (line) => {
    if (format === "json") {
      const json = formatJson(line, agentId);
      console.write(console.isJournal ? journalPrefix(line.level) + json : json);
      return;
    }
    const name = console.isShared && agentId !== "" ? agentId : undefined;
    console.write(console.isJournal ? formatJournal(line, name) : formatText(line, name));
  };
}

/** An event of the log as a line. */
export function lineOf(
  { at, level, message, fields }: Extract<AgentEvent, { type: "log" }>,
): LogEvent {
  return { time: at, level: LEVEL_NAMES[level], message, fields };
}

const LEVEL_NAMES = { debug: "DEBUG", info: "INFO", warning: "WARNING", error: "ERROR" } as const;

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

const NO_FILE = { write() {}, close() {} };

/** Writes lines to the file; says once that it cannot, and once that it can again. */
function fileWriter(
  path: string,
  complain: (line: LogEvent) => void,
): { write(line: string, time: number): void; close(): void } {
  let now = 0;
  const say = (level: LogEvent["level"], message: string, fields: LogFields) =>
    complain({ time: now, level, message, fields });
  const file: LogFile = createLogFile(path, {
    onRotationFailed: (reason) =>
      say(
        "WARNING",
        "Cannot move yesterday's log file aside; further lines go into the same file. Correct the " +
          "permissions of logging_basedir",
        { reason },
      ),
  });
  let lost = 0;
  return {
    write(line, time) {
      now = time;
      try {
        file.write(line, time);
      } catch (error) {
        lost++;
        if (lost > 1) return;
        say(
          "ERROR",
          "Cannot write the agent's log file; jobs are not affected. Make room or correct the " +
            "permissions of logging_basedir; writing is tried again with each line",
          { reason: messageOf(error) },
        );
        return;
      }
      if (lost > 0) say("WARNING", "The agent's log file is written again", { lost });
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

interface Running {
  since: number;
  saidAt: number;
  hasSaid: boolean;
}

/** Listens to transfers. A job stays at about ten lines: the first one comes after 30 s. */
export function createTransferLog(
  { clock, log }: { clock: Pick<Clock, "monotonic">; log: Log },
): Sink {
  const running = new Map<string, Running>();
  return sinkOf({
    transfer({ job, what, bytes, total, isOver }) {
      const key = `${job} ${what}`;
      const now = clock.monotonic();
      const entry = running.get(key) ?? { since: now, saidAt: now, hasSaid: false };
      running.set(key, entry);
      if (isOver) running.delete(key);
      if (isOver ? !entry.hasSaid : now - entry.saidAt < PLAIN_STEP_MS) return;
      entry.saidAt = now;
      entry.hasSaid = true;
      const elapsed = now - entry.since;
      const words = isOver
        ? `${what}: over after ${duration(elapsed / 1000)}, ${megabytes(bytes)}`
        : progressWords({ what, total }, bytes, elapsed);
      log.info(words, { job_id: job });
    },
  });
}
