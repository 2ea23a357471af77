/** What the server has of a job, read back: its state, its logs' lengths, and whether it knows it at all. */
import type { Clock } from "../clock.ts";
import { isJobId, readJobState, readView } from "./answers.ts";
import type { Answer, Failure, ResultView, StateAnswer } from "./api.ts";
import { type CallFailure, foreignLine, isAboutJob } from "./classify.ts";
import { Received } from "./exchange.ts";
import type { LogPosts } from "./log_posts.ts";
import { CALL_LIMIT_MS, type Session } from "./session.ts";

/** The state stands before most of the log. */
const STATE_TOTAL_MS = 60_000;
/** The log of a job may be long and the link slow. */
const RESULT_TOTAL_MS = 600_000;
/** A server that cannot be asked for the state alone may have been upgraded. */
const NO_STATUS_FOR_MS = 3_600_000;

const NOTHING_KNOWN: StateAnswer = { ok: true, value: undefined, statuses: {}, bytes: 0 };

/** What `Results` works with. */
export interface ResultsOptions {
  session: Session;
  logs: LogPosts;
  clock: Clock;
}

/** Reads results back. */
export class Results {
  readonly #options: ResultsOptions;
  /** Until then the server is not asked for the state of a job alone. */
  #noStatusUntil = -Infinity;

  constructor(options: ResultsOptions) {
    this.#options = options;
  }

  /** The server did not answer: when it is back, it may be a newer one. */
  wasUnreachable(): void {
    this.#noStatusUntil = -Infinity;
  }

  /**
   * The state alone where the server has that, else the result as far as `job_state`.
   *
   * @param isWhole what has no logs is read to its end, for the statuses.
   */
  async state(
    jobId: string,
    { signal, isWhole }: { signal: AbortSignal | undefined; isWhole: boolean },
  ): Promise<StateAnswer> {
    const { clock } = this.#options;
    const limits = { totalMs: STATE_TOTAL_MS, signal };
    if (clock.monotonic() >= this.#noStatusUntil) {
      const answer = await this.#get(jobPath("/v1/result/", jobId, "/status"), limits);
      if (answer instanceof Received) return await readJobState(answer, { isWhole });
      if (answer.kind !== "missing") return answer;
      if (isAboutJob(answer)) return NOTHING_KNOWN;
      this.#noStatusUntil = clock.monotonic() + NO_STATUS_FOR_MS;
    }
    const answer = await this.#get(jobPath("/v1/result/", jobId), limits);
    if (answer instanceof Received) return await readJobState(answer);
    return isAboutJob(answer) ? NOTHING_KNOWN : answer;
  }

  /** Reads the whole result as a stream, keeping nothing but lengths. */
  async view(jobId: string, signal: AbortSignal | undefined): Promise<Answer<ResultView>> {
    const limits = { totalMs: RESULT_TOTAL_MS, signal };
    const answer = await this.#get(jobPath("/v1/result/", jobId), limits);
    if (answer instanceof Received) return await readView(answer);
    return isAboutJob(answer) ? { ok: true, value: { logBytes: {} } } : answer;
  }

  /**
   * A 404 about a job is believed when it is a current server's, which then knows no result of the
   * job either. Anything else is no reason to give up what a job has made.
   */
  async judge(
    jobId: string,
    answer: Failure,
    signal: AbortSignal | undefined,
  ): Promise<Failure> {
    if (answer.kind !== "missing") return answer;
    const { logs, session } = this.#options;
    const generation = await logs.find(signal);
    if (!generation.ok || generation.value !== "current") return answer;
    const limits = { totalMs: STATE_TOTAL_MS, signal };
    const result = await this.#get(jobPath("/v1/result/", jobId), limits);
    if (result instanceof Received) {
      const begin = await result.begin();
      result.release();
      if (begin !== "") return answer;
    } else if (result.kind !== "missing" || result.body !== "json") {
      return answer;
    }
    const greeted = await session.greet(signal);
    if (!greeted.ok) return answer;
    const message = `${answer.message} (the server knows nothing of the job any more)`;
    return { ...answer, kind: "forgotten", message };
  }

  /** Idle time: a result grows with the job's log. */
  async #get(
    path: string | NotAJob,
    { totalMs, signal }: { totalMs: number; signal: AbortSignal | undefined },
  ): Promise<Received | CallFailure> {
    const { session } = this.#options;
    if (typeof path !== "string") return notAsked(`GET ${session.address}`, path);
    const limits = { limitMs: CALL_LIMIT_MS, idle: true, totalMs };
    return await session.request({ method: "GET", path, ...limits, signal });
  }
}

/** In place of a path: what was to be in it is no job's id. */
export interface NotAJob {
  notAJob: string;
  path: string;
}

/** The path of something of a job. */
export function jobPath(before: string, jobId: string, after = ""): string | NotAJob {
  if (!isJobId(jobId)) return { notAJob: jobId, path: `${before}...${after}` };
  return `${before}${encode(jobId)}${after}`;
}

/** The server would answer 400; and what is no id must not become part of a URL. */
export function notAsked(what: string, { notAJob, path }: NotAJob): Failure {
  const shown = foreignLine(JSON.stringify(notAJob));
  const message = `${what}${path}: not asked: ${shown} is not a job id (a UUID)`;
  return { ok: false, kind: "refused", message };
}

/** For one part of a path, or one value of a query. */
export function encode(text: string): string {
  return encodeURIComponent(text.toWellFormed());
}
