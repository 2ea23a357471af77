import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import type { Answer, Failure } from "./api.ts";
import { AgentCookie } from "./cookies.ts";
import type { CallFailure } from "./failure.ts";
import { TokenAnswer } from "./schema.ts";
import { AccessTokens, type TokenGrant } from "./tokens.ts";
import { Received } from "./received.ts";
import { type Call, type SendStream, Transport } from "./transport.ts";

/** Ordinary calls. */
export const CALL_LIMIT_MS = 30_000;

/** Attachments and artifacts: time without a byte moving, for a slow link is not a dead one. */
export const TRANSFER_IDLE_MS = 600_000;

/** What a `Session` needs. */
export interface SessionOptions {
  /** With scheme; may hold user and password. */
  address: string;
  tokenFile?: string | undefined;
  clock: Clock;
  log: Log;
  /** Of an ordinary answer. */
  limitBytes: number;
  onContact?: ((ok: boolean, message?: string) => void) | undefined;
}

/** Requests by which the server knows who asks: token and cookie, and what a 401 calls for. */
export class Session {
  /** With scheme, without user, password and the slash at the end. */
  readonly address: string;
  readonly cookie = new AgentCookie();
  readonly #options: SessionOptions;
  readonly #transport: Transport;
  readonly #tokens: AccessTokens;

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
      cookie: this.cookie,
      onContact: options.onContact,
    });
    this.#tokens = new AccessTokens({
      file: options.tokenFile,
      clock: options.clock,
      log: options.log,
      refresh: (refreshToken) => this.#refresh(refreshToken),
    });
  }

  close(): void {
    this.#transport.close();
  }

  /** Sends a request with what identifies the agent; on a 401 once more with a fresh token. */
  async request(
    call: Call,
    sendStream?: SendStream,
  ): Promise<Received | CallFailure> {
    const token = await this.#tokens.current(call.signal);
    if (!token.ok) return this.#forWant(call, token);
    const first = await this.#transport.send(call, { token: token.value, sendStream });
    if (first instanceof Received) return first;
    if (first.status !== 401 || token.value === undefined || isCookieMissing(first)) {
      return this.#explain(first, token.value);
    }
    const renewed = await this.#tokens.renew(token.value, call.signal);
    if (!renewed.ok) return this.#forWant(call, renewed);
    if (renewed.value === undefined) return this.#explain(first, undefined);
    return await this.#transport.send(call, { token: renewed.value, sendStream });
  }

  /** The request that was meant never went out. */
  #forWant(call: Call, failure: Failure): Failure {
    const message = `${call.method} ${this.address}${call.path}: no token: ${failure.message}`;
    // The status of the refresh, a 503 for one, says nothing of this call.
    const { status: _, ...rest } = failure;
    return { ...rest, message };
  }

  #explain(failure: CallFailure, token: string | undefined): CallFailure {
    if (token !== undefined || failure.status !== 401 && failure.status !== 403) return failure;
    const message = `${failure.message} (sent without a token: ${this.#tokens.why})`;
    // No token's role was refused: once there is a token the same request may well succeed, and
    // whoever drops what is forbidden would lose it.
    const kind = this.#options.tokenFile === undefined ? failure.kind : "unauthorised";
    return { ...failure, kind, message };
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
    const parsed = TokenAnswer.safeParse(parse(bytes));
    if (parsed.success) return { ok: true, value: parsed.data };
    return { ok: false, kind: "malformed", message: `${answer.what}: the answer holds no token` };
  }
}

/** Whether the server wants the cookie, and no token can help. */
export function isCookieMissing(failure: Failure): boolean {
  return failure.status === 401 && /not identified/i.test(failure.message);
}

function parse(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
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

/** A password with a bare `%` is taken as it stands. */
function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
