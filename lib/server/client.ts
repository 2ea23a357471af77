import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import type {
  Answer,
  Archive,
  Failure,
  JobOffer,
  LogPiece,
  ResultView,
  ServerApi,
  Upload,
} from "./api.ts";
import { type CallFailure, isHtml, oneLine } from "./failure.ts";
import { ArtifactPosts } from "./artifact_posts.ts";
import { HTML, readJobState, readView } from "./result_answer.ts";
import { isJobId, readJob } from "./job_answer.ts";
import { LogPosts } from "./log_posts.ts";
import {
  AgentRecord,
  type AgentUpdate,
  type EventsUpdate,
  type ProvisionLogEntry,
  type ResultUpdate,
} from "./schema.ts";
import { CALL_LIMIT_MS, isCookieMissing, Session, TRANSFER_IDLE_MS } from "./session.ts";
import { Received } from "./received.ts";
import type { Call } from "./transport.ts";

/** What a client needs. */
export interface ServerClientOptions {
  /** `server_address` of the configuration; without a scheme it gets `http://`. */
  address: string;
  agentId: string;
  /** JSON with a `refresh_token`; without it requests carry no token. */
  tokenFile?: string;
  clock: Clock;
  log: Log;
  limits?: AnswerLimits;
  /** Told of each request whether the server was there to answer it, and what came instead. */
  onContact?: (ok: boolean, message?: string) => void;
}

/** How large an answer may be, in bytes. */
export interface AnswerLimits {
  /** @default 16 MiB */
  jobBytes?: number;
  /**
   * All but jobs, attachments and results; the latter two are streams.
   * @default 1 MiB
   */
  otherBytes?: number;
}

const JOB_BYTES = 16 * 1024 * 1024;
const OTHER_BYTES = 1024 * 1024;

/**
 * Makes the client of a Testflinger server. One attempt per call, but for what a 401 calls for;
 * waiting and trying again is the caller's.
 *
 * @throws {TypeError} when the address or the agent's id cannot be used.
 */
export function createServerClient(
  options: ServerClientOptions,
): ServerApi & { close(): void } {
  return new ServerClient(options);
}

class ServerClient implements ServerApi {
  readonly #session: Session;
  readonly #logs: LogPosts;
  readonly #artifacts: ArtifactPosts;
  readonly #agent: string;
  readonly #jobBytes: number;
  readonly #otherBytes: number;
  /** What the agent last said of itself and what does not change by itself. */
  #profile: AgentUpdate = {};

  constructor(options: ServerClientOptions) {
    const { agentId, clock, log, limits = {}, onContact } = options;
    if (["", ".", ".."].includes(agentId)) {
      throw new TypeError(`Cannot use agent_id as "${agentId}": it cannot be part of a URL`);
    }
    this.#agent = encode(agentId);
    this.#jobBytes = limits.jobBytes ?? JOB_BYTES;
    this.#otherBytes = limits.otherBytes ?? OTHER_BYTES;
    this.#session = new Session({
      address: options.address,
      tokenFile: options.tokenFile,
      clock,
      log,
      limitBytes: this.#otherBytes,
      onContact: (ok, message) => {
        if (!ok) this.#logs.wasUnreachable();
        onContact?.(ok, message);
      },
    });
    this.#logs = new LogPosts({
      session: this.#session,
      clock,
      log,
      limitBytes: this.#otherBytes,
    });
    this.#artifacts = new ArtifactPosts({ session: this.#session, log });
  }

  get address() {
    return this.#session.address;
  }

  get generation() {
    return this.#logs.generation;
  }

  close() {
    this.#session.close();
  }

  async ping(signal?: AbortSignal): Promise<Answer<void>> {
    const answer = await this.#get("/v1/", signal);
    if (answer instanceof Received) await answer.drain();
    else if (answer.status === undefined || answer.status >= 500) return answer;
    return DONE;
  }

  async postAgent(update: AgentUpdate, signal?: AbortSignal): Promise<Answer<void>> {
    const { state: _state, comment: _comment, job_id: _job, log: _log, ...lasting } = update;
    this.#profile = { ...this.#profile, ...lasting };
    return await this.#postAgent(update, signal);
  }

  async #postAgent(update: AgentUpdate, signal?: AbortSignal): Promise<Answer<void>> {
    const path = `/v1/agents/data/${this.#agent}`;
    return await this.#post({ path, body: update, signal, keepCookie: true });
  }

  async getAgent(signal?: AbortSignal): Promise<Answer<AgentRecord | null>> {
    const answer = await this.#get(`/v1/agents/data/${this.#agent}`, signal);
    if (!(answer instanceof Received)) {
      if (answer.status !== 404) return answer;
      if (answer.body === "json" || answer.body === "empty") return { ok: true, value: null };
      // A gateway's 404 must not pass for a server that has forgotten what an administrator set.
      return { ...answer, kind: "busy" };
    }
    const { bytes, failure } = await answer.readAll(this.#otherBytes);
    if (failure !== undefined) return failure;
    const text = new TextDecoder().decode(bytes);
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return answer.malformed(isHtml(text, answer.contentType) ? HTML : "it is not JSON");
    }
    const record = AgentRecord.safeParse(value);
    if (record.success) return { ok: true, value: record.data };
    const [issue] = record.error.issues;
    return answer.malformed(oneLine(`${issue?.path.join(".")}: ${issue?.message}`));
  }

  async postQueues(queues: Record<string, string>, signal?: AbortSignal): Promise<Answer<void>> {
    return await this.#post({ path: "/v1/agents/queues", body: queues, signal });
  }

  async postImages(
    images: Record<string, Record<string, string>>,
    signal?: AbortSignal,
  ): Promise<Answer<void>> {
    return await this.#post({ path: "/v1/agents/images", body: images, signal });
  }

  async postProvisionLog(
    entry: ProvisionLogEntry,
    signal?: AbortSignal,
  ): Promise<Answer<void>> {
    const path = `/v1/agents/provision_logs/${this.#agent}`;
    return await this.#post({ path, body: entry, signal, once: true });
  }

  async nextJob(
    queues: readonly string[],
    { signal, noLater }: { signal?: AbortSignal; noLater?: AbortSignal } = {},
  ): Promise<Answer<JobOffer>> {
    const query = queues.map((queue) => `queue=${encode(queue)}`).join("&");
    // Idle time: cutting off a job that comes in slowly would lose it.
    const ask = () =>
      this.#session.request({
        method: "GET",
        path: `/v1/job?${query}`,
        limitMs: CALL_LIMIT_MS,
        idle: true,
        signal,
        noLater,
      });
    let answer = await ask();
    if (!(answer instanceof Received) && isCookieMissing(answer)) {
      const posted = await this.#identify(signal);
      if (!posted.ok) return posted;
      answer = await ask();
    }
    if (!(answer instanceof Received)) return answer;
    const { bytes, failure } = await answer.readAll(this.#jobBytes);
    const offer = readJob({
      what: answer.what,
      bytes,
      contentType: answer.contentType,
      ...(failure ? { cut: failure.message } : {}),
    });
    return offer.ok || failure === undefined ? offer : failure;
  }

  /** Gets the cookie without changing what the server knows of the agent, if the server lets us. */
  async #identify(signal?: AbortSignal): Promise<Answer<void>> {
    const posted = await this.#postAgent({}, signal);
    if (posted.ok || posted.kind !== "refused" || Object.keys(this.#profile).length === 0) {
      return posted;
    }
    return await this.#postAgent(this.#profile, signal);
  }

  async getAttachments(
    jobId: string,
    signal?: AbortSignal,
  ): Promise<Answer<Archive | null>> {
    const answer = await this.#get(jobPath("/v1/job/", jobId, "/attachments"), signal, {
      limitMs: TRANSFER_IDLE_MS,
      idle: true,
      // The archive as it is: `fetch` would unpack what a server labels as compressed on the way.
      headers: { "Accept": "*/*", "Accept-Encoding": "identity" },
    });
    if (!(answer instanceof Received)) return answer;
    if (answer.status !== 204) {
      const length = Number(answer.headers.get("content-length") ?? NaN);
      const stream = answer.stream();
      return { ok: true, value: Number.isFinite(length) ? { stream, length } : { stream } };
    }
    await answer.release();
    return { ok: true, value: null };
  }

  async getJobState(jobId: string, signal?: AbortSignal): Promise<Answer<string | undefined>> {
    const answer = await this.#getResult(jobId, signal);
    return answer instanceof Received ? await readJobState(answer) : answer;
  }

  async viewResult(jobId: string, signal?: AbortSignal): Promise<Answer<ResultView>> {
    const answer = await this.#getResult(jobId, signal);
    return answer instanceof Received ? await readView(answer) : answer;
  }

  async #getResult(jobId: string, signal: AbortSignal | undefined) {
    // Idle time: a result grows with the job's log.
    return await this.#get(jobPath("/v1/result/", jobId), signal, { idle: true });
  }

  async postResult(
    jobId: string,
    update: ResultUpdate,
    signal?: AbortSignal,
  ): Promise<Answer<void>> {
    return await this.#post({ path: jobPath("/v1/result/", jobId), body: update, signal });
  }

  async postLog(
    jobId: string,
    log: "output" | "serial",
    fragment: LogPiece,
    signal?: AbortSignal,
  ): Promise<Answer<void>> {
    const path = jobPath("/v1/result/", jobId, `/log/${log}`);
    if (typeof path !== "string") return this.#notAsked("POST", path);
    return await this.#logs.post({ jobId, log, fragment, signal });
  }

  async postEvents(
    jobId: string,
    update: EventsUpdate,
    signal?: AbortSignal,
  ): Promise<Answer<void>> {
    const path = jobPath("/v1/job/", jobId, "/events");
    return await this.#post({ path, body: update, signal, once: true });
  }

  async postArtifact(
    jobId: string,
    upload: Upload,
    signal?: AbortSignal,
  ): Promise<Answer<void>> {
    const path = jobPath("/v1/result/", jobId, "/artifact");
    if (typeof path !== "string") return this.#notAsked("POST", path);
    return await this.#artifacts.post({ path, upload, signal });
  }

  async #get(
    path: string | NotAJob,
    signal: AbortSignal | undefined,
    more: Partial<Call> = {},
  ): Promise<Received | CallFailure> {
    if (typeof path !== "string") return this.#notAsked("GET", path);
    return await this.#session.request({
      method: "GET",
      path,
      limitMs: CALL_LIMIT_MS,
      signal,
      ...more,
    });
  }

  async #post(post: {
    path: string | NotAJob;
    body: unknown;
    signal: AbortSignal | undefined;
    keepCookie?: boolean;
    once?: boolean;
  }): Promise<Answer<void>> {
    const { path, signal, once = false } = post;
    if (typeof path !== "string") return this.#notAsked("POST", path);
    const body = { type: "application/json", content: JSON.stringify(post.body) };
    const call: Call = { method: "POST", path, body, limitMs: CALL_LIMIT_MS, once, signal };
    const answer = await this.#session.request(call);
    if (!(answer instanceof Received)) return answer;
    if (post.keepCookie) this.#session.cookie.keepFrom(answer.headers);
    await answer.drain();
    return DONE;
  }

  /** The server would answer 400; and what is no id must not become part of a URL. */
  #notAsked(method: string, { notAJob, path }: NotAJob): Failure {
    const shown = oneLine(JSON.stringify(notAJob));
    const message =
      `${method} ${this.address}${path}: not asked: ${shown} is not a job id (a UUID)`;
    return { ok: false, kind: "refused", message };
  }
}

const DONE: Answer<void> = { ok: true, value: undefined };

interface NotAJob {
  notAJob: string;
  path: string;
}

function jobPath(before: string, jobId: string, after = ""): string | NotAJob {
  if (!isJobId(jobId)) return { notAJob: jobId, path: `${before}...${after}` };
  return `${before}${encode(jobId)}${after}`;
}

/** For one part of a path, or one value of a query. */
function encode(text: string): string {
  return encodeURIComponent(text.toWellFormed());
}
