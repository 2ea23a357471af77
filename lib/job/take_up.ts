/** What earlier processes of this agent have left: jobs to go on with, and what is to be delivered. */
import type { Clock } from "../clock.ts";
import { JOURNAL_VERSION } from "../outbox/entries.ts";
import { statusesOf } from "../outbox/job_state.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { Job } from "./job.ts";
import type { JobStore, Leftover } from "./store.ts";
import type { UploadQueue } from "./upload_queue.ts";

/** A job that is not over. */
export interface FoundJob {
  job: Job;
  outbox: Outbox;
  /** Something of it is lost: it can only be ended. */
  isDamaged: boolean;
}

/** Starts to deliver what has ended, and finds what has not, oldest first. Needs no server. */
export async function findJobs(
  store: JobStore,
  uploads: UploadQueue,
  clock: Clock,
): Promise<FoundJob[]> {
  const found: FoundJob[] = [];
  for (const leftover of await store.leftovers()) {
    const job = jobOf(leftover, clock);
    const { outbox } = leftover;
    const { finished, sent } = outbox.state;
    if (finished === undefined) {
      const isDamaged = outbox.isIncomplete || leftover.received === undefined;
      found.push({ job, outbox, isDamaged });
      continue;
    }
    if (!sent.has("outcome")) {
      // The line of it was damaged; that the job has ended is what its submitter waits for.
      outbox.send({ kind: "outcome", status: statusesOf(outbox.state) });
    }
    uploads.startLeftover(outbox);
    // A power cut may have kept the journal and forgotten that this was removed.
    store.forgetReceived(outbox);
  }
  return found;
}

/** The job; its acceptance is written down where that was all that the last process did not come to. */
function jobOf({ outbox, received }: Leftover, clock: Clock): Job {
  const { jobId } = outbox;
  const { accepted } = outbox.state;
  if (accepted !== undefined) {
    return new Job({ ...received, job_id: jobId, job_queue: accepted.queue });
  }
  const job = new Job({ ...received, job_id: jobId });
  outbox.append({
    t: "accepted",
    version: JOURNAL_VERSION,
    at: clock.now(),
    jobId,
    queue: job.queue,
    ...(job.webhook !== undefined && { webhook: job.webhook }),
    rerun: false,
  });
  return job;
}
