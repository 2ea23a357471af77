/**
 * What an answer is, told apart in one place: the server's own yes or no, or the word of something
 * that stands in its way. Only what the server itself has said about this very body may make the
 * agent give anything up; everything else is waited out.
 */
import type { Failure } from "./api.ts";

/** A failure with what the client itself wants to know of it. */
export interface CallFailure extends Failure {
  /** What kind of text came with the status. */
  body?: "empty" | "json" | "markup" | "words";
  /** The server's own words, on one line. */
  said?: string;
  /** The connection broke while a stream was being sent. */
  brokenUpload?: boolean;
}

/** As much of a server's message as fits a log line. */
const MESSAGE_CHARS = 200;

/** A server that lies about `Retry-After` must not keep results from it for a year. */
const LONGEST_RETRY_AFTER_MS = 600_000;

/** What a server says at a 403 of a token that it cannot read: another token may do. */
const BAD_TOKEN = /invalid token|unable to decode token|token missing required claim/i;
/** What a server says at a 403 of a token that is good, and of the wrong person. */
const WRONG_ROLE = /requires role/i;

/** With these a server refuses a body that it has looked at. */
const REFUSALS = [400, 413, 422];
/** With these it says that something is not there. */
const ABSENCES = [404, 405, 410];
/** A gateway says so of a server that is away. */
const GATEWAY_TROUBLE = [502, 503, 504];

/** Makes one printable line of text from outside. */
export function foreignLine(text: string): string {
  const line = text.toWellFormed()
    // Controls, line separators and the marks that turn the direction of writing.
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\s]+/gu, " ")
    .trim();
  const chars = [...line];
  return chars.length <= MESSAGE_CHARS ? line : `${chars.slice(0, MESSAGE_CHARS).join("")}...`;
}

/**
 * Whether this is a page for people, or another document that the API never gives. What it is
 * labelled as says nothing: the real server labels its plain words as HTML.
 */
export function isMarkup(text: string): boolean {
  return /^[\s\uFEFF]*<[a-z!?/]/i.test(text);
}

/** Why an answer cannot be used that is markup. */
export const MARKUP = "it is HTML, not JSON";

/** An answer that is not a 2xx. */
export interface BadAnswer {
  /** Method and URL. */
  what: string;
  status: number;
  statusText: string;
  headers: Headers;
  /** The beginning of the body. */
  text: string;
  /** Milliseconds since 1970. */
  now: number;
}

/** Says what an answer is that is not a 2xx. */
export function classify(answer: BadAnswer): CallFailure {
  const { body, message } = readMessage(answer.text);
  const status = foreignLine(`${answer.status} ${answer.statusText}`);
  const retryAfterMs = parseRetryAfter(answer.headers.get("retry-after"), answer.now);
  return {
    ok: false,
    kind: kindOf(answer.status, body, message),
    status: answer.status,
    message: `${answer.what}: ${status}${message === "" ? "" : `: ${message}`}`,
    body,
    said: message,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  };
}

function kindOf(
  status: number,
  body: Required<CallFailure>["body"],
  message: string,
): Failure["kind"] {
  // The API knows no 3xx but that from /v1 to /v1/, which was followed.
  if (body === "markup" || status < 400) return "foreign";
  if (status === 408 || status === 429 || status >= 500) return "busy";
  if (status === 401) return "unauthorised";
  if (status === 403) {
    if (BAD_TOKEN.test(message)) return "unauthorised";
    return body === "json" || WRONG_ROLE.test(message) ? "forbidden" : "foreign";
  }
  if (ABSENCES.includes(status)) return "missing";
  return REFUSALS.includes(status) && body === "json" ? "refused" : "foreign";
}

/** Whether a 403 is about the role of the token, not about what was asked. */
export function isWrongRole({ kind, said = "" }: CallFailure): boolean {
  return kind === "forbidden" && WRONG_ROLE.test(said);
}

/** Whether a fresh token may mend it. */
export function isTokenTrouble(failure: CallFailure): boolean {
  return failure.kind === "unauthorised" && !isCookieMissing(failure);
}

/** Whether the server wants the cookie, and no token can help. */
export function isCookieMissing({ status, said = "" }: CallFailure): boolean {
  return status === 401 && /not identified/i.test(said);
}

/** Whether the server speaks of one job, and not of an endpoint that it does not have. */
export function isAboutJob({ kind, body, said = "" }: CallFailure): boolean {
  return kind === "missing" && body === "json" && /\bjob\b/i.test(said);
}

/** Whether nobody but the server can have said that: it is there. */
export function isFromServer({ kind, status }: CallFailure): boolean {
  if (kind === "foreign" || kind === "unreachable") return false;
  return !GATEWAY_TROUBLE.includes(status ?? 0);
}

/**
 * Whether the beginning of a 2xx to a post says that it was taken: `OK`, or JSON, or nothing at all.
 *
 * @returns undefined when other words came, which a server may say and something else as well.
 */
export function acknowledges(text: string): true | undefined {
  const words = text.trim();
  return words === "" || /^"?ok"?$/i.test(words) || isJsonObject(words) ? true : undefined;
}

function isJsonObject(text: string): boolean {
  const value = parseJson(text);
  return typeof value === "object" && value !== null;
}

/** The value of a JSON text; undefined when it is none. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function readMessage(text: string): { body: Required<CallFailure>["body"]; message: string } {
  if (text.trim() === "") return { body: "empty", message: "" };
  if (isMarkup(text)) return { body: "markup", message: "answered HTML, not JSON" };
  const value = parseJson(text);
  if (typeof value !== "object" || value === null) {
    return { body: "words", message: foreignLine(text) };
  }
  const message = "message" in value && typeof value.message === "string" ? value.message : "";
  // What a 422 says of each field.
  const { detail: fields } = value as { detail?: unknown }; // an object, whatever it holds
  const hasFields = typeof fields === "object" && fields !== null &&
    Object.keys(fields).length > 0;
  const detail = hasFields ? JSON.stringify(fields) : "";
  return { body: "json", message: foreignLine(`${message} ${detail}`) };
}

/** `Retry-After` as seconds or as an HTTP date, in milliseconds from now. */
function parseRetryAfter(value: string | null, now: number): number | undefined {
  if (value === null) return undefined;
  const text = value.trim();
  // Date.parse() also takes "3" and "soon 3" for dates: an HTTP date names its day.
  const ms = /^\d+(\.\d+)?$/.test(text)
    ? Number(text) * 1000
    : /^[A-Za-z]{3,9},? /.test(text)
    ? Date.parse(text) - now
    : NaN;
  if (Number.isNaN(ms)) return undefined;
  return Math.min(LONGEST_RETRY_AFTER_MS, Math.max(0, Math.round(ms)));
}
