import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { type Answer, type Failure, type Generation, isFinal, type LogPiece } from "./api.ts";
import { type CallFailure, isAboutJob } from "./classify.ts";
import { Received } from "./exchange.ts";
import type { Session } from "./session.ts";
import type { RequestBody } from "./transport.ts";

const LOG_LIMIT_MS = 60_000;

/** A legacy server may have been upgraded under us. */
const LEGACY_FOR_MS = 3_600_000;
/** Where something is missing on a legacy server, this old a finding is still good. */
const FRESH_FOR_MS = 60_000;

/** Cannot ask for a job have this id, so that what a server answers about it is no answer about a job. */
const NO_JOB = "no-job";

/** What `LogPosts` works with. */
export interface LogPostsOptions {
  session: Session;
  clock: Clock;
  log: Log;
}

/** A piece of a job's log on its way. */
export interface LogPost {
  jobId: string;
  log: "output" | "serial";
  fragment: LogPiece;
  signal: AbortSignal | undefined;
}

/**
 * Posts logs in the way of the server's generation, and knows which one that is: only the current
 * one has an endpoint for fragments.
 *
 * The generation is a property of the server. A fragment that was taken shows the current one; that
 * an endpoint is missing is asked for with an id that no job can have, and only of a server that
 * greets as Testflinger before and after. What is answered about one job says nothing: a current
 * server may have forgotten it.
 */
export class LogPosts {
  readonly #options: LogPostsOptions;
  #generation: Generation | undefined;
  /** When that was found; monotonic milliseconds. */
  #foundAt = -Infinity;

  constructor(options: LogPostsOptions) {
    this.#options = options;
  }

  get generation(): Generation | undefined {
    return this.#generation;
  }

  /** The server did not answer: when it is back, it may be a newer one. */
  wasUnreachable(): void {
    this.#foundAt = -Infinity;
  }

  #isFoundWithin(ms: number): boolean {
    return this.#options.clock.monotonic() < this.#foundAt + ms;
  }

  /** Posts a piece; which way it goes shows in time, or is found out before. */
  async post(post: LogPost): Promise<Answer<void>> {
    if (this.#generation === "legacy") {
      const found = await this.find(post.signal);
      if (!found.ok) return found;
      if (found.value === "legacy") return await this.#postText(post);
    }
    const answer = await this.#postFragment(post);
    if (answer.ok) this.#see("current");
    if (answer.ok || answer.kind !== "missing" || isAboutJob(answer)) return answer;
    const found = await this.#examine(post.signal);
    if (!found.ok) return found;
    return found.value === "legacy" ? await this.#postText(post) : answer;
  }

  /** The generation of the server, which is asked where that is not known. */
  async find(signal: AbortSignal | undefined): Promise<Answer<Generation>> {
    const generation = this.#generation;
    if (generation === "current" || generation === "legacy" && this.#isFoundWithin(LEGACY_FOR_MS)) {
      return { ok: true, value: generation };
    }
    return await this.#examine(signal);
  }

  async #examine(signal: AbortSignal | undefined): Promise<Answer<Generation>> {
    const { session } = this.#options;
    const before = await session.greet(signal);
    if (!before.ok) return undecided(before, "what answers is no Testflinger server");
    const asked = await session.request({
      method: "POST",
      path: `/v1/result/${NO_JOB}/log/output`,
      body: { type: "application/json", content: "{}" },
      limitMs: LOG_LIMIT_MS,
      once: true,
      signal,
    });
    if (asked instanceof Received) {
      asked.release();
      return asked.foreign("no server takes a log of no job");
    }
    // It has looked at the id, or at the body: the endpoint is there.
    if (asked.kind === "refused" || isAboutJob(asked)) return this.#see("current");
    if (asked.kind !== "missing") return undecided(asked, "it is not clear how it takes logs");
    const after = await session.greet(signal);
    if (!after.ok) return undecided(after, "what answers is no Testflinger server");
    if (after.value === before.value) return this.#see("legacy");
    return { ...asked, kind: "busy", message: `${asked.message} (the server is being replaced)` };
  }

  #see(generation: Generation): { ok: true; value: Generation } {
    this.#foundAt = this.#options.clock.monotonic();
    if (this.#generation !== generation) {
      this.#generation = generation;
      this.#options.log.info(
        generation === "current"
          ? "The server takes logs as fragments"
          : "The server takes logs as plain text: it is from before December 2025",
      );
    }
    return { ok: true, value: generation };
  }

  async #postFragment({ jobId, log, fragment, signal }: LogPost) {
    const { log_data, ...head } = fragment;
    const content = typeof log_data === "string"
      ? JSON.stringify(fragment)
      : log_data.jsonWith(head, "log_data");
    const body = { type: "application/json", content };
    return await this.#send(`/v1/result/${jobId}/log/${log}`, body, signal);
  }

  async #postText(post: LogPost): Promise<Answer<void>> {
    const { jobId, log, fragment, signal } = post;
    const path = `/v1/result/${jobId}/${log === "output" ? "output" : "serial_output"}`;
    const { log_data } = fragment;
    const content = typeof log_data === "string" ? log_data : log_data.utf8;
    const body = { type: "text/plain; charset=utf-8", content };
    const answer = await this.#send(path, body, signal);
    if (answer.ok || answer.kind !== "missing") return answer;
    // Older servers have no place for the serial log; the final result carries it.
    const taken: Answer<void> = { ok: true, value: undefined };
    if (log === "serial" && this.#isFoundWithin(FRESH_FOR_MS)) return taken;
    const found = await this.#examine(signal);
    if (!found.ok) return found;
    if (found.value === "current") return await this.#postFragment(post);
    return log === "serial" ? taken : answer;
  }

  async #send(
    path: string,
    body: RequestBody,
    signal: AbortSignal | undefined,
  ): Promise<{ ok: true; value: undefined } | CallFailure> {
    const { session } = this.#options;
    const call = { method: "POST", path, body, limitMs: LOG_LIMIT_MS, once: true, signal } as const;
    const answer = await session.post(call);
    return answer instanceof Received ? { ok: true, value: undefined } : answer;
  }
}

/** Nothing was learned, and nothing of the job was refused: to be tried again. */
function undecided(failure: Failure, why: string): Failure {
  return {
    ...failure,
    kind: isFinal(failure) ? "busy" : failure.kind,
    message: `${failure.message} (${why})`,
  };
}
