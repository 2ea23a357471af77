/** Answers in the form in which the real server gives them. */
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";

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
