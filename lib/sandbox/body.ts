/** Reading the JSON bodies and the query parameters of requests, as strictly as the real server does. */
import type { Context } from "hono";
import type * as z from "zod";
import { RefusedRequest } from "./answers.ts";

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
export function isJobId(text: string): boolean {
  return HEX_ID.test(text.replace(/^urn:uuid:/, "").replace(/[{}-]/g, ""));
}

/** @throws RefusedRequest 400 when `jobId` is not a UUID. */
export function checkJobId(jobId: string): string {
  if (!isJobId(jobId)) throw new RefusedRequest(400, "Invalid job_id specified");
  return jobId;
}
