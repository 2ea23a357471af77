/** Brings to an end what earlier processes of this agent left unfinished. */
import { messageOf } from "../message.ts";
import type { Deliveries } from "./deliveries.ts";
import { Job } from "./job.ts";
import type { JobContext } from "./job_context.ts";
import type { JobEnd } from "./job_ending.ts";
import { JobRun } from "./job_run.ts";
import type { JobStore, Leftover } from "./store.ts";

/**
 * Ends each unfinished job and hands all of them over for delivery. Needs no server, and may itself
 * be interrupted at any moment and started again.
 *
 * @returns how each of the unfinished ones ended.
 */
export async function recoverJobs(
  store: JobStore,
  deliveries: Deliveries,
  context: JobContext,
): Promise<JobEnd[]> {
  const ends: JobEnd[] = [];
  for (const leftover of await store.leftovers()) {
    try {
      const end = await recoverJob(leftover, { store, deliveries, context });
      if (end !== undefined) ends.push(end);
    } catch (error) {
      const { jobId, folder } = leftover.spool;
      context.log.error(
        `Cannot bring job ${jobId} to its end: ${messageOf(error)}. What there is of it is ` +
          `delivered from ${folder}; the rest is tried again at the next start of the agent.`,
      );
    }
  }
  return ends;
}

async function recoverJob(
  { spool, received }: Leftover,
  { store, deliveries, context }: {
    store: JobStore;
    deliveries: Deliveries;
    context: JobContext;
  },
): Promise<JobEnd | undefined> {
  const queue = spool.standing.accepted?.queue ?? "";
  if (spool.standing.accepted === undefined) {
    spool.append({
      t: "accepted",
      at: context.clock.now(),
      jobId: spool.jobId,
      queue,
      rerun: false,
    });
  }
  deliveries.startLeftover(spool);
  if (spool.standing.finished !== undefined) {
    // A power cut may have kept the record and forgotten that this was removed.
    store.forgetReceived(spool);
    return undefined;
  }
  const job = new Job({ ...received, job_id: spool.jobId, job_queue: queue });
  context.observer.recovering(spool.jobId);
  try {
    return await new JobRun(job, spool, context).resume();
  } finally {
    context.observer.recovering(undefined);
  }
}
