/** Says in the agent's log how far large or slow transfers have come; of others nothing. */
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { megabytes, PLAIN_STEP_MS, progressWords } from "../progress.ts";
import { type Sink, sinkOf } from "./events.ts";
import { duration } from "./words.ts";

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
