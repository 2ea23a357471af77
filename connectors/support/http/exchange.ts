/**
 * One request whose body is sent and whose answer is read in pieces, with limits on connecting and
 * on silence in place of one on the whole. `fetch` has neither, nor can it leave certificates
 * unchecked for one server alone.
 */
import { unlessAborted } from "../../../lib/wait.ts";
import type { ClientRequest, IncomingMessage } from "node:http";
import type { ConnectorContext } from "../../context.ts";
import { requestMessageOf } from "../../../lib/message.ts";
import { textOf } from "./http.ts";

/** What is sent with a request. */
export interface HttpBody {
  /** The content type. */
  readonly type: string;
  /** In bytes. */
  readonly length: number;
  /** Its pieces; asked for once. */
  pieces(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** Which certificates to trust. */
export interface Trust {
  /** Certificates in PEM, trusted alone. @default those of the runtime */
  readonly ca?: string | undefined;
  /** False: any server that answers will do. */
  readonly verify: boolean;
}

/** A request. */
export interface ExchangeRequest {
  /** @default "GET" */
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: HttpBody | undefined;
  /** Until there is a connection, encryption included. */
  readonly connectTimeoutMs: number;
  /** How long the server may take no data, or send none; evaluated each time if it is a function. */
  readonly readTimeoutMs: number | (() => number);
  /** @default certificates are checked */
  readonly trust?: Trust;
}

/** An answer whose body has not been read yet. Disposing of it ends the connection. */
export interface HttpAnswer extends Disposable {
  readonly ended: "answered";
  readonly status: number;
  /** Status 200 to 299. */
  readonly ok: boolean;
  /**
   * The body, as it comes.
   *
   * @throws Error saying why it broke off; the signal's reason, when the connector is stopped.
   */
  readonly body: AsyncIterable<Uint8Array>;
  /**
   * The whole body, or what came of it before it broke off.
   *
   * @throws Error when it is too long, unless the status is one of refusal.
   */
  text(): Promise<string>;
}

/** What came of a request. */
export type ExchangeResult = HttpAnswer | {
  readonly ended: "failed";
  readonly message: string;
  /** There was no connection at all, so that the request can be repeated without fear. */
  readonly unreachable: boolean;
};

/**
 * Sends a request, and returns when its answer begins.
 *
 * @throws the signal's reason, when the connector is stopped meanwhile.
 */
export async function exchange(
  { limits, signal }: Pick<ConnectorContext, "limits" | "signal">,
  url: string,
  request: ExchangeRequest,
): Promise<ExchangeResult> {
  signal.throwIfAborted();
  const silence = new Silence({ limits, signal });
  const { outgoing, end } = await begin(new URL(url), request);
  const state = { connected: false, answered: false };
  const { readTimeoutMs } = request;
  const readMs = typeof readTimeoutMs === "number" ? () => readTimeoutMs : readTimeoutMs;
  const connected = () => {
    if (!state.connected) silence.limit(readMs(), "no answer");
    state.connected = true;
  };
  const dispose = () => {
    silence[Symbol.dispose]();
    end();
  };
  try {
    silence.limit(request.connectTimeoutMs, "no connection");
    const message = await unlessAborted(
      new Promise<IncomingMessage>((resolve, reject) => {
        outgoing.once("socket", (socket) =>
          socket.once(
            new URL(url).protocol === "https:" ? "secureConnect" : "connect",
            connected,
          ));
        // Stays: what is destroyed may still complain.
        outgoing.on("error", (error) => {
          if (!state.answered) reject(error);
        });
        outgoing.once("response", (message) => {
          state.answered = true;
          resolve(message);
        });
        send(outgoing, request.body, {
          progress() {
            connected();
            if (!state.answered) silence.limit(readMs(), "no answer");
          },
          enough: () => state.answered,
        }).catch(reject);
      }),
      silence.signal,
    );
    silence.stop();
    return answerOf(message, { silence, readMs, dispose });
  } catch (error) {
    dispose();
    signal.throwIfAborted();
    const unreachable = !state.connected && (silence.over || isNetworkError(error));
    return { ended: "failed", message: requestMessageOf(error), unreachable };
  }
}

async function begin(
  url: URL,
  { method = "GET", headers, body, trust }: ExchangeRequest,
): Promise<{ outgoing: ClientRequest; end: () => void }> {
  const tls = url.protocol === "https:";
  const { request, Agent } = tls ? await import("node:https") : await import("node:http");
  const agent = new Agent({
    keepAlive: false,
    // Said aloud, because NODE_TLS_REJECT_UNAUTHORIZED=0 would switch it off.
    ...(tls ? { rejectUnauthorized: trust?.verify ?? true } : {}),
    ...(tls && trust?.ca !== undefined ? { ca: trust.ca } : {}),
  });
  const outgoing = request(url, {
    method,
    agent,
    headers: {
      ...headers,
      ...(body === undefined
        ? {}
        : { "content-type": body.type, "content-length": String(body.length) }),
    },
  });
  return {
    outgoing,
    end() {
      outgoing.destroy();
      agent.destroy();
    },
  };
}

async function send(
  outgoing: ClientRequest,
  body: HttpBody | undefined,
  { progress, enough }: { progress: () => void; enough: () => boolean },
): Promise<void> {
  const gone = new Promise<void>((resolve) => {
    outgoing.once("close", resolve);
    outgoing.once("response", () => resolve());
  });
  let sent = 0;
  for await (const piece of body?.pieces() ?? []) {
    sent += piece.length;
    if (sent > (body?.length ?? 0)) break;
    // A server may refuse an upload before it has seen all of it.
    if (enough() || outgoing.destroyed) return;
    if (outgoing.write(piece, progress)) continue;
    await Promise.race([new Promise<void>((resolve) => outgoing.once("drain", resolve)), gone]);
  }
  if (enough() || outgoing.destroyed) return;
  if (body !== undefined && sent !== body.length) {
    throw new Error("what is to be sent has changed its length meanwhile");
  }
  outgoing.end();
}

function answerOf(
  message: IncomingMessage,
  { silence, readMs, dispose }: {
    silence: Silence;
    readMs: () => number;
    dispose: () => void;
  },
): HttpAnswer {
  const status = message.statusCode ?? 0;
  async function* body(): AsyncGenerator<Uint8Array> {
    const pieces = message[Symbol.asyncIterator]();
    try {
      while (true) {
        silence.limit(readMs(), "nothing has come");
        const { done, value } = await unlessAborted(pieces.next(), silence.signal);
        if (done) return;
        silence.stop();
        yield value;
      }
    } catch (error) {
      throw error instanceof Error && "code" in error && error.code === "ECONNRESET"
        ? new Error("the connection broke off", { cause: error })
        : error;
    } finally {
      dispose();
    }
  }
  const answer: HttpAnswer = {
    ended: "answered",
    status,
    ok: status >= 200 && status < 300,
    body: body(),
    text() {
      async function* untilItBreaksOff() {
        try {
          yield* answer.body;
        } catch (error) {
          if (silence.stopped) throw error;
        }
      }
      return textOf(untilItBreaksOff(), { onlyBeginning: !answer.ok });
    },
    [Symbol.dispose]: dispose,
  };
  return answer;
}

/** What the system says of a host that is down, or not where it should be. Not certificates. */
function isNetworkError(error: unknown): boolean {
  return error instanceof Error && "code" in error && typeof error.code === "string" &&
    /^E(CONN|HOST|NET|TIMEDOUT|AI_AGAIN)/.test(error.code);
}

/** A limit on silence, set again whenever something happens. */
class Silence implements Disposable {
  readonly #over = new AbortController();
  readonly signal: AbortSignal;
  readonly #limits: ConnectorContext["limits"];
  readonly #outer: AbortSignal;
  #timer: AbortController | undefined;
  #disposed = false;

  constructor({ limits, signal }: Pick<ConnectorContext, "limits" | "signal">) {
    this.#limits = limits;
    this.#outer = signal;
    this.signal = AbortSignal.any([signal, this.#over.signal]);
  }

  /** Has the connector been asked to stop? */
  get stopped(): boolean {
    return this.#outer.aborted;
  }

  /** Has it been silent for too long? */
  get over(): boolean {
    return this.#over.signal.aborted;
  }

  limit(ms: number, what: string): void {
    this.stop();
    // What is broken off may still report that it got somewhere.
    if (this.#disposed) return;
    const timer = new AbortController();
    this.#timer = timer;
    this.#limits.sleep(ms, timer.signal).then(
      () => this.#over.abort(new Error(`${what} within ${ms / 1000} s`)),
      () => {},
    );
  }

  stop(): void {
    this.#timer?.abort();
    this.#timer = undefined;
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    this.stop();
  }
}
