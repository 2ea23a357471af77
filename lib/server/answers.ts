/** Reading what the server answers: a job, or as much of a result as is wanted. */
import { type Phase, PHASES } from "../phases.ts";
import type { Answer, JobOffer, ResultView, StateAnswer } from "./api.ts";
import { isMarkup, MARKUP, parseJson } from "./classify.ts";
import type { Received } from "./exchange.ts";
import type { PhaseStatuses } from "./schema.ts";
import { JsonFault, ObjectScanner, type ScanOptions } from "./json_scan.ts";

const HEX = "[0-9a-f]";
const PLAIN = `${HEX}{8}-${HEX}{4}-${HEX}{4}-${HEX}{4}-${HEX}{12}|${HEX}{32}`;
/** In any way that a server takes a UUID: in either case, without its dashes, in braces, as a URN. */
const JOB_ID = new RegExp(`^(?:urn:uuid:)?(?:${PLAIN}|\\{(?:${PLAIN})\\})$`, "i");
const ID_IN_TEXT = new RegExp(`"job_id"\\s*:\\s*"(${PLAIN})"`, "gi");

/**
 * Whether the server would take this for a job id: it answers 400 to anything but a UUID. Nothing
 * else becomes the name of a folder.
 */
export function isJobId(text: unknown): text is string {
  return typeof text === "string" && JOB_ID.test(text);
}

/** The body of a 200 to `GET /v1/job`. */
export interface JobBody {
  /** Method and URL, for the message. */
  what: string;
  bytes: Uint8Array;
  /** Set when the rest never came: what happened. */
  cut?: string;
}

/**
 * Makes an offer of a body. The server has marked the job as running when it sent it, so where any
 * sign of an id is found it is handed on: someone waits for that job.
 */
export function readJob(body: JobBody): Answer<JobOffer> {
  const text = new TextDecoder().decode(body.bytes);
  const reason = body.cut ?? fault(text);
  if (reason === undefined) {
    const value: unknown = text.trim() === "" ? null : JSON.parse(text);
    if (value === null || isEmpty(value)) return { ok: true, value: { kind: "none" } };
    if (isObject(value) && isJobId(value.job_id)) {
      return { ok: true, value: { kind: "job", job: value, text: text.trim() } };
    }
  }
  const jobId = findId(body.bytes, reason === undefined ? "" : text);
  const why = reason ?? "it has no usable job_id";
  if (jobId !== undefined) return { ok: true, value: { kind: "broken", jobId, reason: why } };
  return { ok: false, kind: "foreign", message: `${body.what}: the answer is not a job: ${why}` };
}

function fault(text: string): string | undefined {
  // Not the parser's own words: they quote the text, which may hold the job's secrets.
  if (text.trim() === "" || parseJson(text) !== undefined) return undefined;
  return isMarkup(text) ? MARKUP : "it is not JSON";
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isEmpty(value: unknown): boolean {
  return isObject(value) && Object.keys(value).length === 0;
}

/**
 * The id at its proper place, however little follows it; else the only one that stands anywhere in
 * `text`.
 */
function findId(bytes: Uint8Array, text: string): string | undefined {
  let proper: string | undefined;
  const scanner = new ObjectScanner({
    want: (key) => key === "job_id" ? "text" : undefined,
    found: ({ text }) => {
      if (isJobId(text)) proper = text;
    },
  });
  try {
    scanner.push(bytes);
  } catch (error) {
    if (!(error instanceof JsonFault)) throw error;
  }
  if (proper !== undefined) return proper;
  // Two different ones: taking the wrong one would end another agent's job.
  const ids = new Set([...text.matchAll(ID_IN_TEXT)].map((match) => match[1]));
  return ids.size === 1 ? [...ids][0] : undefined;
}

/** The keys of a result under which its logs are. */
const LOG_KEYS = new Map<string, keyof ResultView["logBytes"]>(
  PHASES.flatMap((phase) => [`${phase}_output` as const, `${phase}_serial` as const])
    .map((key) => [key, key]),
);

/** The keys of a result under which the statuses are. */
const STATUS_KEYS = new Map<string, Phase>(PHASES.map((phase) => [`${phase}_status`, phase]));

/**
 * Reads a result as far as `job_state`, and drops the rest: it may be the whole log of the job.
 *
 * @param options.isWhole it has no logs, and is read to its end. @default false
 */
export async function readJobState(
  result: Received,
  { isWhole = false } = {},
): Promise<StateAnswer> {
  let state: string | undefined;
  const statuses: PhaseStatuses = {};
  const scanned = await scan(result, {
    want: (key) => key === "job_state" ? "text" : STATUS_KEYS.has(key) ? "number" : undefined,
    found: ({ key, text }) => {
      const phase = STATUS_KEYS.get(key);
      if (phase !== undefined) statuses[phase] = Number(text);
      else state = text;
      return phase === undefined && !isWhole;
    },
  });
  if (!scanned.ok) return scanned;
  // What is not read costs the server no less.
  const announced = Number(result.headers.get("content-length") ?? 0);
  return { ok: true, value: state, statuses, bytes: Math.max(scanned.value, announced) };
}

/** Reads a whole result and keeps the state and the lengths of the logs. */
export async function readView(result: Received): Promise<Answer<ResultView>> {
  const view: ResultView = { logBytes: {} };
  const scanned = await scan(result, {
    want: (key) => key === "job_state" ? "text" : LOG_KEYS.has(key) ? "length" : undefined,
    found: ({ key, text, bytes }) => {
      const log = LOG_KEYS.get(key);
      if (log !== undefined) view.logBytes[log] = bytes;
      else if (text !== undefined) view.jobState = text;
    },
  });
  return scanned.ok ? { ok: true, value: view } : scanned;
}

/** The log of a very long job comes nowhere near: what is larger has no end. */
const RESULT_BYTES = 4 * 1024 ** 3;

/** @returns how many bytes were read. */
async function scan(result: Received, options: ScanOptions): Promise<Answer<number>> {
  const scanner = new ObjectScanner(options);
  let bytes = 0;
  try {
    while (!scanner.stopped) {
      const chunk = await result.read();
      if (chunk === undefined) break;
      if (!(chunk instanceof Uint8Array)) return chunk;
      bytes += chunk.length;
      if (bytes > RESULT_BYTES) return result.foreign("it does not end");
      scanner.push(chunk);
    }
  } catch (error) {
    if (!(error instanceof JsonFault)) throw error;
    return result.foreign(error.message);
  } finally {
    result.release();
  }
  // Nothing at all is how a server says that it knows nothing.
  if (scanner.stopped || scanner.complete || scanner.blank) return { ok: true, value: bytes };
  const message = `${result.what}: the answer ended in the middle`;
  return { ok: false, kind: "unreachable", message };
}
