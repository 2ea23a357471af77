import { unlessAborted } from "../wait.ts";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import {
  type CallFailure,
  classify,
  foreignLine,
  isFromServer,
  isMarkup,
  MARKUP,
} from "./classify.ts";
import { noAnswer, Received, TimeLimit } from "./exchange.ts";
import type { Connections } from "./connections.ts";
import { isBlockedPort } from "./node_http.ts";
import { Outgoing, type SendStream } from "./request_body.ts";

/** One request. */
export interface Call {
  method: "GET" | "POST";
  /** Below the server's address, with a leading slash, percent-encoded. */
  path: string;
  body?: RequestBody;
  /** Milliseconds. */
  limitMs: number;
  /** Count the limit since the last byte instead of over the whole exchange. */
  idle?: boolean;
  /** With `idle`: the whole takes no longer than this, in milliseconds. */
  totalMs?: number;
  headers?: Record<string, string>;
  /** Goes out without `Authorization`. */
  anonymous?: boolean;
  /**
   * The server must not get it twice. `fetch` in Deno 2.9.5 sends a request again by itself when the
   * connection is lost before the answer (denoland/deno#35610), unless its body is a stream.
   */
  once?: boolean;
  /** What must not be repeated in a message even if the server does. */
  secret?: string;
  signal?: AbortSignal | undefined;
  /** Once it has aborted the request is not sent any more; one that is in flight goes on. */
  noLater?: AbortSignal | undefined;
}

/** What a request carries. */
export interface RequestBody {
  type: string;
  /** A text (as UTF-8 where it is bytes), or the start of a stream, once per attempt. */
  content: string | Uint8Array<ArrayBuffer> | (() => ReadableStream<Uint8Array>);
}

/** What a `Transport` needs. */
export interface TransportOptions {
  /** Without user and password, without a slash at the end. */
  address: string;
  /** `Authorization` for where there is no token: user and password of the address. */
  basic: string | undefined;
  clock: Clock;
  log: Log;
  connections: Connections;
  /** The `Cookie` by which the server knows the agent; undefined while there is none. */
  cookie: () => string | undefined;
  onAnswer: ((ok: boolean, message?: string) => void) | undefined;
}

/** What a server answers that does not take a body of unknown length. */
const LENGTH_REQUIRED = 411;

/** More than that is a loop. */
const MOST_REDIRECTS = 5;

/** Of an answer that is not a 2xx: a message for people, and what is wrong with each field. */
const ERROR_TEXT_BYTES = 65_536;
/** It is short, and comes in one piece. */
const ERROR_TEXT_MS = 30_000;

/**
 * A body of more than 1 MiB gets more time, as if the link carried 64 KiB a second: a slow link is
 * not a dead one.
 */
const LARGE_BODY_CHARS = 1_048_576;
const SLOW_LINK_CHARS_PER_MS = 64;

/** HTTP over `fetch`: redirects, time limits, credentials by origin, and words for what goes wrong. */
export class Transport {
  readonly #options: TransportOptions;
  readonly #origin: string;
  readonly #client: Deno.HttpClient;
  readonly #closing = new AbortController();
  /** Set once the server, or something before it, wanted to know the length of a body. */
  #wantsLength = false;

  constructor(options: TransportOptions) {
    this.#options = options;
    this.#origin = new URL(options.address).origin;
    this.#client = options.connections.fetching(options.log);
  }

  /** Gives up what is in flight. */
  close(): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(new Error("The client is closed"));
  }

  /**
   * Sends a request and waits for the head of the answer.
   *
   * @param call the request.
   * @param extra `token`: the access token; `sendStream`: instead of `fetch`.
   * @returns a 2xx whose body has yet to be read, or why there is none.
   * @throws what the body's own source throws.
   */
  async send(
    call: Call,
    extra: { token?: string | undefined; sendStream?: SendStream | undefined } = {},
  ): Promise<Received | CallFailure> {
    const what = `${call.method} ${this.#options.address}${call.path}`;
    const { content } = call.body ?? {};
    const excess = typeof content === "function" ? 0 : (content?.length ?? 0) - LARGE_BODY_CHARS;
    const limit = new TimeLimit({
      clock: this.#options.clock,
      limitMs: call.limitMs + Math.max(0, Math.round(excess / SLOW_LINK_CHARS_PER_MS)),
      idle: call.idle ?? false,
      totalMs: call.totalMs,
      signals: [this.#closing.signal, call.signal],
    });
    let answer: Received | CallFailure | undefined;
    try {
      const response = await this.#follow({ call, what, limit, ...extra });
      answer = response instanceof Response
        ? await this.#receive(response, { call, what, limit, ...extra })
        : response;
    } finally {
      if (!(answer instanceof Received)) limit[Symbol.dispose]();
    }
    this.#tellConnectivity(call, answer);
    return answer;
  }

  /** Looks at the beginning of what has come: it tells whether it comes from the server. */
  async #receive(
    response: Response,
    { call, what, limit, token }: Sending,
  ): Promise<Received | CallFailure> {
    const received = new Received({ what, response, limit });
    if (response.ok) {
      const begin = await received.begin();
      if (typeof begin === "string" && !isMarkup(begin)) return received;
      received.release();
      return typeof begin === "string" ? received.foreign(MARKUP) : begin;
    }
    // A server may quote what it refuses. Before the text is shortened: half a secret is one too.
    const secrets = [call.secret, token].filter((secret) => secret !== undefined);
    const hide = (text: string) =>
      secrets.reduce((hidden, secret) => hidden.replaceAll(secret, "***"), text);
    received.endWithin(ERROR_TEXT_MS);
    const { bytes, failure } = await received.readAll(ERROR_TEXT_BYTES);
    // What was cut off may be the half of anything. But who stops reading an upload and says why may
    // well close the connection behind that.
    const isUpload = typeof call.body?.content === "function";
    if (failure !== undefined && failure.kind !== "foreign" && !isUpload) return failure;
    return classify({
      what,
      status: response.status,
      statusText: hide(response.statusText),
      headers: response.headers,
      text: hide(new TextDecoder().decode(bytes)),
      now: this.#options.clock.now(),
    });
  }

  /** Goes from redirect to redirect. */
  async #follow(sending: Sending): Promise<Response | CallFailure> {
    const { call, what, limit } = sending;
    let url = new URL(this.#options.address + call.path);
    for (let redirects = 0;; redirects++) {
      const response = await this.#once(url, sending);
      if (!(response instanceof Response)) return response;
      const location = response.headers.get("location");
      if (![301, 302, 303, 307, 308].includes(response.status) || location === null) {
        return response;
      }
      letGo(response);
      const refuse = (why: string): CallFailure => ({
        ok: false,
        // Not the server's own refusal: a gateway may show people a page for a while.
        kind: "foreign",
        status: response.status,
        message: `${what}: ${response.status}: ${why}`,
      });
      const next = URL.canParse(location, url) ? new URL(location, url) : undefined;
      if (next === undefined || !/^https?:$/.test(next.protocol)) {
        return refuse("redirected to what is not an HTTP address");
      }
      next.username = next.password = next.hash = "";
      const shown = foreignLine(`${next.origin}${next.pathname}`);
      if (redirects === MOST_REDIRECTS) return refuse(`redirected too often, last to ${shown}`);
      if (call.method === "POST") {
        const keepsBody = response.status === 307 || response.status === 308;
        if (!keepsBody || next.origin !== this.#origin) {
          const hint = next.origin === this.#origin
            ? ""
            : `; if that is the server, server_address should say ${next.origin}`;
          return refuse(`redirected to ${shown}, where a POST does not follow${hint}`);
        }
      }
      url = next;
      limit.touch();
    }
  }

  async #once(url: URL, sending: Sending): Promise<Response | CallFailure> {
    const { call, what, limit } = sending;
    if (call.noLater?.aborted) {
      return { ok: false, kind: "aborted", message: `${what}: not sent` };
    }
    const headers = this.#headers(url, sending);
    const { content } = call.body ?? {};
    const outgoing = typeof content === "function"
      ? new Outgoing(content(), () => limit.touch())
      : undefined;
    try {
      const response = await unlessAborted(
        this.#dispatch({ url, headers, outgoing }, sending),
        limit.signal,
      );
      if (response.status === LENGTH_REQUIRED && call.once && !this.#wantsLength) {
        this.#wantsLength = true;
        letGo(response);
        return await this.#once(url, sending);
      }
      limit.touch();
      return response;
    } catch (error) {
      if (outgoing?.fault !== undefined) throw outgoing.fault.error;
      const failure = noAnswer({ what, error, signal: limit.signal });
      if (failure.kind === "unreachable" && outgoing !== undefined && outgoing.sent > 0) {
        failure.message += ` (after ${outgoing.sent} bytes of the upload)`;
        failure.brokenUpload = !limit.signal.aborted;
      }
      return failure;
    } finally {
      await outgoing?.cancel();
    }
  }

  async #dispatch(
    { url, headers, outgoing }: Dispatch,
    { call, limit: { signal }, sendStream }: Sending,
  ): Promise<Response> {
    const { method, body: { content } = {} } = call;
    if (outgoing !== undefined && sendStream !== undefined) {
      return await sendStream({ url, headers, body: outgoing, signal });
    }
    if (isBlockedPort(url)) {
      const node = this.#options.connections.node(this.#options.log);
      const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
      const body = outgoing ?? (typeof bytes === "function" ? undefined : bytes);
      return await node.request({ url, method, headers, body, signal });
    }
    const body = outgoing?.stream ??
      (content === undefined || typeof content === "function"
        ? undefined
        : this.#bodyOf(call, content));
    const sent = fetch(url, {
      method,
      headers,
      redirect: "manual",
      signal,
      client: this.#client,
      ...(body === undefined ? {} : { body }),
    });
    // One that comes after all when nobody waits for it any more must not be left open.
    sent.then((response) => signal.aborted && letGo(response), () => {});
    return await sent;
  }

  /** A server that wants the length gets it; then only looking at the result tells what arrived. */
  #bodyOf(call: Call, content: string | Uint8Array<ArrayBuffer>): BodyInit {
    if (!call.once || this.#wantsLength) return content;
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    return new ReadableStream({
      start(controller) {
        controller.enqueue(bytes);
        controller.close();
      },
    });
  }

  #headers(url: URL, { call, token }: Sending): Headers {
    const headers = new Headers({ "Accept": "application/json, */*;q=0.5", ...call.headers });
    if (call.body !== undefined) headers.set("Content-Type", call.body.type);
    if (url.origin !== this.#origin) return headers;
    const { basic } = this.#options;
    const cookie = this.#options.cookie();
    const authorization = token === undefined ? basic : `Bearer ${token}`;
    if (authorization !== undefined && !call.anonymous) {
      headers.set("Authorization", authorization);
    }
    if (cookie !== undefined) headers.set("Cookie", cookie);
    return headers;
  }

  /** Something that speaks for a server which is away is no connectivity with it. */
  #tellConnectivity(call: Call, answer: Received | CallFailure): void {
    const { onAnswer } = this.#options;
    if (answer instanceof Received) return onAnswer?.(true);
    if (answer.kind === "aborted") return;
    const isThere = isFromServer(answer);
    // What is reported there is about the webhook, which another service runs.
    const speaksForOthers = call.path.endsWith("/events") && answer.kind !== "unreachable";
    if (isThere) onAnswer?.(true);
    else if (!speaksForOthers) onAnswer?.(false, answer.message);
  }
}

interface Sending {
  call: Call;
  what: string;
  limit: TimeLimit;
  token?: string | undefined;
  sendStream?: SendStream | undefined;
}

interface Dispatch {
  url: URL;
  headers: Headers;
  outgoing: Outgoing | undefined;
}

/** Nobody reads this answer. */
function letGo(response: Response): void {
  response.body?.cancel().catch(() => {});
}
