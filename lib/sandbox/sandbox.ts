/**
 * A Testflinger server in memory, for trying things and for tests: strict where the real one is,
 * and with windows through which a test sees what has arrived.
 */
import { pageRoutes } from "./page.ts";
import { Hono } from "hono";
import { type Clock, systemClock } from "../clock.ts";
import type { Phase } from "../phases.ts";
import type { JobEvent } from "../server/schema.ts";
import { agentRoutes } from "./agent_routes.ts";
import { AgentStore, type StoredAgent, type StoredProvisionLog } from "./agent_store.ts";
import { type DateForm, json, RefusedRequest, words } from "./wire_form.ts";
import { Auth, type Role, tokenRoutes } from "./auth.ts";
import { Changes } from "./changes.ts";
import type { LogType, StoredFragment } from "./job_log.ts";
import { jobRoutes } from "./job_routes.ts";
import { SandboxJobs } from "./job_store.ts";
import { resultRoutes, resultValues } from "./result_routes.ts";
import { joined } from "./upload.ts";

/** How a sandbox behaves. */
export interface SandboxOptions {
  /** @default "current" */
  generation?: "current" | "legacy";
  /** Whether the agent endpoints demand an access token of role `agent`. @default false */
  tokens?: boolean;
  /** Whether agents have a `mode` set by administrators in addition to their own `state`. @default false */
  mode?: boolean;
  /**
   * Whether a current server can be asked for the state of a job alone, as from late August 2026 on.
   * @default true
   */
  hasStatus?: boolean;
  /** How long an access token is good for. @default 600 */
  accessTokenSeconds?: number;
  /** How an agent's `updated_at` is written. @default "iso" */
  updatedAt?: DateForm;
  /** Whether events go to the job's webhook for real, or are only kept. @default false */
  deliverWebhooks?: boolean;
  clock?: Clock;
  /** Told of each request: `POST /v1/job 200`. */
  log?: (line: string) => void;
}

/** One request that was answered. */
export interface RequestRecord {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  /** With its question mark, or empty. */
  readonly query: string;
  readonly status: number;
  /** When it arrived, in milliseconds since 1970. */
  readonly at: number;
}

/**
 * Stands before the server: answers in its place, or returns nothing to let the request through.
 * `proceed` runs the real thing, for a fault that comes after it (an answer that gets lost).
 * Who wants to read the request's body reads that of `request.clone()`.
 */
export type Interceptor = (
  request: Request,
  proceed: () => Promise<Response>,
) => Response | undefined | Promise<Response | undefined>;

/** A Testflinger server in memory. */
export interface Sandbox {
  /** Answers a request as the server would. Never throws. */
  fetch(request: Request): Promise<Response>;

  /**
   * Puts a job into its queue as it is, without validating it (`POST /v1/job` does that).
   *
   * @param attachments the archive, a tar.gz; without it a job that lists attachments waits for
   *   `POST /v1/job/{id}/attachments`.
   * @returns the job's id: the job's own `job_id`, or a new one.
   */
  submit(job: Record<string, unknown>, attachments?: Uint8Array): string;
  /** The job as submitted, with its `job_id`. */
  job(jobId: string): Record<string, unknown> | undefined;
  /** `job_state`. */
  state(jobId: string): string | undefined;
  /** What `GET /v1/result/{id}` says, without the logs that came as fragments. */
  result(jobId: string): Record<string, unknown> | undefined;
  /**
   * A log's text, in the order of the fragments' numbers. On a legacy server the text of one phase
   * is what the final result carries, and that of all is what was posted while the job ran.
   */
  log(jobId: string, type: LogType, phase?: Phase): string;
  /** A log's fragments in the order in which they came. */
  fragments(jobId: string, type: LogType): readonly StoredFragment[];
  artifact(jobId: string): Uint8Array<ArrayBuffer> | undefined;
  /** The job's events, as last posted. */
  events(jobId: string): readonly JobEvent[];
  /** False when the job is over already, or unknown. */
  cancel(jobId: string): boolean;

  agent(agentId: string): StoredAgent | undefined;
  provisionLogs(agentId: string): readonly StoredProvisionLog[];
  /** As an administrator does it. */
  setAgent(agentId: string, update: { state?: string; mode?: string; comment?: string }): void;
  /** As if the server's database had lost the job: from now on its posts are answered with 404. */
  forgetJob(jobId: string): void;
  /** As if seven days had gone by without a word from the agent. */
  forgetAgent(agentId: string): void;
  /** Gives a queue owners; none makes it free again. */
  restrict(queue: string, owners: readonly string[]): void;

  /** Registers a refresh token. @default role "agent", clientId "agent" */
  addRefreshToken(token: string, client?: { role?: Role; clientId?: string }): void;
  revokeRefreshToken(token: string): void;
  /** Registers who may exchange a name and a secret for tokens. */
  addClient(client: { clientId: string; secret: string; role: Role }): void;
  /** Makes all access tokens that were handed out expire now. */
  expireAccessTokens(): void;
  /** As if the server's signing key had been changed: 403 for all tokens that were handed out. */
  spoilAccessTokens(): void;

  /** The last 10 000 requests, oldest first. */
  readonly requests: readonly RequestRecord[];
  /** How many requests there were in all. */
  readonly requestCount: number;
  /**
   * Resolves with what `predicate` returns, once that is anything but false, null or undefined. It
   * is asked at once and after everything that happens.
   *
   * @throws the signal's reason, or what `predicate` throws.
   */
  waitFor<T>(
    predicate: () => T | false | null | undefined,
    options?: { signal?: AbortSignal },
  ): Promise<T>;

  /** Adds an interceptor; those added first are asked first. @returns what takes it away again. */
  intercept(interceptor: Interceptor): () => void;
}

/** Of the requests, so many are kept. */
const KEPT_REQUESTS = 10_000;

/** Makes an empty server. */
export function createSandbox(options: SandboxOptions = {}): Sandbox {
  const { generation = "current", clock = systemClock } = options;
  const auth = new Auth({
    enabled: options.tokens ?? false,
    clock,
    accessTokenSeconds: options.accessTokenSeconds ?? 600,
  });
  const jobs = new SandboxJobs(clock);
  const agents = new AgentStore(clock);
  const app = makeApp({
    generation,
    clock,
    auth,
    jobs,
    agents,
    hasStatus: options.hasStatus ?? true,
    mode: options.mode ?? false,
    updatedAt: options.updatedAt ?? "iso",
    deliverWebhooks: options.deliverWebhooks ?? false,
  });
  const changes = new Changes();
  const interceptors: Interceptor[] = [];
  const requests: RequestRecord[] = [];
  let requestCount = 0;

  const pass = async (request: Request, chain: readonly Interceptor[]): Promise<Response> => {
    const [first, ...others] = chain;
    if (first === undefined) return await app.fetch(request);
    let answer: Promise<Response> | undefined;
    const proceed = () => answer ??= pass(request, others);
    return await first(request, proceed) ?? await proceed();
  };

  return {
    async fetch(request) {
      const at = clock.now();
      let response: Response;
      try {
        response = await pass(request, interceptors.slice());
      } catch (error) {
        response = new Response(`Unhandled Exception: ${error}\n`, { status: 500 });
      }
      const { pathname: path, search: query } = new URL(request.url);
      const { method } = request;
      requestCount++;
      requests.push({ method, path, query, status: response.status, at });
      if (requests.length > KEPT_REQUESTS) requests.shift();
      options.log?.(`${method} ${path}${query} ${response.status}`);
      changes.notify();
      return response;
    },

    submit(submission, attachments) {
      const { jobId } = jobs.add(structuredClone(submission));
      if (attachments !== undefined) {
        const copy = new Uint8Array(attachments);
        jobs.attach(jobId, { chunks: [copy], size: copy.byteLength });
      }
      changes.notify();
      return jobId;
    },
    job(jobId) {
      const job = jobs.get(jobId);
      return job && { ...job.data, job_id: jobId };
    },
    state(jobId) {
      const state = jobs.get(jobId)?.result.job_state;
      return typeof state === "string" ? state : undefined;
    },
    result(jobId) {
      const job = jobs.get(jobId);
      return job && resultValues(job);
    },
    log(jobId, type, phase) {
      if (generation === "legacy" && phase !== undefined) {
        return String(jobs.get(jobId)?.result[`${phase}_${type}`] ?? "");
      }
      const log = jobs.logs(jobId)[type];
      const fragments = phase === undefined ? log?.all() : log?.ofPhase(phase);
      return (fragments ?? []).map((fragment) => fragment.log_data).join("");
    },
    fragments: (jobId, type) => jobs.logs(jobId)[type]?.arrivals.slice() ?? [],
    artifact(jobId) {
      const file = jobs.artifact(jobId);
      return file && joined(file);
    },
    events: (jobId) => jobs.events(jobId),
    cancel(jobId) {
      const done = jobs.cancel(jobId);
      changes.notify();
      return done;
    },

    agent: (agentId) => agents.get(agentId),
    provisionLogs: (agentId) => agents.provisionLogs(agentId),
    setAgent(agentId, update) {
      agents.update(agentId, update);
      changes.notify();
    },
    forgetJob(jobId) {
      jobs.forget(jobId);
      changes.notify();
    },
    forgetAgent(agentId) {
      agents.forget(agentId);
      changes.notify();
    },
    restrict: (queue, owners) => agents.restrict(queue, owners),

    addRefreshToken: (token, { role = "agent", clientId = "agent" } = {}) =>
      auth.addRefreshToken(token, { role, clientId }),
    revokeRefreshToken: (token) => auth.revokeRefreshToken(token),
    addClient: (client) => auth.addClient(client),
    expireAccessTokens: () => auth.expireAccessTokens(),
    spoilAccessTokens: () => auth.spoilAccessTokens(),

    get requests() {
      return requests.slice();
    },
    get requestCount() {
      return requestCount;
    },
    waitFor: (predicate, { signal } = {}) => changes.wait(predicate, signal),
    intercept(interceptor) {
      interceptors.push(interceptor);
      return () => {
        const place = interceptors.indexOf(interceptor);
        if (place >= 0) interceptors.splice(place, 1);
      };
    },
  };
}

function makeApp(world: Parameters<typeof jobRoutes>[0]): Hono {
  const app = new Hono({ strict: false });
  app.get("/v1", (c) => {
    const url = new URL(c.req.url);
    if (url.pathname.endsWith("/")) return words(c, "Testflinger Server vsandbox");
    url.pathname = "/v1/";
    return c.redirect(url.href, 308);
  });
  app.route("/", pageRoutes(world));
  app.route("/v1", tokenRoutes(world.auth));
  app.route("/v1", jobRoutes(world));
  app.route("/v1", resultRoutes(world));
  app.route("/v1", agentRoutes(world));
  app.notFound((c) => words(c, "Not found: 404 Not Found: The requested URL was not found\n", 404));
  app.onError((error, c) => {
    if (error instanceof RefusedRequest) {
      return json(c, { detail: error.detail, message: error.message }, error.status);
    }
    return words(c, `Unhandled Exception: ${error}\n`, 500);
  });
  return app;
}
