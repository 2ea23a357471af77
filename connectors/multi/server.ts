/** The three calls to the Testflinger server that a job makes for its child jobs. */
import * as z from "zod";
import { PHASES } from "../../lib/phases.ts";
import type { ConnectorContext } from "../context.ts";
import { fullMessageOf, ProvisioningError } from "../support/errors.ts";
import type { HttpRequest } from "../support/http/http.ts";

const REQUEST_TIMEOUT_MS = 15_000;

/** A result has all that the job has printed. */
const RESULT_MAX_BYTES = 64 * 1024 * 1024;

/** How much of an answer is shown. */
const SHOWN_CHARS = 500;

/** What the agent hands over for the submitter's rights; otherwise requests are anonymous. */
const TOKEN_VARIABLE = "TESTFLINGER_TOKEN";
const TOKEN_FILE_VARIABLE = "TESTFLINGER_TOKEN_FILE";

/** What is read of a job's result. */
export interface ChildResult {
  /** `job_state`; undefined when the server does not know any yet. */
  readonly state: string | undefined;
  readonly deviceInfo: Readonly<Record<string, unknown>> | undefined;
  /** The first phase that failed, and its exit status. */
  readonly failedPhase: { readonly phase: string; readonly status: number } | undefined;
}

/** What came of a request: an answer, or why there is none. */
export type Reply<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly status: number | undefined; readonly why: string };

/** The server, for one context. */
export interface ChildJobServer {
  /** Submits a job. The value is its id. */
  submit(job: Record<string, unknown>): Promise<Reply<string>>;
  result(jobId: string): Promise<Reply<ChildResult>>;
  cancel(jobId: string): Promise<Reply<void>>;
}

const submitted = z.looseObject({ job_id: z.string().min(1) });

const result = z.looseObject({
  job_state: z.string().nullish(),
  device_info: z.record(z.string(), z.unknown()).nullish(),
  status: z.record(z.string(), z.unknown()).nullish(),
});

/**
 * The server under `baseUrl`, which may have a path.
 *
 * @throws ProvisioningError when there is a token file that cannot be read.
 */
export async function childJobServer(
  ctx: ConnectorContext,
  baseUrl: string,
): Promise<ChildJobServer> {
  const root = baseUrl.replace(/\/+$/, "");
  const token = await readToken(ctx);
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };

  async function send<T>(
    path: string,
    request: Pick<HttpRequest, "method" | "json" | "maxBytes">,
    read: (body: string) => T | undefined,
  ): Promise<Reply<T>> {
    const answer = await ctx.http.send(`${root}${path}`, {
      ...request,
      headers,
      timeoutMs: REQUEST_TIMEOUT_MS,
    });
    if (answer.ended === "failed") return { ok: false, status: undefined, why: answer.message };
    const { status } = answer;
    const words = shown(answer.body);
    if (!answer.ok) return { ok: false, status, why: `status ${status}${words}` };
    const value = read(answer.body);
    if (value !== undefined) return { ok: true, value };
    return {
      ok: false,
      status,
      why: `status ${status}, but an answer that makes no sense${words}`,
    };
  }

  return {
    submit: (job) =>
      send("/v1/job", { method: "POST", json: job }, (body) => {
        const answer = submitted.safeParse(jsonOf(body));
        return answer.success ? answer.data.job_id : undefined;
      }),
    result: (jobId) =>
      send(
        `/v1/result/${encodeURIComponent(jobId)}`,
        { maxBytes: RESULT_MAX_BYTES },
        readResult,
      ),
    async cancel(jobId) {
      const path = `/v1/job/${encodeURIComponent(jobId)}/action`;
      const reply = await send(path, { method: "POST", json: { action: "cancel" } }, () => true);
      return reply.ok ? { ok: true, value: undefined } : reply;
    },
  };
}

function readResult(body: string): ChildResult | undefined {
  // Status 204: nothing is known of the job yet.
  if (body === "") return { state: undefined, deviceInfo: undefined, failedPhase: undefined };
  const answer = result.safeParse(jsonOf(body));
  if (!answer.success) return undefined;
  return {
    state: answer.data.job_state ?? undefined,
    deviceInfo: answer.data.device_info ?? undefined,
    failedPhase: failedPhase(answer.data),
  };
}

/** Servers write the statuses as `{phase}_status`, or together under `status`. */
function failedPhase(answer: z.output<typeof result>): ChildResult["failedPhase"] {
  for (const phase of PHASES) {
    const status = answer.status?.[phase] ?? answer[`${phase}_status`];
    if (typeof status === "number" && status !== 0) return { phase, status };
  }
  return undefined;
}

async function readToken({ env }: ConnectorContext): Promise<string | undefined> {
  const token = env[TOKEN_VARIABLE]?.trim();
  if (token) return token;
  const file = env[TOKEN_FILE_VARIABLE];
  if (!file) return undefined;
  try {
    return (await Deno.readTextFile(file)).trim() || undefined;
  } catch (error) {
    throw new ProvisioningError(
      `Cannot read the token file '${file}' (${TOKEN_FILE_VARIABLE}): ${fullMessageOf(error)}`,
      { cause: error },
    );
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function shown(body: string): string {
  const text = body.trim();
  return text === "" ? "" : `: ${text.slice(0, SHOWN_CHARS)}`;
}
