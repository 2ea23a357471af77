/** Posts the outcome of a job in words that the server understands. */
import { type Answer, type Generation, isFinal, type ServerApi } from "../server/api.ts";
import type { PhaseStatuses } from "../server/schema.ts";
import { LOG_NAMES } from "./entries.ts";
import { legacyOutcome } from "./legacy_outcome.ts";
import type { Outbox } from "./outbox.ts";

/** What a server answers to a result that its store cannot hold. */
const PAYLOAD_TOO_LARGE = 413;
/** What a server answers to a field that its generation does not know. */
const UNPROCESSABLE = 422;

/** What posting an outcome needs. */
export interface OutcomePostOptions {
  server: ServerApi;
  /** How much of the end of each log the outcome carries on a legacy server, in bytes. */
  outputBytes: number;
  signal: AbortSignal;
}

/**
 * Makes the job complete, with its statuses: in the words of the server's generation, and in the
 * other's where it does not understand them. It may have been upgraded since.
 */
export async function postOutcome(
  outbox: Outbox,
  status: PhaseStatuses,
  { server, outputBytes, signal }: OutcomePostOptions,
): Promise<Answer<void>> {
  const generation = await generationOf(outbox, server, signal);
  if (!generation.ok) return generation;
  const asCurrent = () =>
    server.postResult(outbox.jobId, { job_state: "complete", status }, signal);
  const asLegacy = () => postLegacyOutcome(outbox, { server, outputBytes, signal });
  const [first, second] = generation.value === "current"
    ? [asCurrent, asLegacy]
    : [asLegacy, asCurrent];
  const answer = await first();
  if (answer.ok || answer.status !== UNPROCESSABLE) return answer;
  const other = await second();
  return other.ok || !isFinal(other) ? other : answer;
}

/**
 * The server's generation as far as it shows in this job: an earlier process may have delivered its
 * log, so that nothing is left to find it out with.
 */
export async function generationOf(
  outbox: Outbox,
  server: ServerApi,
  signal: AbortSignal,
): Promise<Answer<Generation>> {
  if (server.generation !== undefined) return { ok: true, value: server.generation };
  const { logs } = outbox.state;
  if (LOG_NAMES.every((log) => logs[log].settled === 0)) return { ok: true, value: "current" };
  const view = await server.viewResult(outbox.jobId, signal);
  if (!view.ok) return view;
  // Only the current generation shows in the result what was posted as a log.
  const isThere = Object.values(view.value.logBytes).some((bytes) => bytes > 0);
  return { ok: true, value: isThere ? "current" : "legacy" };
}

/** With less and less of the logs, until it fits into what the server can store. */
async function postLegacyOutcome(
  outbox: Outbox,
  { server, outputBytes, signal }: OutcomePostOptions,
): Promise<Answer<void>> {
  for (let bytes = outputBytes;; bytes = Math.floor(bytes / 2)) {
    const answer = await server.postResult(
      outbox.jobId,
      await legacyOutcome(outbox, bytes),
      signal,
    );
    if (answer.ok || answer.status !== PAYLOAD_TOO_LARGE || bytes === 0) return answer;
  }
}
