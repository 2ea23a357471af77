/** The hand-shake by which the device of one job is lent to another. */
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import type { Outbox } from "../outbox/outbox.ts";
import type { ServerApi } from "../server/api.ts";
import type { Job } from "./job.ts";

/** The parent's state is asked for at this pace while a child waits for it. */
const ASK_EVERY_MS = 5_000;

/** What the hand-shake needs. */
export interface AllocationOptions {
  outbox: Outbox;
  server: ServerApi;
  clock: Clock;
  log: Log;
  /** Ends it. */
  signal: AbortSignal;
}

/**
 * The parent's agent reads the device's address from the result, so it must be there before the state
 * says `allocated`; then the device is the parent's until the parent or this job is over.
 */
export async function waitWhileAllocated(job: Job, options: AllocationOptions): Promise<void> {
  const { outbox, server, clock, log, signal } = options;
  try {
    const allocated = outbox.send({ kind: "state", state: "allocated" });
    await outbox.settled(allocated, signal);
    log.info("The device is allocated until the job or its parent ends", { job_id: job.jobId });
    const jobIds = [job.jobId, job.parentJobId].filter((id) => id !== undefined);
    while (true) {
      for (const jobId of jobIds) {
        const state = await server.getJobState(jobId, signal);
        if (state.ok && isOver(state.value)) return;
      }
      await clock.sleep(ASK_EVERY_MS, signal);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

function isOver(state: string | undefined): boolean {
  return state === "complete" || state === "completed" || state === "cancelled";
}
