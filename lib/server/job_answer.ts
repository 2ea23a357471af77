import type { Answer, JobOffer } from "./api.ts";
import { isHtml } from "./failure.ts";
import { JsonFault, ObjectScanner } from "./json_scan.ts";

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
  contentType: string;
  /** Set when the rest never came: what happened. */
  cut?: string;
}

/**
 * Makes an offer of a body. The server has marked the job as running when it sent it, so where any
 * sign of an id is found it is handed on: someone waits for that job.
 */
export function readJob(body: JobBody): Answer<JobOffer> {
  const text = new TextDecoder().decode(body.bytes);
  const reason = body.cut ?? fault(text, body.contentType);
  if (reason === undefined) {
    const value: unknown = text.trim() === "" ? null : JSON.parse(text);
    if (value === null || isEmpty(value)) return { ok: true, value: { kind: "none" } };
    if (isObject(value) && isJobId(value.job_id)) {
      return { ok: true, value: { kind: "job", job: value } };
    }
  }
  const jobId = findId(body.bytes, reason === undefined ? "" : text);
  const why = reason ?? "it has no usable job_id";
  if (jobId !== undefined) return { ok: true, value: { kind: "broken", jobId, reason: why } };
  return { ok: false, kind: "malformed", message: `${body.what}: the answer is not a job: ${why}` };
}

function fault(text: string, contentType: string): string | undefined {
  if (text.trim() === "") return undefined;
  try {
    JSON.parse(text);
    return undefined;
  } catch {
    if (isHtml(text, contentType)) return "it is HTML, not JSON";
    // Not the parser's own words: they quote the text, which may hold the job's secrets.
    return "it is not JSON";
  }
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
  // Two different ones: taking the wrong one would end somebody else's job.
  const ids = new Set([...text.matchAll(ID_IN_TEXT)].map((match) => match[1]));
  return ids.size === 1 ? [...ids][0] : undefined;
}
