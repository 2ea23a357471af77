import type { ClientRequest, IncomingMessage } from "node:http";
import type { Log } from "../log.ts";
import type { SendStream, StreamRequest } from "./transport.ts";
import { certificatesForNode, proxiesOfEnvironment, usesSystemStore } from "./trust.ts";

/** Of an answer to an upload: a message for people. */
const ANSWER_BYTES = 16_384;

/**
 * Sends a body with `node:http`, which can do two things that `fetch` cannot: announce the length
 * of a stream (some servers answer 411 to a chunked body), and report what a server answered that
 * closed the connection without reading the upload to its end.
 *
 * @param options `length`: of the body, in bytes; undefined: chunked.
 */
export function nodeUpload(options: { length: number | undefined; log: Log }): SendStream {
  return async (request) => {
    const { createConnection, agent } = await open(request.url, options.log);
    const headers = Object.fromEntries(request.headers);
    if (options.length !== undefined) headers["content-length"] = String(options.length);
    const outgoing = createConnection(request.url, { method: "POST", headers, agent });
    try {
      return await exchange(outgoing, request, options.length);
    } finally {
      outgoing.destroy();
      agent.destroy();
    }
  };
}

/** The module for the scheme, with the trust and the proxies that `fetch` would use. */
async function open(url: URL, log: Log) {
  const proxyEnv = proxiesOfEnvironment();
  if (url.protocol === "http:") {
    const { request, Agent } = await import("node:http");
    const options = { keepAlive: false, proxyEnv };
    return { createConnection: request, agent: new Agent(options) };
  }
  const { request, Agent } = await import("node:https");
  const { getCACertificates, rootCertificates } = await import("node:tls");
  const system = usesSystemStore() ? getCACertificates("system") : [];
  const ca = [...rootCertificates, ...system, ...certificatesForNode(log)];
  // Said aloud, because NODE_TLS_REJECT_UNAUTHORIZED=0 would switch it off.
  const options = { keepAlive: false, ca, rejectUnauthorized: true, proxyEnv };
  return { createConnection: request, agent: new Agent(options) };
}

function exchange(
  outgoing: ClientRequest,
  request: StreamRequest,
  length: number | undefined,
): Promise<Response> {
  const { signal } = request;
  return new Promise<Response>((resolve, reject) => {
    let answered = false;
    const abort = () => reject(signal.reason);
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    outgoing.once("close", () => signal.removeEventListener("abort", abort));
    // Stays: what is destroyed may still complain. An answer that came before the connection broke
    // is worth more than its breaking.
    outgoing.on("error", (error) => {
      if (!answered) reject(error);
    });
    outgoing.once("response", (message) => {
      answered = true;
      readAnswer(message).then(resolve, reject);
    });
    send(outgoing, { request, length, answered: () => answered }).catch(reject);
  });
}

async function send(
  outgoing: ClientRequest,
  { request, length, answered }: {
    request: StreamRequest;
    length: number | undefined;
    answered: () => boolean;
  },
): Promise<void> {
  const gone = new Promise<void>((resolve) => {
    outgoing.once("close", resolve);
    outgoing.once("response", () => resolve());
  });
  let sent = 0;
  for await (const chunk of request.body.stream) {
    if (answered() || outgoing.destroyed) return;
    sent += chunk.length;
    if (length !== undefined && sent > length) break;
    if (outgoing.write(chunk)) continue;
    const drained = new Promise<void>((resolve) => outgoing.once("drain", resolve));
    await Promise.race([drained, gone]);
  }
  if (answered() || outgoing.destroyed) return;
  if (length !== undefined && sent !== length) {
    throw new Error("the upload's length has changed since it was counted");
  }
  outgoing.end();
}

/** The answer with the beginning of its body: a connection that is cut behind it does not matter. */
async function readAnswer(message: IncomingMessage): Promise<Response> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let left = ANSWER_BYTES;
  try {
    for await (const chunk of message) {
      // A message without an encoding gives bytes.
      const piece = Uint8Array.from(chunk as Uint8Array).subarray(0, left);
      chunks.push(piece);
      left -= piece.length;
      if (left === 0) break;
    }
  } catch {
    // The status has come, and that is what counts.
  }
  const headers = new Headers();
  for (const name of ["content-type", "location", "retry-after"]) {
    const value = message.headers[name];
    if (typeof value === "string") headers.set(name, value);
  }
  const status = message.statusCode ?? 502;
  const bodyless = status === 204 || status === 205 || status === 304;
  return new Response(bodyless ? null : new Blob(chunks), {
    status,
    statusText: message.statusMessage ?? "",
    headers,
  });
}
