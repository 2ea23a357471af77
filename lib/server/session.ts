import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { type Answer, type Failure, needsAdministrator } from "./api.ts";
import {
  acknowledges,
  type CallFailure,
  isCookieMissing,
  isTokenTrouble,
  isWrongRole,
  parseJson,
} from "./classify.ts";
import { Received } from "./exchange.ts";
import { TokenAnswer } from "./schema.ts";
import type { Connections } from "./connections.ts";
import type { AccessTokens, TokenGrant, TokenRequest } from "./tokens.ts";
import type { SendStream } from "./request_body.ts";
import { type Call, Transport } from "./transport.ts";

/** Ordinary calls. */
export const CALL_LIMIT_MS = 30_000;

/** Attachments and artifacts: time without a byte moving, for a slow link is not a dead one. */
export const TRANSFER_IDLE_MS = 600_000;

/** The answer to a post is a word, or a few fields. */
const ACKNOWLEDGEMENT_BYTES = 65_536;

/** What a `Session` needs. */
export interface SessionOptions {
  /** With scheme; may hold user and password. */
  address: string;
  tokenFile?: string | undefined;
  clock: Clock;
  log: Log;
  connections: Connections;
  /** Of an ordinary answer. */
  limitBytes: number;
  /** Told of each request whether the server was there to answer it, and what came instead. */
  onAnswer?: ((ok: boolean, message?: string) => void) | undefined;
  /** Told when the server begins to turn the agent away, and, with undefined, when it has stopped. */
  onAccess?: ((problem: string | undefined) => void) | undefined;
}

/** Requests by which the server knows who asks: token and cookie, and what a 401 calls for. */
export class Session {
  /** With scheme, without user, password and the slash at the end. */
  readonly address: string;
  readonly cookie = new AgentCookie();
  readonly #options: SessionOptions;
  readonly #transport: Transport;
  readonly #tokens: AccessTokens;
  readonly #telling: Disposable;
  /** Kinds of calls from which the server turns the agent away. */
  readonly #closed = new Set<string>();

  /** @throws {TypeError} when the address is none. */
  constructor(options: SessionOptions) {
    const { address, basic } = splitAddress(options.address);
    this.address = address;
    this.#options = options;
    this.#transport = new Transport({
      address,
      basic,
      clock: options.clock,
      log: options.log,
      connections: options.connections,
      cookie: () => this.cookie.header,
      onAnswer: options.onAnswer,
    });
    this.#tokens = options.connections.tokens(address, options.tokenFile);
    this.#telling = this.#tokens.tell(options.log);
  }

  close(): void {
    this.#transport.close();
    this.#telling[Symbol.dispose]();
  }

  /**
   * Sends a request with what identifies the agent; where its token was no good, once more with a
   * fresh one.
   */
  async request(call: Call, sendStream?: SendStream): Promise<Received | CallFailure> {
    const answer = await this.#request(call, sendStream);
    this.#noteAccess(call, answer);
    return answer;
  }

  async #request(
    call: Call,
    sendStream: SendStream | undefined,
  ): Promise<Received | CallFailure> {
    const tokenRequest: TokenRequest = {
      refresh: (refreshToken) => this.#refresh(refreshToken),
      signal: call.signal,
    };
    const token = await this.#tokens.current(tokenRequest);
    if (!token.ok) return this.#forWant(call, token);
    const first = await this.#transport.send(call, { token: token.value, sendStream });
    if (first instanceof Received) return first;
    if (token.value === undefined || !isTokenTrouble(first)) {
      if (token.value !== undefined && isWrongRole(first)) this.#tokens.doubt(token.value);
      return this.#explain(first, token.value);
    }
    const renewed = await this.#tokens.renew(token.value, tokenRequest);
    if (!renewed.ok) return this.#forWant(call, renewed);
    if (renewed.value === undefined) return this.#explain(first, undefined);
    return await this.#transport.send(call, { token: renewed.value, sendStream });
  }

  /**
   * Posts something. It has succeeded only when the answer is one that the server gives: a page that
   * a gateway shows with 200 is no success.
   *
   * @returns the head of the answer.
   */
  async post(call: Call, sendStream?: SendStream): Promise<Received | CallFailure> {
    const answer = await this.request(call, sendStream);
    if (!(answer instanceof Received)) return answer;
    answer.endWithin(CALL_LIMIT_MS);
    const { bytes, failure } = await answer.readAll(ACKNOWLEDGEMENT_BYTES);
    if (failure !== undefined && failure.kind !== "foreign") return failure;
    if (acknowledges(new TextDecoder().decode(bytes))) return answer;
    const greeted = await this.greet(call.signal);
    if (greeted.ok) return answer;
    return answer.foreign(`it is neither OK nor JSON, and ${greeted.message}`);
  }

  /** Asks what answers at the address. @returns the words with which a Testflinger server greets. */
  async greet(signal: AbortSignal | undefined): Promise<Answer<string>> {
    const answer = await this.request({
      method: "GET",
      path: "/v1/",
      limitMs: CALL_LIMIT_MS,
      signal,
    });
    if (!(answer instanceof Received)) return answer;
    const { bytes, failure } = await answer.readAll(this.#options.limitBytes);
    if (failure !== undefined) return failure;
    const text = new TextDecoder().decode(bytes);
    if (text.includes("Testflinger")) return { ok: true, value: text };
    return answer.foreign("it does not name Testflinger");
  }

  /** The request that was meant never went out. */
  #forWant(call: Call, failure: Failure): Failure {
    const message = `${call.method} ${this.address}${call.path}: no token: ${failure.message}`;
    // The status of the refresh, a 503 for one, says nothing of this call.
    const { status: _, ...rest } = failure;
    return { ...rest, message };
  }

  #explain(failure: CallFailure, token: string | undefined): CallFailure {
    if (token !== undefined || !needsAdministrator(failure)) return failure;
    const message = `${failure.message} (sent without a token: ${this.#tokens.why})`;
    // No token's role was refused: once there is a token the same request may well succeed.
    const kind = this.#options.tokenFile === undefined ? failure.kind : "unauthorised";
    return { ...failure, kind, message };
  }

  /** Says once what an administrator has to do, and once that it was done. */
  #noteAccess(call: Call, answer: Received | CallFailure): void {
    const { log, onAccess, tokenFile = "the file that --token-file names" } = this.#options;
    // Everybody may read results and records: that says nothing of what else is allowed.
    const [, , area = ""] = call.path.split(/[/?]/);
    const kind = `${call.method} ${area}`;
    if (answer instanceof Received) {
      if (!this.#closed.delete(kind) || this.#closed.size > 0) return;
      log.info("The server accepts this agent again");
      return onAccess?.(undefined);
    }
    // At events it may be about the webhook.
    const isForbidden = answer.kind === "forbidden" &&
      (isWrongRole(answer) || !call.path.endsWith("/events"));
    const isUnauthorised = answer.kind === "unauthorised" && !isCookieMissing(answer);
    if (!isForbidden && !isUnauthorised) return;
    const isFirst = this.#closed.size === 0;
    this.#closed.add(kind);
    if (!isFirst) return;
    // Of a token that is lacking or no good its file's reader speaks.
    if (isForbidden) {
      log.error(
        `The server turns this agent away: ${answer.message}. An administrator must issue a refresh ` +
          `token of the role 'agent' and put it into ${tokenFile}. Until then no job is taken, and ` +
          "results are kept and delivered later",
      );
    }
    onAccess?.(answer.message);
  }

  async #refresh(refreshToken: string): Promise<Answer<TokenGrant>> {
    const answer = await this.#transport.send({
      method: "POST",
      path: "/v1/oauth2/refresh",
      body: {
        type: "application/json",
        content: JSON.stringify({ refresh_token: refreshToken }),
      },
      limitMs: CALL_LIMIT_MS,
      anonymous: true,
      secret: refreshToken,
    });
    if (!(answer instanceof Received)) return answer;
    const { bytes, failure } = await answer.readAll(this.#options.limitBytes);
    if (failure !== undefined) return failure;
    const parsed = TokenAnswer.safeParse(parseJson(new TextDecoder().decode(bytes)));
    if (parsed.success) return { ok: true, value: parsed.data };
    return { ok: false, kind: "foreign", message: `${answer.what}: the answer holds no token` };
  }
}

/** The only cookie a Testflinger server sets for agents; all others are none of our business. */
const AGENT_COOKIE = "agent_name";

/**
 * The cookie by which the server knows the agent that asks for a job. Native `fetch` keeps none.
 */
export class AgentCookie {
  #pair: string | undefined;

  /** What goes into the `Cookie` header; undefined while there is nothing to send. */
  get header(): string | undefined {
    return this.#pair;
  }

  /** Takes over what the answer to `POST /v1/agents/data/{agent_id}` sets. */
  keepFrom(headers: Headers): void {
    for (const line of headers.getSetCookie()) {
      const [pair = "", ...attributes] = line.split(";").map((part) => part.trim());
      const equals = pair.indexOf("=");
      if (pair.slice(0, equals) !== AGENT_COOKIE) continue;
      const removed = attributes.some((attribute) => /^max-age=(0|-\d+)$/i.test(attribute));
      // Only what may be in a header: anything else would make every later request fail.
      const usable = /^[\x21-\x7e]+$/.test(pair) && equals < pair.length - 1;
      this.#pair = usable && !removed ? pair : undefined;
    }
  }
}

/** Takes user and password out of the address, so that no message can show them. */
function splitAddress(text: string): { address: string; basic: string | undefined } {
  const withScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`;
  const url = URL.canParse(withScheme) ? new URL(withScheme) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    // Not quoted: it may hold a password.
    throw new TypeError("Cannot use server_address: it must be an http:// or https:// address");
  }
  const address = `${url.origin}${url.pathname}`.replace(/\/+$/, "");
  if (url.username === "" && url.password === "") return { address, basic: undefined };
  const bytes = new TextEncoder().encode(`${decode(url.username)}:${decode(url.password)}`);
  return { address, basic: `Basic ${bytes.toBase64()}` };
}

/** A password with a bare `%` is taken unchanged. */
function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
