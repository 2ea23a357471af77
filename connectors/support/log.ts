/** Where a stage says what it does: the lines of its log, and how far long things have come. */
import type { Clock } from "../../lib/clock.ts";
import type { Log, LogFields } from "../../lib/log.ts";
import { plainProgress, type Progress, type Task } from "../../lib/progress.ts";
import type { ConnectorContext } from "../context.ts";

/** What log filters in the field look for. */
const MARKER = "DEVICE CONNECTOR:";

/**
 * The log of a connector, one line per event:
 * `2026-01-31 12:00:00,000 <agent> INFO: DEVICE CONNECTOR: text`, in local time. Debug lines are
 * left out.
 */
export function connectorLog(
  options: {
    readonly write: (text: string) => void;
    readonly clock: Clock;
    readonly agentName: string;
  },
): Log {
  const line = (level: string) => (message: string, fields: LogFields = {}) => {
    const facts = Object.entries(fields).filter(([, value]) => value !== undefined)
      .map(([name, value]) => ` ${name}=${value}`).join("");
    const time = localTime(options.clock.now());
    options.write(`${time} ${options.agentName} ${level}: ${MARKER} ${message}${facts}\n`);
  };
  return {
    debug: () => {},
    info: line("INFO"),
    warning: line("WARNING"),
    error: line("ERROR"),
  };
}

/** Shows how far a task has come: on a terminal while it goes on, else in the log now and then. */
export function progressOf(
  { limits, log, progress }: Pick<ConnectorContext, "limits" | "log" | "progress">,
  task: Task,
): Progress {
  const view = progress ?? plainProgress({ clock: limits, say: (line) => log.info(line) });
  return view.begin(task);
}

function localTime(ms: number): string {
  const time = new Date(ms);
  const two = (part: number) => String(part).padStart(2, "0");
  const date = [time.getFullYear(), two(time.getMonth() + 1), two(time.getDate())].join("-");
  const clock = [two(time.getHours()), two(time.getMinutes()), two(time.getSeconds())].join(":");
  return `${date} ${clock},${String(time.getMilliseconds()).padStart(3, "0")}`;
}
