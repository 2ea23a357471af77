import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import type { Answer, Failure, Generation, LogPiece } from "./api.ts";
import { jsonWithText } from "./json_text.ts";
import type { Session } from "./session.ts";
import { Received } from "./received.ts";
import type { Call } from "./transport.ts";

const LOG_LIMIT_MS = 60_000;
const GREETING_LIMIT_MS = 30_000;

/** A legacy server may have been upgraded under us. */
const LEGACY_FOR_MS = 3_600_000;

/** What `LogPosts` works with. */
export interface LogPostsOptions {
  session: Session;
  clock: Clock;
  log: Log;
  limitBytes: number;
}

/** A piece of a job's log on its way. */
export interface LogPost {
  jobId: string;
  log: "output" | "serial";
  fragment: LogPiece;
  signal: AbortSignal | undefined;
}

/**
 * Posts logs in the way of the server's generation, and finds out which one that is: only the
 * current one has an endpoint for fragments.
 */
export class LogPosts {
  readonly #options: LogPostsOptions;
  #generation: Generation | undefined;
  #examineAt = 0;

  constructor(options: LogPostsOptions) {
    this.#options = options;
  }

  get generation(): Generation | undefined {
    return this.#generation;
  }

  /** The server did not answer: when it is back, it may be a newer one. */
  wasUnreachable(): void {
    this.#examineAt = 0;
  }

  async post(post: LogPost): Promise<Answer<void>> {
    const { clock } = this.#options;
    if (this.#generation === "legacy" && clock.monotonic() < this.#examineAt) {
      return await this.#postText(post);
    }
    const path = `/v1/result/${post.jobId}/log/${post.log}`;
    const { log_data, ...head } = post.fragment;
    const content = typeof log_data === "string"
      ? JSON.stringify(post.fragment)
      : jsonWithText(head, "log_data", log_data);
    const answer = await this.#send(post, path, { type: "application/json", content });
    if (answer.ok) {
      this.#see("current");
      return answer;
    }
    if (this.#generation === "current" || !isMissing(answer)) return answer;
    // A load balancer answers 404 for a server that is being replaced, and a log must not go the
    // wrong way because of it.
    const doubt = await this.#missesServer(post.signal);
    if (doubt !== undefined) {
      if (doubt.kind === "aborted") return doubt;
      const message = `${answer.message} (and that is no Testflinger server: ${doubt.message})`;
      return { ok: false, kind: "busy", message };
    }
    this.#see("legacy");
    return await this.#postText(post);
  }

  #see(generation: Generation): void {
    this.#examineAt = this.#options.clock.monotonic() + LEGACY_FOR_MS;
    if (this.#generation === generation) return;
    this.#generation = generation;
    this.#options.log.info(
      generation === "current"
        ? "The server takes logs as fragments"
        : "The server takes logs as plain text: it is from before December 2025",
    );
  }

  async #postText({ jobId, log, fragment, signal }: LogPost): Promise<Answer<void>> {
    const path = `/v1/result/${jobId}/${log === "output" ? "output" : "serial_output"}`;
    const content = fragment.log_data;
    const answer = await this.#send({ signal }, path, {
      type: "text/plain; charset=utf-8",
      content,
    });
    if (answer.ok || !isMissing(answer)) return answer;
    // Older servers have no place for the serial log; the final result carries it.
    if (log === "serial") return { ok: true, value: undefined };
    // Neither way exists: what was seen before holds no longer.
    this.#generation = undefined;
    return answer;
  }

  async #send(
    { signal }: { signal: AbortSignal | undefined },
    path: string,
    body: NonNullable<Call["body"]>,
  ): Promise<Answer<void>> {
    const call: Call = { method: "POST", path, body, limitMs: LOG_LIMIT_MS, once: true, signal };
    const answer = await this.#options.session.request(call);
    if (!(answer instanceof Received)) return answer;
    await answer.drain();
    return { ok: true, value: undefined };
  }

  /** Undefined when a Testflinger server greets us, else what came instead. */
  async #missesServer(signal: AbortSignal | undefined): Promise<Failure | undefined> {
    const { session, limitBytes } = this.#options;
    const call: Call = { method: "GET", path: "/v1/", limitMs: GREETING_LIMIT_MS, signal };
    const answer = await session.request(call);
    if (!(answer instanceof Received)) return answer;
    const { bytes, failure } = await answer.readAll(limitBytes);
    if (failure !== undefined) return failure;
    if (new TextDecoder().decode(bytes).includes("Testflinger")) return undefined;
    const message = `${answer.what}: the answer does not name Testflinger`;
    return { ok: false, kind: "malformed", message };
  }
}

function isMissing(failure: Failure): boolean {
  return failure.status === 404 || failure.status === 405;
}
