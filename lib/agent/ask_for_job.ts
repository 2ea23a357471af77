/** Asks the server for a job, so that none is lost that it hands out. */
import { either } from "../wait.ts";
import type { Job } from "../job/job.ts";
import type { StopSignals } from "../job/job_context.ts";
import type { Log } from "../log.ts";
import type { Connectivity } from "../server/connectivity.ts";
import { type Answer, isFinal, type JobOffer, type ServerApi } from "../server/api.ts";
import { Backoff } from "../backoff.ts";
import type { ResultUpdate } from "../server/schema.ts";
import type { AgentContext } from "./context.ts";

/**
 * When an agent is stopped, this is left for the answer to a question for a job, which may hold one:
 * a slow server takes as long.
 */
const LAST_ANSWER_MS = 30_000;
/** The same for one that hands over, which does not take longer than 2 s. */
const LAST_ANSWER_BEFORE_LEAVING_MS = 1_500;

/** What asking for a job needs. */
interface AskOptions extends AgentContext {
  signals: StopSignals;
}

/**
 * Asks for one job.
 *
 * @param restrictedTo from the agent's record on the server: queue to owners. The queues that have
 * any are the only ones to ask for; without such a queue it is all of the agent's.
 */
export async function askForJob(
  restrictedTo: Record<string, string[] | null | undefined>,
  options: AskOptions,
): Promise<Answer<JobOffer>> {
  const { config, server, log, emit } = options;
  const restricted = Object.entries(restrictedTo)
    .filter(([, owners]) => (owners?.length ?? 0) > 0)
    .map(([queue]) => queue);
  emit({ type: "polled" });
  const queues = restricted.length > 0 ? restricted : config.job_queues;
  using ended = either(options.signals.stop, options.signals.leave);
  const noLater = ended.signal;
  const offer = await patiently((signal) => server.nextJob(queues, { signal, noLater }), options);
  if (!offer.ok && offer.kind === "unreachable") {
    log.debug(`If the server handed out a job, the agent never saw it: ${offer.message}`);
  }
  return offer;
}

/**
 * An answer that is dropped may hold a job, which nobody would ever end: an agent that is stopped
 * waits a moment for it.
 */
async function patiently<T>(
  call: (signal: AbortSignal) => Promise<T>,
  { clock, signals }: AskOptions,
): Promise<T> {
  const { stop, leave, forceStop } = signals;
  using over = either(forceStop);
  const giveUpIn = (ms: number) => () => {
    clock.sleep(ms, over.signal).then(() => over.abort(), () => {});
  };
  const onStop = giveUpIn(LAST_ANSWER_MS);
  const onLeave = giveUpIn(LAST_ANSWER_BEFORE_LEAVING_MS);
  stop.addEventListener("abort", onStop);
  leave.addEventListener("abort", onLeave);
  try {
    return await call(over.signal);
  } finally {
    stop.removeEventListener("abort", onStop);
    leave.removeEventListener("abort", onLeave);
    over.abort();
  }
}

/** Why it is refused, and who is told. */
interface RefuseOptions {
  reason: string;
  /** Where its journal should have been. */
  folder: string;
  server: ServerApi;
  connectivity: Connectivity;
  log: Log;
  /** Ends it. */
  signal: AbortSignal;
}

/** Without a journal nothing can be promised: the job is ended at once, so that nobody waits for it. */
export async function refuseJob(job: Job, options: RefuseOptions): Promise<void> {
  const { reason, folder, server, connectivity, log, signal } = options;
  log.error(
    `Cannot keep a journal of job ${job.jobId}, which is ended as failed: ${reason}. ` +
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
