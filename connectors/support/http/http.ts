import type { Clock } from "../../../lib/clock.ts";
import { requestMessageOf } from "../../../lib/message.ts";
import { type StageLimit, timeLimit } from "../wait/time_limit.ts";

const MIB = 1024 * 1024;

/** How much of an answer is read. */
interface AnswerSize {
  /** A longer one fails the request. @default 4 MiB */
  readonly maxBytes?: number;
  /** What is beyond that is not missed. @default where the status is one of refusal */
  readonly onlyBeginning?: boolean;
}

const ANSWER_MAX_BYTES = 4 * MIB;

/** What is sent, and how much of the answer is read. */
interface RequestParts extends AnswerSize {
  /** @default "GET" */
  readonly method?: string;
  /** Sent as JSON, with its content type. */
  readonly json?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** For the whole exchange, answer included: milliseconds, or a limit that runs already. */
type RequestTime = { readonly timeoutMs: number } | { readonly limit: StageLimit };

/** One request. */
export type HttpRequest = RequestParts & RequestTime;

/** What came of a request. */
type HttpResult =
  | { readonly ended: "answered"; readonly status: number; readonly ok: boolean; body: string }
  | { readonly ended: "failed"; readonly message: string };

/** Small HTTP requests, each within a time limit. Large bodies are the business of `download`. */
export interface HttpClient {
  /**
   * Sends one request, once.
   *
   * @throws the signal's reason, when the connector is stopped meanwhile.
   */
  send(url: string, request: HttpRequest): Promise<HttpResult>;
}

/** Makes an `HttpClient`; `limits` times the requests, `signal` stops them. */
export function httpClient(limits: Clock, signal: AbortSignal): HttpClient {
  return {
    async send(url, request) {
      signal.throwIfAborted();
      if ("limit" in request) return await send(url, request, { signal, limit: request.limit });
      using limit = timeLimit({ limits, signal }, {
        ms: request.timeoutMs,
        message: `no answer within ${request.timeoutMs / 1000} s`,
      });
      return await send(url, request, { signal, limit });
    },
  };
}

async function send(
  url: string,
  request: RequestParts,
  { signal, limit }: { readonly signal: AbortSignal; readonly limit: StageLimit },
): Promise<HttpResult> {
  try {
    const answer = await fetch(url, {
      method: request.method ?? "GET",
      headers: {
        ...request.headers,
        ...(request.json === undefined ? {} : { "content-type": "application/json" }),
      },
      body: request.json === undefined ? null : JSON.stringify(request.json),
      signal: limit.signal,
    });
    const { status, ok } = answer;
    const { maxBytes = ANSWER_MAX_BYTES, onlyBeginning = !ok } = request;
    if (!onlyBeginning && Number(answer.headers.get("content-length")) > maxBytes) {
      await answer.body?.cancel();
      throw tooLong(maxBytes);
    }
    const body = await textOf(answer.body ?? [], { maxBytes, onlyBeginning });
    return { ended: "answered", status, ok, body };
  } catch (error) {
    signal.throwIfAborted();
    const cause = limit.signal.aborted ? limit.signal.reason : error;
    return { ended: "failed", message: requestMessageOf(cause) };
  }
}

/**
 * Reads an answer.
 *
 * @throws Error when it is longer than that, and all of it is wanted.
 */
export async function textOf(
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  { maxBytes = ANSWER_MAX_BYTES, onlyBeginning = false }: AnswerSize,
): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let size = 0;
  for await (const piece of pieces) {
    text += decoder.decode(piece, { stream: true });
    size += piece.length;
    if (size <= maxBytes) continue;
    if (onlyBeginning) break;
    throw tooLong(maxBytes);
  }
  return text + decoder.decode();
}

function tooLong(maxBytes: number): Error {
  return new Error(`the answer is longer than ${maxBytes / MIB} MiB`);
}

/** Both spellings that programs know. */
const VARIABLES = ["no_proxy", "NO_PROXY"];

/** All addresses, as networks. */
const ALL_ADDRESSES = "0.0.0.0/0,::/0";

/**
 * Has this process use no proxy at all where `no_proxy` is `*`. The runtime takes that for all host
 * names, but not for addresses, which devices and control hosts mostly go by. It has an effect only
 * before the first request. Programs that are run get the variables as they were: not all of them
 * understand networks.
 */
export function honourNoProxy(env: Pick<typeof Deno.env, "get" | "set"> = Deno.env): void {
  for (const name of VARIABLES) {
    const value = env.get(name);
    if (value?.split(",").some((item) => item.trim() === "*")) {
      env.set(name, `${value},${ALL_ADDRESSES}`);
    }
  }
}
