import type * as z from "zod";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import type { Answer, Failure } from "./api.ts";
import { Backoff } from "../backoff.ts";
import { foreignLine } from "./classify.ts";
import type { TokenAnswer } from "./schema.ts";

/** What the server gives for a refresh token. */
export type TokenGrant = z.infer<typeof TokenAnswer>;

/** What `AccessTokens` works with. */
export interface AccessTokensOptions {
  /** JSON with `refresh_token`; undefined: there are no tokens. */
  file: string | undefined;
  clock: Clock;
}

/** Who wants a token, and how that one asks for it. */
export interface TokenRequest {
  /** `POST /v1/oauth2/refresh`. */
  refresh: (refreshToken: string) => Promise<Answer<TokenGrant>>;
  signal?: AbortSignal | undefined;
}

/** Something to say. */
interface Line {
  level: keyof Log;
  what: string;
  message: string;
}

/** The access token of the moment. */
interface Held {
  text: string;
  /** From here on a new one is asked for, this one serving while none is available. */
  renewAt: number;
  expiresAt: number;
}

/** Ahead of the end, so that no request meets a 401 because of a slow link or a clock's drift. */
const RENEW_AT_SHARE = 0.8;

/** Where the server does not say; a token that lived shorter is replaced at the first 401. */
const USUAL_LIFE_S = 600;

/** How soon to ask again for a token's successor while the old one still serves. */
const RENEW_AGAIN_MS = 10_000;

/** After the server has refused the file's token; more with each refusal. */
const LEAST_WAIT_MS = 5_000;

/** How soon to look again at a file that could not be read, or could not be understood. */
const READ_AGAIN_MS = 60_000;

/** The file holds one token. */
const FILE_BYTES = 65_536;

/** Answers of the server itself: it does not take this token, or gives none at all. */
const REFUSED: readonly Failure["kind"][] = ["refused", "missing", "unauthorised", "forbidden"];

/**
 * The `Authorization` of requests: exchanges the refresh token of a file for access tokens, ahead
 * of their end. The file is read again each time, since an administrator may change it, or make
 * it, under a running agent. All that use the file share the token. No token's text is ever logged.
 */
export class AccessTokens {
  readonly #options: AccessTokensOptions;
  readonly #backoff = new Backoff({ baseMs: 10_000 });
  #held: Held | undefined;
  #refreshing: Promise<Answer<string | undefined>> | undefined;
  /** A state of the file that did not serve, not to be tried again before `until`. */
  #bad: { signature: string; until: number } | undefined;
  #renewPauseUntil = 0;
  #said: Line | undefined;
  readonly #logs = new Set<Log>();
  #why = "no token file is configured";

  constructor(options: AccessTokensOptions) {
    this.#options = options;
  }

  /** From now on `log` is told what is wrong with the file, beginning with what is wrong already. */
  tell(log: Log): Disposable {
    this.#logs.add(log);
    if (this.#said !== undefined) log[this.#said.level](this.#said.message);
    return { [Symbol.dispose]: () => void this.#logs.delete(log) };
  }

  /** Why there is no token, where there is none. */
  get why(): string {
    return this.#why;
  }

  /**
   * A token for the next request; undefined: it goes out without one. A failure when the server
   * could not be asked for one: the request would only be refused.
   */
  async current(request: TokenRequest): Promise<Answer<string | undefined>> {
    if (this.#options.file === undefined) return { ok: true, value: undefined };
    const now = this.#options.clock.monotonic();
    const held = this.#held;
    if (held !== undefined && now < held.renewAt) return { ok: true, value: held.text };
    const serves = held !== undefined && now < held.expiresAt;
    if (serves && now < this.#renewPauseUntil) return { ok: true, value: held.text };
    const renewed = await this.#shared(request);
    if (!serves || renewed.ok && renewed.value !== undefined) return renewed;
    if (!renewed.ok && renewed.kind === "aborted") return renewed;
    this.#renewPauseUntil = this.#options.clock.monotonic() + RENEW_AGAIN_MS;
    return { ok: true, value: held.text };
  }

  /** A token in place of one that the server has answered with 401. */
  async renew(rejected: string, request: TokenRequest): Promise<Answer<string | undefined>> {
    // Another request may have met the same 401 before.
    if (this.#held?.text === rejected) this.#held = undefined;
    return await this.current(request);
  }

  /** The token's role does not suffice: another one is asked for soon, which may have a better one. */
  doubt(text: string): void {
    const held = this.#held;
    if (held?.text !== text) return;
    held.renewAt = Math.min(held.renewAt, this.#options.clock.monotonic() + RENEW_AGAIN_MS);
  }

  /** One refresh at a time; one caller's giving up, or end, does not take it from the others. */
  async #shared({ refresh, signal }: TokenRequest): Promise<Answer<string | undefined>> {
    while (true) {
      const isOwn = this.#refreshing === undefined;
      this.#refreshing ??= this.#renewFromFile(refresh)
        .finally(() => this.#refreshing = undefined);
      const answer = await unlessGivenUp(this.#refreshing, signal);
      const isGivenUp = !answer.ok && answer.kind === "aborted";
      if (isOwn || !isGivenUp || signal?.aborted) return answer;
    }
  }

  async #renewFromFile(
    refresh: TokenRequest["refresh"],
  ): Promise<Answer<string | undefined>> {
    const none = { ok: true, value: undefined } as const;
    const { file = "", clock } = this.#options;
    let signature: string;
    try {
      // Of a file of this host that is looked at before each request: not worth a thread.
      const info = Deno.statSync(file);
      signature = [info.ino, info.size, info.mtime?.getTime(), info.ctime?.getTime()].join(":");
      if (!info.isFile) throw new Error("it is not a regular file");
      if (info.size > FILE_BYTES) throw new Error("it is too large to be one");
    } catch (error) {
      this.#cannotRead("stat", error);
      return none;
    }
    if (this.#bad?.signature === signature && clock.monotonic() < this.#bad.until) return none;
    const refreshToken = await this.#read(file, signature);
    if (refreshToken === undefined) return none;
    const answer = await refresh(refreshToken);
    if (answer.ok) return this.#take(answer.value);
    if (!REFUSED.includes(answer.kind)) return answer;
    this.#refused(answer, signature);
    return none;
  }

  async #read(file: string, signature: string): Promise<string | undefined> {
    const until = this.#options.clock.monotonic() + READ_AGAIN_MS;
    let text: string;
    try {
      text = await Deno.readTextFile(file);
    } catch (error) {
      this.#bad = { signature, until };
      this.#cannotRead(signature, error);
      return undefined;
    }
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      value = undefined;
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      this.#bad = { signature, until };
      this.#explain(`the token file ${file} is not a JSON object`);
      this.#say({
        level: "error",
        what: `malformed ${signature}`,
        message: `The token file ${file} is not a JSON object: requests go out without a token; ` +
          `it should hold {"refresh_token": "..."}`,
      });
      return undefined;
    }
    const token = "refresh_token" in value ? value.refresh_token : undefined;
    if (typeof token === "string" && token !== "") return token;
    this.#bad = { signature, until };
    this.#explain(`the token file ${file} holds no refresh_token`);
    this.#say({
      level: "warning",
      what: `empty ${signature}`,
      message: `The token file ${file} holds no refresh_token: requests go out without a token`,
    });
    return undefined;
  }

  #cannotRead(signature: string, error: unknown): void {
    const { file } = this.#options;
    if (error instanceof Deno.errors.NotFound) {
      this.#explain(`there is no token file ${file}`);
      this.#say({
        level: "info",
        what: "absent",
        message: `There is no token file ${file}: requests go out without a token until there is`,
      });
      return;
    }
    const reason = foreignLine(messageOf(error));
    this.#explain(`the token file ${file} cannot be read`);
    this.#say({
      level: "error",
      what: `unreadable ${signature} ${reason}`,
      message: `Cannot read the token file ${file} (${reason}): requests go out without a token; ` +
        `it must be a file that the agent's user may read`,
    });
  }

  #take(answer: TokenGrant): Answer<string | undefined> {
    // It becomes part of a header: anything else would make every request fail.
    if (!/^[\x21-\x7e]+$/.test(answer.access_token)) {
      return {
        ok: false,
        kind: "busy",
        message: "POST /v1/oauth2/refresh: the access token holds characters that cannot be sent",
      };
    }
    const now = this.#options.clock.monotonic();
    const lifeMs = (answer.expires_in ?? USUAL_LIFE_S) * 1000;
    this.#held = {
      text: answer.access_token,
      renewAt: now + lifeMs * RENEW_AT_SHARE,
      expiresAt: now + lifeMs,
    };
    this.#bad = undefined;
    this.#backoff.reset();
    if (this.#said !== undefined) {
      this.#said = undefined;
      const message = `Requests carry a token of ${this.#options.file} now`;
      for (const log of this.#logs) log.info(message);
    }
    return { ok: true, value: answer.access_token };
  }

  #refused(failure: Failure, signature: string): void {
    const { clock, file } = this.#options;
    const waitMs = LEAST_WAIT_MS + this.#backoff.next(failure.retryAfterMs);
    this.#bad = { signature, until: clock.monotonic() + waitMs };
    this.#explain(`the server did not take the refresh token of ${file}`);
    // 404 and 405: a server from before tokens, on which the file does no harm.
    const noTokens = failure.status === 404 || failure.status === 405;
    this.#say({
      level: noTokens ? "warning" : "error",
      what: `refused ${signature} ${failure.status}`,
      message: noTokens
        ? `The server gives out no tokens, ${file} is not used: ${failure.message}`
        : `The server refuses the refresh token of ${file}: requests go out without a token; ` +
          `have a new one issued and put it into that file (${failure.message})`,
    });
  }

  #explain(why: string): void {
    this.#why = why;
  }

  /** Says a thing once, until something else is the matter. */
  #say(line: Line): void {
    if (this.#said?.what === line.what) return;
    this.#said = line;
    for (const log of this.#logs) log[line.level](line.message);
  }
}

const GIVEN_UP: Failure = {
  ok: false,
  kind: "aborted",
  message: "POST /v1/oauth2/refresh: given up on request",
};

async function unlessGivenUp<T>(
  shared: Promise<Answer<T>>,
  signal: AbortSignal | undefined,
): Promise<Answer<T>> {
  if (signal === undefined) return await shared;
  return await new Promise((resolve, reject) => {
    const abort = () => resolve(GIVEN_UP);
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    shared.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
