/** Posts the outcome of a job in words that the server understands. */
import { PHASES } from "../phases.ts";
import { type Answer, type Generation, isFinal, type ServerApi } from "../server/api.ts";
import type { PhaseStatuses, ResultUpdate } from "../server/schema.ts";
import { cutAtStart } from "../bytes.ts";
import { LOG_NAMES } from "./entries.ts";
import { statusesOf } from "./job_state.ts";
import type { Outbox } from "./outbox.ts";

/** What a server answers to a result that its store cannot hold. */
const PAYLOAD_TOO_LARGE = 413;
/** What a server answers to a field that its generation does not know. */
const UNPROCESSABLE = 422;

/** Whether the server itself has refused it with this status; a gateway's page says nothing. */
function isRefused(answer: Answer<void>, status: number): boolean {
  return !answer.ok && isFinal(answer) && answer.status === status;
}

/** What posting an outcome needs. */
interface OutcomePostOptions {
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
  const generation = await assumeGeneration(server, signal);
  if (!generation.ok) return generation;
  const asCurrent = () =>
    server.postResult(outbox.jobId, { job_state: "complete", status }, signal);
  const asLegacy = () => postLegacyOutcome(outbox, { server, outputBytes, signal });
  const [first, second] = generation.value === "current"
    ? [asCurrent, asLegacy]
    : [asLegacy, asCurrent];
  const answer = await first();
  if (!isRefused(answer, UNPROCESSABLE)) return answer;
  const other = await second();
  return other.ok || !isFinal(other) ? other : answer;
}

/**
 * The server's generation; where it has trouble with its logs just now, so that it cannot be found
 * out, most servers'. One of the other answers 422.
 */
export async function assumeGeneration(
  server: ServerApi,
  signal: AbortSignal,
): Promise<Answer<Generation>> {
  const found = await server.findGeneration(signal);
  return found.ok || found.kind !== "busy" ? found : { ok: true, value: "current" };
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
    if (!isRefused(answer, PAYLOAD_TOO_LARGE) || bytes === 0) return answer;
  }
}

/**
 * The outcome of the job in `outbox`, with at most the last `outputBytes` bytes of each phase's logs.
 */
async function legacyOutcome(outbox: Outbox, outputBytes: number): Promise<ResultUpdate> {
  const outcome: ResultUpdate = { job_state: "complete" };
  const statuses = statusesOf(outbox.state);
  for (const phase of PHASES) {
    const status = statuses[phase];
    if (status !== undefined) outcome[`${phase}_status`] = status;
  }
  for (const log of LOG_NAMES) {
    const { regions } = outbox.state.logs[log];
    for (const [index, { phase, from }] of regions.entries()) {
      const end = regions[index + 1]?.from ?? outbox.length(log);
      const start = Math.max(from, end - outputBytes);
      if (start >= end) continue;
      const bytes = await outbox.readLog(log, start, end);
      const text = new TextDecoder().decode(bytes.subarray(cutAtStart(bytes)));
      const key = `${phase}_${log}` as const;
      outcome[key] = `${outcome[key] ?? ""}${text}`;
    }
  }
  return outcome;
}
