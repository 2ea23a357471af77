/**
 * HTTP with `node:http`, for what `fetch` does not do: ports that the fetch standard forbids, bodies
 * whose length is announced, and the answer of a server that closes the connection without reading
 * an upload to its end.
 */
import type { Agent, ClientRequest, IncomingMessage, request } from "node:http";
import type { Log } from "../log.ts";
import { Outgoing, type SendStream } from "./request_body.ts";
import { certificatesForNode, proxiesOfEnvironment, usesSystemStore } from "./trust.ts";

/** Of an answer to an upload: a message for people. */
const ANSWER_BYTES = 16_384;

/** The fetch standard's "bad ports", on which other protocols than HTTP are at home. */
// deno-fmt-ignore
const BLOCKED_PORTS = new Set([
  1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103,
  104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513,
  514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719,
  1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679,
  6697, 10080,
]);

/** Whether `fetch` refuses to talk to this port. */
export function isBlockedPort({ port }: URL): boolean {
  return BLOCKED_PORTS.has(Number(port));
}

/** A request for `node:http`. */
interface NodeRequest {
  url: URL;
  method: string;
  headers: Headers;
  /** A stream goes out chunked. */
  body: Outgoing | Uint8Array | undefined;
  signal: AbortSignal;
}

/** What makes connections to one kind of address. */
interface Connector {
  request: typeof request;
  agent: Agent;
}

/** Requests that keep their connections, as `fetch` does. */
export class NodeHttp {
  readonly #log: Log;
  readonly #connectors = new Map<string, Promise<Connector>>();

  constructor(log: Log) {
    this.#log = log;
  }

  /** Resolves with the head of the answer, as `fetch` does. It follows no redirect. */
  async request({ url, method, headers, body, signal }: NodeRequest): Promise<Response> {
    let connector = this.#connectors.get(url.protocol);
    if (connector === undefined) {
      connector = connect(url, { log: this.#log, keepAlive: true });
      this.#connectors.set(url.protocol, connector);
    }
    const { request, agent } = await connector;
    const isBytes = body instanceof Uint8Array;
    const outgoing = request(url, {
      method,
      headers: {
        "accept-encoding": "identity",
        ...Object.fromEntries(headers),
        ...(isBytes && { "content-length": String(body.length) }),
      },
      agent,
    });
    const response = await exchange(outgoing, {
      signal,
      send: async (answered) => {
        if (body instanceof Outgoing) await sendStream(outgoing, { body, answered });
        else outgoing.end(body);
      },
      receive: (message) => Promise.resolve(streamed(message)),
    });
    return response;
  }

  /** Closes the connections. */
  close(): void {
    for (const connector of this.#connectors.values()) {
      connector.then(({ agent }) => agent.destroy(), () => {});
    }
  }
}

/**
 * Sends an upload on a connection of its own.
 *
 * @param options `length`: of the body, in bytes; undefined: chunked.
 */
export function nodeUpload(options: { length: number | undefined; log: Log }): SendStream {
  return async ({ url, headers, body, signal }) => {
    const { length, log } = options;
    const { request, agent } = await connect(url, { log, keepAlive: false });
    const announced = Object.fromEntries(headers);
    if (length !== undefined) announced["content-length"] = String(length);
    const outgoing = request(url, { method: "POST", headers: announced, agent });
    try {
      return await exchange(outgoing, {
        signal,
        send: (answered) => sendStream(outgoing, { body, length, answered }),
        receive: beginning,
      });
    } finally {
      outgoing.destroy();
      agent.destroy();
    }
  };
}

/** The module for the scheme, with the trust and the proxies that `fetch` would use. */
async function connect(
  url: URL,
  { log, keepAlive }: { log: Log; keepAlive: boolean },
): Promise<Connector> {
  const proxyEnv = proxiesOfEnvironment();
  if (url.protocol === "http:") {
    const { request, Agent } = await import("node:http");
    const options = { keepAlive, proxyEnv };
    return { request, agent: new Agent(options) };
  }
  const { request, Agent } = await import("node:https");
  const { getCACertificates, rootCertificates } = await import("node:tls");
  const system = usesSystemStore() ? getCACertificates("system") : [];
  const ca = [...rootCertificates, ...system, ...certificatesForNode(log)];
  // Said aloud, because NODE_TLS_REJECT_UNAUTHORIZED=0 would switch it off.
  const options = { keepAlive, ca, rejectUnauthorized: true, proxyEnv };
  return { request, agent: new Agent(options) };
}

interface Exchange {
  signal: AbortSignal;
  /** Sends the body; `answered` says whether the answer has come already. */
  send: (answered: () => boolean) => Promise<void>;
  receive: (message: IncomingMessage) => Promise<Response>;
}

function exchange(
  outgoing: ClientRequest,
  { signal, send, receive }: Exchange,
): Promise<Response> {
  return new Promise<Response>((resolve, reject) => {
    let answered = false;
    const abort = () => {
      outgoing.destroy();
      reject(signal.reason);
    };
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
      receive(message).then(resolve, reject);
    });
    send(() => answered).catch(reject);
  });
}

async function sendStream(
  outgoing: ClientRequest,
  { body, length, answered }: {
    body: Outgoing;
    length?: number | undefined;
    answered: () => boolean;
  },
): Promise<void> {
  const gone = new Promise<void>((resolve) => {
    outgoing.once("close", resolve);
    outgoing.once("response", () => resolve());
  });
  let sent = 0;
  for await (const chunk of body.stream) {
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

/** The answer, whose body is read as it comes. */
function streamed(message: IncomingMessage): Response {
  const chunks = message[Symbol.asyncIterator]();
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      const { done, value } = await chunks.next();
      // A message without an encoding gives bytes.
      if (!done) return controller.enqueue(Uint8Array.from(value as Uint8Array));
      controller.close();
    },
    cancel: () => void message.destroy(),
  }, { highWaterMark: 0 });
  return responseOf(message, body);
}

/** The answer with the beginning of its body: a connection that is cut behind it does not matter. */
async function beginning(message: IncomingMessage): Promise<Response> {
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
  return responseOf(message, new Blob(chunks));
}

function responseOf(message: IncomingMessage, body: BodyInit): Response {
  const headers = new Headers();
  for (const [name, value] of Object.entries(message.headers)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined) headers.append(name, one);
    }
  }
  const status = message.statusCode ?? 502;
  const isBodyless = status === 204 || status === 205 || status === 304;
  if (isBodyless) message.resume();
  return new Response(isBodyless ? null : body, {
    status,
    statusText: message.statusMessage ?? "",
    headers,
  });
}
