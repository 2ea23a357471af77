/** Requests read, and answers written, in the form of the real server: bodies, ids, dates, the cookie. */
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type * as z from "zod";

/** Ends a request with an error: what the real server does with its `abort()`. */
export class RefusedRequest extends Error {
  readonly status: ContentfulStatusCode;
  /** What is wrong with each field, by place (`json`, `query`) and field. */
  readonly detail: Record<string, unknown>;

  constructor(
    status: ContentfulStatusCode,
    message: string,
    detail: Record<string, unknown> = {},
  ) {
    super(message);
    this.status = status;
    this.detail = detail;
  }
}

/** Plain words. The real server labels them as HTML, and a client must cope with that. */
export function words(c: Context, body: string, status: ContentfulStatusCode = 200): Response {
  return c.body(body, status, { "Content-Type": "text/html; charset=utf-8" });
}

/** JSON with its keys in alphabetical order, nested ones too. */
export function json(c: Context, value: unknown, status: ContentfulStatusCode = 200): Response {
  return c.body(`${asciiJson(sortKeys(value))}\n`, status, { "Content-Type": "application/json" });
}

/** 204: the answer to whatever is not there. */
export function nothing(c: Context): Response {
  return c.body(null, 204);
}

const NOT_ASCII = /[\u007f-\uffff]/g;

/** JSON of pure ASCII, as the real server writes it: everything else becomes `\uXXXX`. */
export function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(
    NOT_ASCII,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** The same value with the keys of every object in alphabetical order. */
export function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
      .map(([key, inner]) => [key, sortKeys(inner)]),
  );
}

/** The server's store takes no document of this size or more. */
const BODY_LIMIT_BYTES = 16 * 1024 * 1024;

const JSON_TYPE = /^application\/(?:[\w.-]+\+)?json\s*(?:;|$)/i;

/**
 * Reads a JSON body.
 *
 * A body that is not labelled as JSON is not looked at, and counts as empty: the real server does so.
 *
 * @throws RefusedRequest 413 from 16 MiB on, 400 when it is not JSON, 422 when it does not fit `schema`.
 */
export async function readBody<S extends z.ZodType>(c: Context, schema: S): Promise<z.output<S>> {
  if (Number(c.req.header("Content-Length") ?? 0) >= BODY_LIMIT_BYTES) throw tooLarge();
  if (!JSON_TYPE.test(c.req.header("Content-Type") ?? "")) return check(schema, {}, "json");
  // Chunked bodies have no Content-Length: they are measured once they are here.
  const bytes = await c.req.arrayBuffer();
  if (bytes.byteLength >= BODY_LIMIT_BYTES) throw tooLarge();
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new RefusedRequest(400, "Malformed JSON", { json: ["Invalid JSON."] });
  }
  return check(schema, value, "json");
}

/** @throws RefusedRequest 422 when `value` does not fit `schema`; `place` says what it is a part of. */
export function check<S extends z.ZodType>(
  schema: S,
  value: unknown,
  place: "json" | "query",
): z.output<S> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new RefusedRequest(422, "Validation error", { [place]: describeIssues(result.error) });
}

/** What is wrong, by field: `{"test_data": {"secrets": ["..."]}}`. */
export function describeIssues(error: z.ZodError): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  for (const issue of error.issues) {
    if (issue.code === "unrecognized_keys") {
      for (const key of issue.keys) put(fields, [...issue.path, key], "Unknown field.");
    } else {
      const missing = issue.message.endsWith("received undefined");
      put(fields, issue.path, missing ? "Missing data for required field." : issue.message);
    }
  }
  return fields;
}

function put(fields: Record<string, unknown>, path: readonly PropertyKey[], message: string): void {
  const keys = path.length === 0 ? ["_schema"] : path.map(String);
  const last = keys.pop() ?? "_schema";
  let place = fields;
  for (const key of keys) {
    const inner = place[key];
    if (isRecord(inner)) {
      place = inner;
    } else {
      const made: Record<string, unknown> = {};
      place[key] = made;
      place = made;
    }
  }
  const messages = place[last];
  if (Array.isArray(messages)) messages.push(message);
  else if (messages === undefined) place[last] = [message];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function tooLarge(): RefusedRequest {
  return new RefusedRequest(413, "Payload too large");
}

const HEX_ID = /^[0-9a-f]{32}$/i;

/** Whether the server takes this for a job id: any way of writing a UUID. */
export function isUuid(text: string): boolean {
  return HEX_ID.test(text.replace(/^urn:uuid:/, "").replace(/[{}-]/g, ""));
}

/** @throws RefusedRequest 400 when `jobId` is not a UUID. */
export function checkJobId(jobId: string): string {
  if (!isUuid(jobId)) throw new RefusedRequest(400, "Invalid job_id specified");
  return jobId;
}

/** How a server writes `updated_at`: both are in the field. */
export type DateForm = "iso" | "$date";

/** `2026-01-01T00:00:00Z`, or `{"$date": "2026-01-01T00:00:00Z"}`. */
export function dateOf(ms: number, form: DateForm = "iso"): string | { $date: string } {
  const text = `${seconds(ms)}Z`;
  return form === "iso" ? text : { $date: text };
}

/** `started_at` as current servers write it: an offset *and* a Z, which no parser takes. */
export function malformedDate(ms: number): string {
  return `${seconds(ms)}+00:00Z`;
}

function seconds(ms: number): string {
  return new Date(ms).toISOString().slice(0, "2026-01-01T00:00:00".length);
}

const NAME = "agent_name";
const PLAIN = /^[\w!#$%&'()*+\-./:<=>?@[\]^`{|}~]*$/;

/** The agent that this request says it is; undefined when it does not say. */
export function agentOf(c: Context): string | undefined {
  for (const pair of (c.req.header("Cookie") ?? "").split(";")) {
    const [name, ...rest] = pair.split("=");
    if (name?.trim() === NAME) return unquote(rest.join("=").trim()) || undefined;
  }
  return undefined;
}

/** Names the agent to itself, for requests to come. */
export function setAgentCookie(c: Context, agentId: string): void {
  c.header("Set-Cookie", `${NAME}=${quote(agentId)}; HttpOnly; Path=/; SameSite=Strict`);
}

/** As the real server does it: what may not be in a cookie becomes a backslash and octal digits. */
function quote(value: string): string {
  if (PLAIN.test(value)) return value;
  const quoted = Array.from(new TextEncoder().encode(value), (byte) => {
    const char = String.fromCharCode(byte);
    return byte < 128 && PLAIN.test(char) || char === " "
      ? char
      : `\\${byte.toString(8).padStart(3, "0")}`;
  });
  return `"${quoted.join("")}"`;
}

function unquote(value: string): string {
  if (!/^".*"$/.test(value)) return value;
  const bytes: number[] = [];
  for (const [whole, octal] of value.slice(1, -1).matchAll(/\\([0-7]{3})|[^]/g)) {
    bytes.push(octal === undefined ? whole.charCodeAt(0) : parseInt(octal, 8));
  }
  return new TextDecoder().decode(Uint8Array.from(bytes));
}
