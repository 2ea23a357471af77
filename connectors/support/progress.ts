import { plainProgress, type Progress, type Task } from "../../lib/progress.ts";
import type { ConnectorContext } from "../context.ts";

/** Shows how far a task has come: on a terminal while it goes on, else in the log now and then. */
export function progressOf(
  { limits, log, progress }: Pick<ConnectorContext, "limits" | "log" | "progress">,
  task: Task,
): Progress {
  const view = progress ?? plainProgress({ clock: limits, say: (line) => log.info(line) });
  return view.begin(task);
}
