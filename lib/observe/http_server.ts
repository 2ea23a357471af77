/**
 * A small HTTP server for questions and short forms, one request a connection. The runtime's own
 * takes as many connections as come, waits for ever for the rest of a request, and ends at the first
 * connection for which there is no file left.
 */
import { within } from "../wait.ts";
import { writeAll } from "../bytes.ts";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";

/** Each takes a file, of which the jobs need some, too. */
const MOST_CONNECTIONS = 32;
/** Once files have run out it is half of what there was, but so many, for a minute. */
const FEWEST_CONNECTIONS = 4;
const FEW_FOR_MS = 60_000;
/** Until a request has come whole. */
const REQUEST_LIMIT_MS = 10_000;
const LARGEST_REQUEST_BYTES = 16 * 1024;
/** Until the other side has taken a piece of an answer. */
const WRITE_LIMIT_MS = 60_000;
/** After the answer: what the other side still sends is taken, or it might not see the answer. */
const LINGER_MS = 1_000;
/** After a connection could not be taken. */
const ACCEPT_AGAIN_MS = 1_000;
/** It is said again after so long. */
const SAY_AGAIN_MS = 3_600_000;

/** What is served, and by whom. */
export interface HttpServerOptions {
  /** Bound already; closed with the server. */
  listener: Deno.Listener;
  answer(request: Request): Response | Promise<Response>;
  /** What it is, for the log: "the status page". */
  what: string;
  clock: Clock;
  log: Log;
}

/** One connection, from its first byte to its end. */
interface Connection {
  conn: Deno.Conn;
  /** It may be closed to make room for another one. */
  isIncomplete: boolean;
}

/** Serves until it is closed. */
export class HttpServer {
  readonly #options: HttpServerOptions;
  readonly #connections = new Set<Connection>();
  readonly #closing = new AbortController();
  readonly #accepting: Promise<void>;
  #most = MOST_CONNECTIONS;
  #fewUntil = -Infinity;
  #idle = Promise.withResolvers<void>();

  constructor(options: HttpServerOptions) {
    this.#options = options;
    this.#accepting = this.#accept();
  }

  /** Takes no more connections, and lets the answers that have begun come to their end, for `limitMs`. */
  async close(limitMs: number): Promise<void> {
    const { clock, listener } = this.#options;
    this.#closing.abort();
    closeQuietly(listener);
    for (const connection of this.#connections) {
      if (connection.isIncomplete) closeQuietly(connection.conn);
    }
    await this.#accepting;
    if (this.#connections.size === 0) return;
    this.#idle = Promise.withResolvers();
    await within(this.#idle.promise, { clock, ms: limitMs });
    for (const { conn } of this.#connections) closeQuietly(conn);
  }

  async #accept(): Promise<void> {
    const { listener, log, what, clock } = this.#options;
    const { signal } = this.#closing;
    let saidAt = -Infinity;
    while (!signal.aborted) {
      try {
        this.#take(await listener.accept());
      } catch (error) {
        if (signal.aborted) return;
        this.#most = Math.max(FEWEST_CONNECTIONS, Math.floor(this.#connections.size / 2));
        this.#fewUntil = clock.monotonic() + FEW_FOR_MS;
        this.#makeRoom();
        if (clock.monotonic() - saidAt >= SAY_AGAIN_MS) {
          saidAt = clock.monotonic();
          log.error(
            `Cannot take a connection to ${what}: ${
              messageOf(error)
            }. It is retried automatically, ` +
              `with ${this.#most} connections at once; if files have run out, raise the limit on ` +
              "open files (LimitNOFILE)",
          );
        }
        await clock.sleep(ACCEPT_AGAIN_MS, signal).catch(() => {});
      }
    }
  }

  #take(conn: Deno.Conn): void {
    if (this.#options.clock.monotonic() >= this.#fewUntil) this.#most = MOST_CONNECTIONS;
    this.#makeRoom();
    if (this.#connections.size >= this.#most) return closeQuietly(conn);
    const connection: Connection = { conn, isIncomplete: true };
    this.#connections.add(connection);
    this.#serve(connection).catch(() => {}).finally(() => {
      closeQuietly(conn);
      this.#connections.delete(connection);
      if (this.#connections.size === 0) this.#idle.resolve();
    });
  }

  /** Closes those that have had most time to say what they want, and have not, until one more may come. */
  #makeRoom(): void {
    for (const connection of this.#connections) {
      if (this.#connections.size < this.#most) return;
      if (!connection.isIncomplete) continue;
      closeQuietly(connection.conn);
      this.#connections.delete(connection);
    }
  }

  async #serve(connection: Connection): Promise<void> {
    const { conn } = connection;
    const read = await this.#within(REQUEST_LIMIT_MS, conn, readRequest(conn));
    if (read === undefined) return;
    connection.isIncomplete = false;
    const { head } = read;
    const request = parseRequest(read);
    const response = request === undefined
      ? new Response("This is not an HTTP request.\n", { status: 400 })
      : await this.#options.answer(request);
    await this.#send(response, conn, {
      hasBody: request?.method !== "HEAD",
      isChunked: / HTTP\/1\.1\r?\n/.test(head),
    });
    await conn.closeWrite();
    await this.#within(LINGER_MS, conn, readToEnd(conn));
  }

  async #send(
    response: Response,
    conn: Deno.Conn,
    { hasBody, isChunked }: { hasBody: boolean; isChunked: boolean },
  ): Promise<void> {
    const write = (bytes: Uint8Array) => this.#within(WRITE_LIMIT_MS, conn, writeAll(conn, bytes));
    const { status, headers, body } = response;
    headers.set("connection", "close");
    headers.set("date", new Date(this.#options.clock.now()).toUTCString());
    if (body !== null && isChunked) headers.set("transfer-encoding", "chunked");
    const lines = [...headers].map(([name, value]) => `${name}: ${value}\r\n`).join("");
    await write(encoder.encode(`HTTP/1.1 ${status} ${response.statusText}\r\n${lines}\r\n`));
    if (body === null) return;
    if (!hasBody) return await body.cancel();
    const reader = body.getReader();
    // Events have no end of their own: they end when the one who listens goes.
    if (headers.get("content-type")?.startsWith("text/event-stream")) {
      readToEnd(conn).catch(() => {}).then(() => reader.cancel()).catch(() => {});
    }
    try {
      while (true) {
        const { done, value } = await reader.read();
        if (done) break;
        if (value.length === 0) continue;
        if (isChunked) await write(encoder.encode(`${value.length.toString(16)}\r\n`));
        await write(value);
        if (isChunked) await write(NEW_LINE);
      }
      if (isChunked) await write(encoder.encode("0\r\n\r\n"));
    } catch (error) {
      await reader.cancel().catch(() => {});
      throw error;
    }
  }

  /** Closes the connection when the work takes too long; the work then fails. */
  async #within<T>(ms: number, conn: Deno.Conn, work: Promise<T>): Promise<T> {
    const over = new AbortController();
    this.#options.clock.sleep(ms, over.signal).then(() => closeQuietly(conn), () => {});
    try {
      return await work;
    } finally {
      over.abort();
    }
  }
}

const encoder = new TextEncoder();
const NEW_LINE = encoder.encode("\r\n");

/** A request as it came: bytes as characters, as headers have them, and its body. */
interface RawRequest {
  head: string;
  body: Uint8Array<ArrayBuffer>;
}

/** A whole request; undefined when it ends early or is too long. */
async function readRequest(conn: Deno.Conn): Promise<RawRequest | undefined> {
  const buffer = new Uint8Array(LARGEST_REQUEST_BYTES);
  let filled = 0;
  let head: string | undefined;
  while (true) {
    if (head === undefined) {
      const text = String.fromCharCode(...buffer.subarray(0, filled));
      const end = /\r?\n\r?\n/.exec(text);
      if (end !== null) head = text.slice(0, end.index + end[0].length);
    }
    if (head !== undefined) {
      const end = head.length + bodyLength(head);
      if (filled >= end) return { head, body: buffer.slice(head.length, end) };
    }
    if (filled === buffer.length) return undefined;
    const read = await conn.read(buffer.subarray(filled));
    if (read === null) return undefined;
    filled += read;
  }
}

/** Only a form has a body that anybody reads. */
function bodyLength(head: string): number {
  if (!head.startsWith("POST ")) return 0;
  return Number(/^content-length:[ \t]*(\d{1,9})[ \t]*\r?$/im.exec(head)?.[1] ?? 0);
}

function parseRequest({ head, body }: RawRequest): Request | undefined {
  const [first = "", ...lines] = head.trimEnd().split(/\r?\n/);
  const [, method, target] = /^([A-Z]+) (\S+) HTTP\/1\.[01]$/.exec(first) ?? [];
  if (method === undefined || target === undefined) return undefined;
  try {
    const headers = new Headers();
    for (const line of lines) {
      const [, name, value] = /^([^\s:]+):[ \t]*(.*?)[ \t]*$/.exec(line) ?? [];
      if (name === undefined || value === undefined) return undefined;
      headers.append(name, value);
    }
    const origin = `http://${headers.get("host") || "localhost"}`;
    // The whole URL is what a client sends that takes us for a proxy, as one at a socket does.
    const url = target.startsWith("/") ? `${origin}${target}` : target;
    return new Request(url, { method, headers, ...(body.length > 0 && { body }) });
  } catch {
    // No host name, a forbidden method or character.
    return undefined;
  }
}

async function readToEnd(conn: Deno.Conn): Promise<void> {
  const buffer = new Uint8Array(4096);
  while (await conn.read(buffer) !== null);
}

function closeQuietly(resource: { close(): void }): void {
  try {
    resource.close();
  } catch {
    // It is closed already.
  }
}
