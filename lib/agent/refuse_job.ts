/** The end of a job that was handed out when the disk takes no record of it. */
import type { Job } from "../job/job.ts";
import type { Log } from "../log.ts";
import type { Contact } from "../outbox/contact.ts";
import type { ServerApi } from "../server/api.ts";
import { Backoff } from "../server/backoff.ts";

/** Why it is refused, and who is told. */
export interface RefuseOptions {
  reason: string;
  /** Where its record should have been. */
  folder: string;
  server: ServerApi;
  contact: Contact;
  log: Log;
  /** Ends it. */
  signal: AbortSignal;
}

/** Without a record nothing can be promised: the job is ended at once, so that nobody waits for it. */
export async function refuseJob(job: Job, options: RefuseOptions): Promise<void> {
  const { reason, folder, server, contact, log, signal } = options;
  log.error(
    `Cannot keep a record of job ${job.jobId}, which is ended as failed: ${reason}. ` +
      `Mend ${folder}; no other job is taken before.`,
  );
  const backoff = new Backoff();
  while (!signal.aborted) {
    const answer = await server.postResult(
      job.jobId,
      { status: { setup: 1 }, job_state: "complete" },
      signal,
    );
    if (answer.ok || answer.kind === "refused" || answer.kind === "forbidden") return;
    await contact.pause(backoff.next(answer.retryAfterMs), signal).catch(() => {});
  }
}
