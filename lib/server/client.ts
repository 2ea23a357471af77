import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import type {
  Answer,
  Archive,
  Generation,
  JobOffer,
  LogPiece,
  ResultView,
  ServerApi,
  StateAnswer,
  Upload,
} from "./api.ts";
import { readJob } from "./answers.ts";
import { ArtifactPosts } from "./artifact_posts.ts";
import { Connections } from "./connections.ts";
import {
  type CallFailure,
  foreignLine,
  isCookieMissing,
  isWrongRole,
  parseJson,
} from "./classify.ts";
import { Received } from "./exchange.ts";
import { LogPosts } from "./log_posts.ts";
import { encode, jobPath, type NotAJob, notAsked, Results } from "./results.ts";
import {
  AgentRecord,
  type AgentUpdate,
  type EventsUpdate,
  type ProvisionLogEntry,
  type ResultUpdate,
} from "./schema.ts";
import { CALL_LIMIT_MS, Session, TRANSFER_IDLE_MS } from "./session.ts";
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
  /** Shared with other clients, and closed by who made them. @default its own */
  shared?: Connections;
  limits?: AnswerLimits;
  /** Told of each request whether the server was there to answer it, and what came instead. */
  onAnswer?: (ok: boolean, message?: string) => void;
  /** Told when the server begins to turn the agent away, and, with undefined, when it has stopped. */
  onAccess?: (problem: string | undefined) => void;
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

/** A job that comes slowly is worth waiting for, but not for ever. */
const JOB_TOTAL_MS = 120_000;
/** Attachments may be an image of many gigabytes. */
const ATTACHMENTS_TOTAL_MS = 12 * 3_600_000;

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
  /** Undefined where others have them, too. */
  readonly #ownConnections: Connections | undefined;
  readonly #logs: LogPosts;
  readonly #results: Results;
  readonly #artifacts: ArtifactPosts;
  readonly #agent: string;
  readonly #jobBytes: number;
  readonly #otherBytes: number;
  /** What the agent last said of itself and what does not change by itself. */
  #profile: AgentUpdate = {};

  constructor(options: ServerClientOptions) {
    const { agentId, clock, log, limits = {}, onAnswer } = options;
    if (["", ".", ".."].includes(agentId)) {
      throw new TypeError(`Cannot use agent_id as "${agentId}": it cannot be part of a URL`);
    }
    this.#agent = encode(agentId);
    this.#jobBytes = limits.jobBytes ?? JOB_BYTES;
    this.#otherBytes = limits.otherBytes ?? OTHER_BYTES;
    const connections = options.shared ?? new Connections(clock);
    this.#ownConnections = options.shared === undefined ? connections : undefined;
    this.#session = new Session({
      address: options.address,
      tokenFile: options.tokenFile,
      clock,
      log,
      connections,
      limitBytes: this.#otherBytes,
      onAnswer: (ok, message) => {
        if (!ok) {
          this.#logs.wasUnreachable();
          this.#results.wasUnreachable();
        }
        onAnswer?.(ok, message);
      },
      onAccess: options.onAccess,
    });
    this.#logs = new LogPosts({ session: this.#session, clock, log });
    this.#results = new Results({ session: this.#session, logs: this.#logs, clock });
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
    this.#ownConnections?.close();
  }

  async findGeneration(signal?: AbortSignal): Promise<Answer<Generation>> {
    return await this.#logs.find(signal);
  }

  async postAgent(update: AgentUpdate, signal?: AbortSignal): Promise<Answer<void>> {
    const answer = await this.#postAgent(update, signal);
    // What the server refuses would get no cookie either; and a mode is the server's to keep.
    if (answer.ok) {
      const { state: _s, comment: _c, mode: _m, job_id: _j, log: _l, ...lasting } = update;
      this.#profile = { ...this.#profile, ...lasting };
    }
    return answer;
  }

  async #postAgent(update: AgentUpdate, signal?: AbortSignal): Promise<Answer<void>> {
    const path = `/v1/agents/data/${this.#agent}`;
    // The server appends what there is of a log.
    const once = update.log !== undefined;
    const answer = await this.#send({ path, body: update, signal, once });
    if (!(answer instanceof Received)) return answer;
    this.#session.cookie.keepFrom(answer.headers);
    return DONE;
  }

  async getAgent(signal?: AbortSignal): Promise<Answer<AgentRecord | null>> {
    const answer = await this.#get(`/v1/agents/data/${this.#agent}`, signal);
    if (!(answer instanceof Received)) {
      // Other words may be a gateway's, and must not pass for a server that has forgotten what an
      // administrator set.
      const isSaid = answer.body === "json" || answer.body === "empty";
      return answer.status === 404 && isSaid ? { ok: true, value: null } : answer;
    }
    const { bytes, failure } = await answer.readAll(this.#otherBytes);
    if (failure !== undefined) return failure;
    const value = parseJson(new TextDecoder().decode(bytes));
    if (value === undefined) return answer.foreign("it is not JSON");
    const record = AgentRecord.safeParse(value);
    if (record.success) return { ok: true, value: record.data };
    const [issue] = record.error.issues;
    return answer.foreign(foreignLine(`${issue?.path.join(".")}: ${issue?.message}`));
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
    const answer = await this.#send({ path, body: entry, signal, once: true });
    if (answer instanceof Received) return DONE;
    if (answer.kind !== "missing") return answer;
    // The server has kept the entry, and only misses the record that it counts it in.
    if (/agent not found/i.test(answer.said ?? "")) return DONE;
    // An older server has no such endpoint; a gateway's 404 is waited out.
    const greeted = await this.#session.greet(signal);
    return greeted.ok ? { ...answer, kind: "refused" } : answer;
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
        totalMs: JOB_TOTAL_MS,
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
      totalMs: ATTACHMENTS_TOTAL_MS,
      // The archive as it is: `fetch` would unpack what a server labels as compressed on the way.
      headers: { "Accept": "*/*", "Accept-Encoding": "identity" },
    });
    if (!(answer instanceof Received)) return await this.#results.judge(jobId, answer, signal);
    if (answer.status !== 204) {
      const length = Number(answer.headers.get("content-length") ?? NaN);
      const stream = answer.stream();
      return { ok: true, value: Number.isFinite(length) ? { stream, length } : { stream } };
    }
    answer.release();
    return { ok: true, value: null };
  }

  async getJobState(jobId: string, signal?: AbortSignal): Promise<StateAnswer> {
    return await this.#results.state(jobId, { signal, isWhole: false });
  }

  async getStatuses(jobId: string, signal?: AbortSignal): Promise<StateAnswer> {
    return await this.#results.state(jobId, { signal, isWhole: true });
  }

  async viewResult(jobId: string, signal?: AbortSignal): Promise<Answer<ResultView>> {
    return await this.#results.view(jobId, signal);
  }

  async postResult(
    jobId: string,
    update: ResultUpdate,
    signal?: AbortSignal,
  ): Promise<Answer<void>> {
    const path = jobPath("/v1/result/", jobId);
    const answer = await this.#send({ path, body: update, signal, once: true });
    return answer instanceof Received ? DONE : await this.#results.judge(jobId, answer, signal);
  }

  async postLog(
    jobId: string,
    log: "output" | "serial",
    fragment: LogPiece,
    signal?: AbortSignal,
  ): Promise<Answer<void>> {
    const path = jobPath("/v1/result/", jobId, `/log/${log}`);
    if (typeof path !== "string") return notAsked(`POST ${this.address}`, path);
    const answer = await this.#logs.post({ jobId, log, fragment, signal });
    return answer.ok ? answer : await this.#results.judge(jobId, answer, signal);
  }

  async postEvents(
    jobId: string,
    update: EventsUpdate,
    signal?: AbortSignal,
  ): Promise<Answer<void>> {
    const path = jobPath("/v1/job/", jobId, "/events");
    const answer = await this.#send({ path, body: update, signal, once: true });
    if (answer instanceof Received) return DONE;
    const judged = await this.#results.judge(jobId, answer, signal);
    const mayBeWebhooks = ["foreign", "busy", "missing", "forbidden"].includes(judged.kind);
    if (!mayBeWebhooks || isWrongRole(answer)) return judged;
    // The server hands on what the webhook has answered, which may be anything: a page, too.
    const greeted = await this.#session.greet(signal);
    if (!greeted.ok) return answer;
    return answer.status !== undefined && answer.status < 300 ? DONE : {
      ...answer,
      kind: "webhook",
    };
  }

  async postArtifact(
    jobId: string,
    upload: Upload,
    signal?: AbortSignal,
  ): Promise<Answer<void>> {
    const path = jobPath("/v1/result/", jobId, "/artifact");
    if (typeof path !== "string") return notAsked(`POST ${this.address}`, path);
    const answer = await this.#artifacts.post({ path, upload, signal });
    return answer.ok ? answer : await this.#results.judge(jobId, answer, signal);
  }

  async #get(
    path: string | NotAJob,
    signal: AbortSignal | undefined,
    more: Partial<Call> = {},
  ): Promise<Received | CallFailure> {
    if (typeof path !== "string") return notAsked(`GET ${this.address}`, path);
    return await this.#session.request({
      method: "GET",
      path,
      limitMs: CALL_LIMIT_MS,
      signal,
      ...more,
    });
  }

  async #post(post: Post): Promise<Answer<void>> {
    const answer = await this.#send(post);
    return answer instanceof Received ? DONE : answer;
  }

  async #send({ path, body, signal, once = false }: Post): Promise<Received | CallFailure> {
    if (typeof path !== "string") return notAsked(`POST ${this.address}`, path);
    return await this.#session.post({
      method: "POST",
      path,
      body: { type: "application/json", content: JSON.stringify(body) },
      limitMs: CALL_LIMIT_MS,
      once,
      signal,
    });
  }
}

const DONE: Answer<void> = { ok: true, value: undefined };

interface Post {
  path: string | NotAJob;
  body: unknown;
  signal: AbortSignal | undefined;
  /** See `Call.once`. */
  once?: boolean;
}
