/** Brings to an end what earlier processes of this agent left unfinished. */
import { messageOf } from "../message.ts";
import { statusesOf } from "../outbox/job_state.ts";
import type { UploadQueue } from "./upload_queue.ts";
import { Job } from "./job.ts";
import type { JobContext } from "./job_context.ts";
import { endAnyway, type JobEnd } from "./job_ending.ts";
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
  uploads: UploadQueue,
  context: JobContext,
): Promise<JobEnd[]> {
  const ends: JobEnd[] = [];
  for (const leftover of await store.leftovers()) {
    try {
      const end = await recoverJob(leftover, { store, uploads, context })
        .catch((error) => endAnyway(leftover.outbox, { error, context }));
      if (end !== undefined) ends.push(end);
    } catch (error) {
      const { jobId, folder } = leftover.outbox;
      context.log.error(
        `Cannot bring job ${jobId} to its end: ${messageOf(error)}. What there is of it is ` +
          `delivered from ${folder}; the rest is tried again at the next start of the agent.`,
      );
    }
  }
  return ends;
}

async function recoverJob(
  { outbox, received }: Leftover,
  { store, uploads, context }: {
    store: JobStore;
    uploads: UploadQueue;
    context: JobContext;
  },
): Promise<JobEnd | undefined> {
  const queue = outbox.state.accepted?.queue ?? "";
  if (outbox.state.accepted === undefined) {
    outbox.append({
      t: "accepted",
      at: context.clock.now(),
      jobId: outbox.jobId,
      queue,
      rerun: false,
    });
  }
  const { finished, sent } = outbox.state;
  if (finished !== undefined && !sent.has("outcome")) {
    // The line of it was damaged; that the job has ended is what somebody waits for.
    outbox.send({ kind: "outcome", status: statusesOf(outbox.state) });
  }
  uploads.startLeftover(outbox);
  if (finished !== undefined) {
    // A power cut may have kept the record and forgotten that this was removed.
    store.forgetReceived(outbox);
    return undefined;
  }
  const job = new Job({ ...received, job_id: outbox.jobId, job_queue: queue });
  context.observer.recovering(outbox.jobId);
  try {
    return await new JobRun(job, outbox, context).resume();
  } finally {
    context.observer.recovering(undefined);
  }
}
