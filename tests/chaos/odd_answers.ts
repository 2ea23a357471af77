/** Answers that a server should not give, and that something else may give in its place. */
import type { ServerResponse } from "node:http";
import type { Random } from "./random.ts";

/** What a server in trouble answers, and a gateway without words of its own. */
export const STATUSES = [500, 502, 503, 429, 401, 504, 408] as const;

/** With each of these a gateway, a captive portal or a VPN may show a page. */
export const PAGE_STATUSES = [
  ...[200, 203, 302, 307, 400, 401, 403, 404, 405],
  ...[410, 413, 422, 451, 500, 502, 503, 511],
] as const;

/** What a server says of a token that it cannot read. */
const BAD_TOKENS = [
  "Invalid Token",
  "Invalid Token signature",
  "Token missing required claim",
  "Unable to decode token",
] as const;

const PAGE =
  "<!DOCTYPE html>\n<html><head><title>Log in</title></head><body>Log in</body></html>\n";
const DRIP_EVERY_MS = 40;

/** An answer without a meaning. */
export function refuse(response: ServerResponse, status: number, random: Random): void {
  const retry: Record<string, string> = status === 503 || status === 429
    ? { "retry-after": random.chance(0.1) ? "999999999" : String(random.int(0, 3)) }
    : {};
  response.writeHead(status, { "content-type": "application/json", ...retry });
  response.end(`{"message": "chaos"}`);
}

/** A page for people. */
export function showPage(response: ServerResponse, status: number): void {
  const location: Record<string, string> = status === 302 || status === 307
    ? { location: "/login" }
    : {};
  response.writeHead(status, { "content-type": "text/html; charset=utf-8", ...location });
  response.end(PAGE);
}

/** 403: the token is no good. */
export function refuseToken(response: ServerResponse, random: Random): void {
  forbid(response, random.pick(BAD_TOKENS));
}

/** 403: the token's role may not do this. */
export function refuseRole(response: ServerResponse): void {
  forbid(response, "Specified action requires role: agent");
}

function forbid(response: ServerResponse, message: string): void {
  response.writeHead(403, { "content-type": "application/json" });
  response.end(JSON.stringify({ message }));
}

/** What the server has answered. */
export interface RealAnswer {
  status: number;
  headers: Record<string, string>;
  content: Uint8Array;
}

/** The beginning of the answer, and then the connection is lost. */
export function cut(response: ServerResponse, answer: RealAnswer, at: number): void {
  response.writeHead(answer.status, answer.headers);
  response.write(answer.content.subarray(0, at), () => response.socket?.destroy());
}

/** The beginning of the answer, and then nothing more. */
export function stall(response: ServerResponse, answer: RealAnswer, at: number): void {
  response.writeHead(answer.status, answer.headers);
  response.write(answer.content.subarray(0, at));
}

/** The answer, and then spaces without an end. */
export function dripOn(response: ServerResponse, { status, headers, content }: RealAnswer): void {
  const { "content-length": _, ...rest } = headers;
  response.writeHead(status, rest);
  response.write(content);
  const timer = setInterval(() => response.write("  "), DRIP_EVERY_MS);
  response.on("close", () => clearInterval(timer));
}
