/**
 * What the rest of the agent knows of a Testflinger server: one method per
 * endpoint, one attempt per call, and an `Answer` that says what happened in a
 * way that lets the caller decide whether, when, and how carefully to try again.
 */
import type {
  AgentRecord,
  AgentUpdate,
  EventsUpdate,
  LogFragment,
  PhaseStatuses,
  ProvisionLogEntry,
  ResultUpdate,
} from "./schema.ts";
import type { LogText } from "./log_text.ts";
import type { Phase } from "../phases.ts";

/** Which of the two generations of servers in the field this one is. */
export type Generation = "current" | "legacy";

/**
 * What came of a call that has not done what it was meant to. `classify.ts` tells them apart.
 *
 * - `aborted`: the caller's signal
 * - `unreachable`: no whole answer (refused, reset, no route, DNS, time-out, cut in the middle)
 * - `foreign`: an answer that Testflinger's API cannot give: a web page, a redirect that leads
 *   nowhere, words where JSON is due. A gateway, a captive portal or a VPN speaks in the server's
 *   place
 * - `busy`: 408, 429 or any 5xx of the API
 * - `unauthorised`: 401, or 403 for a token that is no good, which a fresh token and a fresh cookie
 *   did not help, or no token is available
 * - `forbidden`: 403, the token's role may not do this
 * - `missing`: 404, 405 or 410: there is no such thing, or no such endpoint
 * - `webhook`: the server is there, and cannot or will not deliver to the job's webhook
 * - `refused`: 400, 413 or 422 as JSON: the server has looked at this very body and will never take it
 * - `forgotten`: 404 of a current server, which was asked again and knows nothing of the job
 */
type FailureKind =
  | "aborted"
  | "unreachable"
  | "foreign"
  | "busy"
  | "unauthorised"
  | "forbidden"
  | "missing"
  | "webhook"
  | "refused"
  | "forgotten";

/** A call that has not done what it was meant to. */
export interface Failure {
  ok: false;
  kind: FailureKind;
  /** HTTP status where there was one. */
  status?: number;
  /** One line for a log: what was asked of which URL and what came back. Never holds a secret. */
  message: string;
  /** From `Retry-After`, in milliseconds. */
  retryAfterMs?: number;
}

/** Whether the same call can never succeed: only then may what it carries be given up. */
export function isFinal({ kind }: Failure): boolean {
  return kind === "refused" || kind === "forgotten";
}

/** Whether an administrator has to act before the same call can succeed. */
export function needsAdministrator({ kind }: Failure): boolean {
  return kind === "unauthorised" || kind === "forbidden";
}

/** What became of one call. */
export type Answer<T> = { ok: true; value: T } | Failure;

/** A job as the server handed it out. */
export type JobOffer =
  /** `text` is the answer itself: numbers that are larger than ours can be stay as they are in it. */
  | { kind: "job"; job: Record<string, unknown>; text: string }
  | { kind: "none" }
  /** The answer was cut off or is not a job, but it carries this id: the server has marked it running. */
  | { kind: "broken"; jobId: string; reason: string };

/** What the server has of a job's log, for looking before repeating a post. */
export interface ResultView {
  /** Undefined when the server does not say. */
  jobState?: string;
  /** Length in bytes (as UTF-8) of each `{phase}_output` and `{phase}_serial` that the server has. */
  logBytes: Partial<Record<`${Phase}_output` | `${Phase}_serial`, number>>;
}

/** The state of a job; undefined where the server knows nothing of it. */
export type StateAnswer =
  /**
   * `statuses`: those that were read. `bytes`: how large the answer was, which tells what it costs the server to be asked.
   */
  { ok: true; value: string | undefined; statuses: PhaseStatuses; bytes: number } | Failure;

/** A piece of a log; its text may come in the form in which it leaves. */
export type LogPiece = Omit<LogFragment, "log_data"> & { log_data: string | LogText };

/** A source of an upload that can be started again from the beginning. */
export interface Upload {
  /** Opens the bytes; called once per attempt. */
  open(): ReadableStream<Uint8Array>;
}

/** An archive on its way here. */
export interface Archive {
  /** Has to be read to its end, or cancelled. */
  stream: ReadableStream<Uint8Array>;
  /** In bytes, where the server has said so. */
  length?: number;
}

/** The calls. Each takes an optional signal and never throws for anything a server or a network does. */
export interface ServerApi {
  /** The server's address, with scheme, without a slash at the end. */
  readonly address: string;
  /** Undefined until something has shown it. */
  readonly generation: Generation | undefined;

  /** The generation, which is found out where nothing has shown it. */
  findGeneration(signal?: AbortSignal): Promise<Answer<Generation>>;

  postAgent(update: AgentUpdate, signal?: AbortSignal): Promise<Answer<void>>;
  /** `null`: the server has forgotten this agent (404). */
  getAgent(signal?: AbortSignal): Promise<Answer<AgentRecord | null>>;
  postQueues(queues: Record<string, string>, signal?: AbortSignal): Promise<Answer<void>>;
  postImages(
    images: Record<string, Record<string, string>>,
    signal?: AbortSignal,
  ): Promise<Answer<void>>;
  postProvisionLog(entry: ProvisionLogEntry, signal?: AbortSignal): Promise<Answer<void>>;

  /**
   * Asks for a job. Posts the agent's data and asks again when the cookie is gone.
   *
   * @param signals `signal` gives up what is in flight; once `noLater` has aborted nothing is asked
   * any more, while an answer that is on its way is waited for: it may hold a job.
   */
  nextJob(
    queues: readonly string[],
    signals?: { signal?: AbortSignal; noLater?: AbortSignal },
  ): Promise<Answer<JobOffer>>;
  /** The archive as it comes in; `null` when the job has none (204). */
  getAttachments(
    jobId: string,
    signal?: AbortSignal,
  ): Promise<Answer<Archive | null>>;

  /** Asks for the state alone where the server has that, else for the result as far as `job_state`. */
  getJobState(jobId: string, signal?: AbortSignal): Promise<StateAnswer>;
  /** The same, and all statuses where the server can be asked for them without the logs. */
  getStatuses(jobId: string, signal?: AbortSignal): Promise<StateAnswer>;
  /** Reads the whole result as a stream, keeping nothing but lengths. */
  viewResult(jobId: string, signal?: AbortSignal): Promise<Answer<ResultView>>;
  postResult(jobId: string, update: ResultUpdate, signal?: AbortSignal): Promise<Answer<void>>;
  /**
   * Posts a piece of a log: a fragment on a current server, plain text on a legacy one. The first
   * call finds out which it is.
   */
  postLog(
    jobId: string,
    log: "output" | "serial",
    fragment: LogPiece,
    signal?: AbortSignal,
  ): Promise<Answer<void>>;
  /** Uploads a tar.gz as the job's artifact. Time-out is idle time, not total. */
  postArtifact(jobId: string, upload: Upload, signal?: AbortSignal): Promise<Answer<void>>;
  postEvents(jobId: string, update: EventsUpdate, signal?: AbortSignal): Promise<Answer<void>>;
}
