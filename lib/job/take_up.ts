/**
 * What earlier processes of this agent have left: jobs to go on with, what has been done of them, and what
 * is to be delivered.
 */
import { cutAtStart } from "../bytes.ts";
import type { Clock, HostClock } from "../clock.ts";
import type { JobSoFar } from "../observe/events.ts";
import { JOURNAL_VERSION, type LogName } from "../outbox/entries.ts";
import { statusesOf } from "../outbox/job_state.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { type Phase, PHASES } from "../phases.ts";
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
    const job = jobOf(leftover, store, clock);
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
function jobOf({ outbox, received }: Leftover, store: JobStore, clock: Clock): Job {
  const { jobId } = outbox;
  const { accepted } = outbox.state;
  if (accepted !== undefined) {
    return new Job({ ...received?.job, job_id: jobId, job_queue: accepted.queue }, received?.text);
  }
  const job = new Job({ ...received?.job, job_id: jobId }, received?.text);
  outbox.append({
    t: "accepted",
    version: JOURNAL_VERSION,
    at: clock.now(),
    jobId,
    queue: job.queue,
    ...(job.webhook !== undefined && { webhook: job.webhook }),
    // Of a damaged journal what the server has may be this run's.
    rerun: !outbox.isIncomplete && store.hasDelivered(jobId),
  });
  return job;
}

/** As much of a log as is shown of it. */
const SHOWN_BYTES = 256 * 1024;

/** What the outbox does not know. */
interface SoFarOptions {
  clock: HostClock;
  reasonToSkip(phase: Phase): string | undefined;
}

/**
 * What earlier processes have done of a job, for those who look on: its phases, and what it printed. From
 * its journal and its logs; what cannot be read of the logs is left out.
 */
export async function jobSoFar(
  outbox: Outbox,
  { clock, reasonToSkip }: SoFarOptions,
): Promise<JobSoFar> {
  const { accepted, phases, skipped, isRebooted, release = "unknown" } = outbox.state;
  const now = clock.now();
  /** Milliseconds since 1970 at the start of the host. */
  const boot = now - await clock.sinceBoot();
  const output = await endOf(outbox, "output");
  return {
    // A journal that was damaged does not know.
    startedAt: accepted?.at || now,
    phases: [
      ...[...skipped].map((phase) => ({ phase, reason: reasonToSkip(phase) ?? "" })),
      ...[...phases].flatMap(([phase, { status, seconds, command, ending }]) =>
        status === undefined ? [] : {
          phase,
          status,
          event: ending?.event ?? "normal_exit",
          release,
          ...(seconds !== undefined && { seconds }),
          // The clock of another start of the host says nothing.
          ...(command !== undefined && !isRebooted && { startedAt: boot + command.at }),
        }
      ),
    ].sort((a, b) => PHASES.indexOf(a.phase) - PHASES.indexOf(b.phase)),
    output: output.bytes,
    begins: outbox.state.logs.output.regions.map(({ phase, from }) => ({
      phase,
      at: Math.max(0, from - output.from),
    })),
    serial: (await endOf(outbox, "serial")).bytes,
  };
}

async function endOf(outbox: Outbox, log: LogName): Promise<{ from: number; bytes: Uint8Array }> {
  const length = outbox.length(log);
  const from = Math.max(0, length - SHOWN_BYTES);
  try {
    const bytes = await outbox.readLog(log, from, length);
    const cut = from === 0 ? 0 : cutAtStart(bytes);
    return { from: from + cut, bytes: bytes.subarray(cut) };
  } catch {
    return { from: length, bytes: new Uint8Array() };
  }
}
