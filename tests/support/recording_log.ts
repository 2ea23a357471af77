import type { Log, LogFields } from "../../lib/log.ts";

/** One line that was logged. */
export interface LogLine {
  level: keyof Log;
  message: string;
  fields: LogFields;
}

/** A log that keeps its lines for a test to read. */
export interface RecordingLog extends Log {
  readonly lines: LogLine[];
}

/** Makes an empty `RecordingLog`. */
export function recordingLog(): RecordingLog {
  const lines: LogLine[] = [];
  const keep = (level: keyof Log) => (message: string, fields: LogFields = {}) => {
    lines.push({ level, message, fields });
  };
  return {
    lines,
    debug: keep("debug"),
    info: keep("info"),
    warning: keep("warning"),
    error: keep("error"),
  };
}
