/** The end of a job that was handed out when the disk takes no record of it. */
import type { Job } from "../job/job.ts";
import type { Log } from "../log.ts";
import type { Connectivity } from "../outbox/connectivity.ts";
import { isFinal, type ServerApi } from "../server/api.ts";
import { Backoff } from "../server/backoff.ts";
import type { ResultUpdate } from "../server/schema.ts";

/** Why it is refused, and who is told. */
export interface RefuseOptions {
  reason: string;
  /** Where its record should have been. */
  folder: string;
  server: ServerApi;
  connectivity: Connectivity;
  log: Log;
  /** Ends it. */
  signal: AbortSignal;
}

/** Without a record nothing can be promised: the job is ended at once, so that nobody waits for it. */
export async function refuseJob(job: Job, options: RefuseOptions): Promise<void> {
  const { reason, folder, server, connectivity, log, signal } = options;
  log.error(
    `Cannot keep a record of job ${job.jobId}, which is ended as failed: ${reason}. ` +
      `Mend ${folder}.`,
  );
  // In the words of either generation, since nothing tells which one this is; and if need be in few.
  const outcomes: ResultUpdate[] = [
    { status: { setup: 1 }, job_state: "complete" },
    { setup_status: 1, job_state: "complete" },
    { job_state: "complete" },
  ];
  for (const outcome of outcomes) {
    const backoff = new Backoff();
    while (!signal.aborted) {
      const answer = await server.postResult(job.jobId, outcome, signal);
      if (answer.ok || answer.kind === "forgotten") return;
      if (isFinal(answer)) break;
      await connectivity.pause(backoff.next(answer.retryAfterMs), signal).catch(() => {});
    }
  }
}
