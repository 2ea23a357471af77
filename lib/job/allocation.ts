/** The hand-shake by which the device of one job is lent to another. */
import type { HostClock } from "../clock.ts";
import type { Log } from "../log.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { type Answer, isFinal, type ServerApi } from "../server/api.ts";
import { Backoff } from "../backoff.ts";
import type { Job } from "./job.ts";

/** The parent's state is asked for at this pace while a child waits for it. */
const ASK_EVERY_MS = 5_000;
/**
 * A job of which the server knows nothing for as long as this is gone. A server that has just been
 * restored from its backup may need a moment, and the device must not be taken from a living parent.
 */
const GONE_AFTER_MS = 10 * 60_000;

/** What the hand-shake needs. */
export interface AllocationOptions {
  outbox: Outbox;
  server: ServerApi;
  clock: HostClock;
  log: Log;
  /** Ends it. */
  signal: AbortSignal;
  /** Leaves the device lent, to the next process. */
  leave: AbortSignal;
}

/**
 * The parent's agent reads the device's address from the result, so it must be there before the state
 * says `allocated`; then the device is the parent's until the parent or this job is over, or until
 * the time is up that the job itself sets.
 *
 * An earlier process may have lent it already.
 *
 * @returns a line for the job's log where it ended for another reason than these jobs' end.
 */
export async function waitWhileAllocated(
  job: Job,
  options: AllocationOptions,
): Promise<string | undefined> {
  const { outbox, clock, log, leave } = options;
  const signal = AbortSignal.any([options.signal, leave]);
  const now = await clock.sinceBoot();
  if (outbox.state.allocatedAt === undefined) {
    const message = { kind: "state" as const, state: "allocated" };
    outbox.append({ t: "allocated", at: now }, { t: "send", message });
  }
  const limitS = job.allocationTimeout;
  const over = new AbortController();
  const ends = AbortSignal.any([signal, over.signal]);
  const limit = limitS === undefined
    ? undefined
    : clock.sleep((outbox.state.allocatedAt ?? now) + limitS * 1000 - now, ends)
      .then(() => over.abort(), () => {});
  try {
    await untilAllocated(outbox, ends);
    log.info("The device is allocated until the job or its parent ends", { job_id: job.jobId });
    return await untilOver(job, { ...options, signal: ends });
  } catch (error) {
    if (!ends.aborted) throw error;
    if (signal.aborted) return undefined;
    return `The allocation ends: its time is up (allocation_timeout, ${limitS}s)`;
  } finally {
    over.abort();
    await limit;
  }
}

/** Resolves when the server has been told that the device is allocated. */
async function untilAllocated(outbox: Outbox, signal: AbortSignal): Promise<void> {
  const { pending } = outbox.state;
  const message = pending.find(({ message }) =>
    message.kind === "state" && message.state === "allocated"
  );
  if (message !== undefined) await outbox.acknowledged(message.n, signal);
}

/** A job whose end is waited for. */
interface WatchedJob {
  name: string;
  id: string;
  /** Since when the server knows nothing of it; monotonic milliseconds. */
  lostAt?: number;
}

/** Resolves when this job or its parent is over, or is gone for good. */
async function untilOver(
  job: Job,
  { server, clock, signal }: AllocationOptions,
): Promise<string | undefined> {
  const watched: WatchedJob[] = [{ name: "this job", id: job.jobId }];
  if (job.parentJobId !== undefined) watched.push({ name: "its parent", id: job.parentJobId });
  const backoff = new Backoff();
  while (true) {
    const answers = await Promise.all(watched.map(({ id }) => server.getJobState(id, signal)));
    signal.throwIfAborted();
    if (answers.some((state) => state.ok && isOver(state.value))) return undefined;
    for (const [index, state] of answers.entries()) {
      const asked = watched[index];
      if (asked === undefined) continue;
      if (state.ok && state.value !== undefined) delete asked.lostAt;
      if (!isGone(state)) continue;
      asked.lostAt ??= clock.monotonic();
      if (clock.monotonic() - asked.lostAt < GONE_AFTER_MS) continue;
      return `The allocation ends: the server knows nothing of ${asked.name} (${asked.id}) any more`;
    }
    await clock.sleep(pauseAfter(answers, backoff), signal);
  }
}

/** A server that is in trouble is asked less and less often, and not before it wants to be. */
function pauseAfter(answers: readonly Answer<unknown>[], backoff: Backoff): number {
  const failures = answers.filter((answer) => !answer.ok);
  if (failures.length === 0) {
    backoff.reset();
    return ASK_EVERY_MS;
  }
  const pauses = failures.map(({ retryAfterMs }) => retryAfterMs ?? 0);
  return Math.max(ASK_EVERY_MS, backoff.next(Math.max(...pauses)));
}

/** Nothing is known of the job, or never will be. */
function isGone(state: Answer<string | undefined>): boolean {
  return state.ok ? state.value === undefined : isFinal(state);
}

function isOver(state: string | undefined): boolean {
  return state === "complete" || state === "completed" || state === "cancelled";
}
