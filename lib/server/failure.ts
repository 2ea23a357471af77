import type { Failure } from "./api.ts";
import { TimeUp } from "./watch.ts";

/** A failure with what the client itself wants to know of it. */
export interface CallFailure extends Failure {
  /** What kind of text came with the status. */
  body?: "empty" | "json" | "html" | "text";
  /** The connection broke while a stream was being sent. */
  brokenUpload?: boolean;
}

/** As much of a server's message as fits a log line. */
const MESSAGE_CHARS = 200;

/** A server that lies about `Retry-After` must not put an agent to sleep for a year. */
const LONGEST_RETRY_AFTER_MS = 3_600_000;

/** Makes one printable line of what somebody else wrote. */
export function oneLine(text: string): string {
  const line = text.toWellFormed()
    // Controls, line separators and the marks that turn the direction of writing.
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\s]+/gu, " ")
    .trim();
  const chars = [...line];
  return chars.length <= MESSAGE_CHARS ? line : `${chars.slice(0, MESSAGE_CHARS).join("")}...`;
}

/** What to make of a status that is not a 2xx. */
function kindOf(status: number): Failure["kind"] {
  if (status === 401) return "unauthorised";
  if (status === 403) return "forbidden";
  if (status === 408 || status === 429 || status >= 500) return "busy";
  return "refused";
}

/** What came with an answer that is not a 2xx. */
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

/** Words an answer that is not a 2xx. */
export function httpFailure(answer: BadAnswer): CallFailure {
  const { body, message } = readMessage(answer.text, answer.headers.get("content-type") ?? "");
  const status = oneLine(`${answer.status} ${answer.statusText}`);
  const retryAfterMs = parseRetryAfter(answer.headers.get("retry-after"), answer.now);
  return {
    ok: false,
    kind: kindOf(answer.status),
    status: answer.status,
    message: `${answer.what}: ${status}${message === "" ? "" : `: ${message}`}`,
    body,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  };
}

/** Whether this looks like a page for people rather than an answer of the API. */
export function isHtml(text: string, contentType: string): boolean {
  return /\bhtml\b/i.test(contentType) || /^\s*<(!doctype|html|head|body)\b/i.test(text);
}

function readMessage(
  text: string,
  contentType: string,
): { body: Required<CallFailure>["body"]; message: string } {
  if (text.trim() === "") return { body: "empty", message: "" };
  if (isHtml(text, contentType)) return { body: "html", message: "answered HTML, not JSON" };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { body: "text", message: oneLine(text) };
  }
  if (typeof value !== "object" || value === null) return { body: "text", message: oneLine(text) };
  const message = "message" in value && typeof value.message === "string" ? value.message : "";
  // What a 422 says of each field.
  const { detail: fields } = value as { detail?: unknown }; // an object, whatever it holds
  const hasFields = typeof fields === "object" && fields !== null &&
    Object.keys(fields).length > 0;
  const detail = hasFields ? JSON.stringify(fields) : "";
  return { body: "json", message: oneLine(`${message} ${detail}`) };
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

/** Why no whole answer came. */
export interface NoAnswer {
  /** Method and URL. */
  what: string;
  error: unknown;
  /** That of the exchange; its reason tells a time-out from the caller's wish. */
  signal: AbortSignal;
}

/** Words an exchange that brought no answer. */
export function noAnswer({ what, error, signal }: NoAnswer): Failure {
  if (signal.aborted && !(signal.reason instanceof TimeUp)) {
    return { ok: false, kind: "aborted", message: `${what}: given up on request` };
  }
  const reason = signal.aborted ? signal.reason.message : describe(error);
  return { ok: false, kind: "unreachable", message: `${what}: ${reason}` };
}

/** The last part of what the runtime says, which names the trouble; the rest repeats the URL. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return oneLine(String(error));
  const inner = error.cause instanceof Error ? error.cause : error;
  const text = oneLine(inner.message.replace(/^.*?client error \(\w+\): /s, ""));
  if (/certificate (expired|not valid yet)/i.test(text)) {
    return `the server's certificate is not valid now (${text}): have it renewed, or set this ` +
      `host's clock right`;
  }
  if (/certificate|UnknownIssuer/i.test(text)) {
    return `the server's certificate is not accepted (${text}): if its authority is your own, ` +
      `name the authority's certificate in SSL_CERT_FILE or DENO_CERT`;
  }
  if (/invalid HTTP version|corrupt message/i.test(text)) {
    return `what answers there does not speak HTTP (${text}): check server_address`;
  }
  return text === "" ? "no answer" : text;
}
