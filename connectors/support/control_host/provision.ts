/**
 * Provisioning by the service of a control host: one request, then its log, line by line, until it
 * says that it is done. The service may be restarted meanwhile, and connections may break.
 */
import { Backoff } from "../../../lib/backoff.ts";
import * as z from "zod";
import { join } from "../../../lib/path.ts";
import type { ConnectorContext, PrepareContext } from "../../context.ts";
import { attachmentPath, type JobData } from "../job.ts";
import { need, needAll } from "../config.ts";
import { fullMessageOf, ProvisioningError } from "../errors.ts";
import { multipartBody } from "../http/multipart.ts";
import { readEvents } from "../http/sse.ts";
import { pollUntil } from "../wait/poll.ts";
import { logEntry, type RestFailure, type RestService, restService } from "./rest.ts";

const DEFAULT_TIMEOUT_S = 5400;
/** The service has its own limit; this is what it gets beyond it to say so. */
const GRACE_MS = 300_000;

const TIMEOUT_MS = 30_000;
const CANCEL_TIMEOUT_MS = 10_000;
/** A stream that is silent for so long may be dead. It is opened again where it was. */
const STREAM_SILENCE_MS = 300_000;

const FIRST_PAUSE_MS = 2_000;
const LONGEST_PAUSE_MS = 30_000;

/** Each pause is twice as long as the one before it. */
function pauses(): Backoff {
  return new Backoff({ baseMs: FIRST_PAUSE_MS, capMs: LONGEST_PAUSE_MS, random: () => 1 });
}
/** Failures in a row, of the service as a whole. */
const MAX_FAILURES = 10;

/** What the service says as long as it is not done. */
const IN_PROGRESS = ["running", "queued", "pending"];

/** The key of `provision_data` that all methods have. */
export const controlHostProvisionShape = {
  provisioning_timeout: z.union([z.number().nonnegative(), z.string().regex(/^\d+$/)], {
    error: "must be a number of seconds",
  }).transform(Number).meta({ type: "number" }).optional().describe(
    `Seconds that the control host may take; unset or 0: ${DEFAULT_TIMEOUT_S}.`,
  ),
};

/** A request to a control host, ready to be sent. */
export interface ControlHostRequest {
  readonly rest: RestService;
  readonly method: string;
  readonly kwargs: Readonly<Record<string, unknown>>;
  /** File to send along. */
  readonly bootBinary: string | undefined;
  readonly timeoutMs: number;
  /** Testflinger's own. */
  readonly jobId: string | undefined;
}

/**
 * Prepares a request. `kwargs` gets what all methods have: who the device is, and how its power is
 * switched, as far as the job does not say that itself.
 *
 * @throws ProvisioningError naming what is missing in the configuration.
 */
export async function controlHostRequest(
  ctx: PrepareContext,
  { method, kwargs, job, data, bootBinary }: {
    readonly method: "ProvisioningIoT" | "ProvisioningKVM" | "ProvisioningOEM";
    readonly kwargs: Readonly<Record<string, unknown>>;
    readonly job: JobData;
    readonly data: { readonly provisioning_timeout?: number | undefined };
    readonly bootBinary?: string | undefined;
  },
): Promise<ControlHostRequest> {
  const { config } = ctx;
  needAll(config, ["control_host", "agent_name", "device_ip"]);
  if (kwargs.reboot_script === undefined) needAll(config, ["reboot_script"]);
  return {
    rest: await restService(ctx),
    method,
    kwargs: {
      reboot_script: config.reboot_script,
      poweron_script: config.poweron_script ?? null,
      poweroff_script: config.poweroff_script ?? null,
      ...kwargs,
      agent_name: config.agent_name,
      cid: config.env.CID ?? null,
      device_ip: need(config, "device_ip"),
    },
    bootBinary,
    timeoutMs: (data.provisioning_timeout || DEFAULT_TIMEOUT_S) * 1000,
    jobId: job.job_id ?? undefined,
  };
}

/**
 * The job's attachment for the control host, if it has one.
 *
 * @throws ProvisioningError when it has more than one.
 */
export async function bootBinary(ctx: PrepareContext): Promise<string | undefined> {
  const folder = join(ctx.cwd, "attachments/provision");
  const names: string[] = [];
  try {
    for await (const { name } of Deno.readDir(folder)) {
      const isFile = await Deno.stat(join(folder, name)).then((info) => info.isFile, () => false);
      if (isFile) names.push(name);
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new ProvisioningError(`Cannot look for attachments: ${fullMessageOf(error)}`);
  }
  const [name, ...more] = names;
  if (name === undefined) return undefined;
  if (more.length > 0) {
    throw new ProvisioningError(
      `The control host takes one attachment, but the job has ${names.length} for provision: ` +
        names.sort().join(", "),
    );
  }
  return await attachmentPath(ctx, { phase: "provision", name, key: "attachments" });
}

/**
 * Has the control host provision the device.
 *
 * @throws ProvisioningError when it does not take the request, fails, is gone for good, or takes too
 *   long. Then, and when the connector is stopped, it is asked to give up.
 */
export async function provisionByControlHost(
  ctx: ConnectorContext,
  request: ControlHostRequest,
): Promise<void> {
  const limitMs = request.timeoutMs + GRACE_MS;
  const id = await submit(ctx, request);
  const work = new Work(ctx, { rest: request.rest, path: `/api/v1/provision/${id}`, limitMs });
  ctx.log.info(`The control host provisions the device, as its job ${id}`);
  await using _cancel = ctx.putBack("the control host's job", (own) => work.cancel(own));
  const missing = await pollUntil(ctx, {
    waitingFor: "the control host to provision the device",
    limitMs,
    pauseMs: () => work.pauseMs(),
    lookFirst: true,
    look: (leftMs) => work.look(leftMs),
  });
  if (missing === undefined) return;
  throw new ProvisioningError(
    `The control host was not done ${limitMs / 1000} s after its job ${id} began: ${missing}`,
  );
}

/** @returns the id of the control host's job, as used in paths. */
async function submit(ctx: ConnectorContext, request: ControlHostRequest): Promise<string> {
  const { rest, method, kwargs, jobId } = request;
  const json = { method, args: [], kwargs };
  const common = {
    method: "POST",
    headers: jobId === undefined ? {} : { "idempotency-key": headerText(jobId) },
    timeoutMs: TIMEOUT_MS,
  };
  const backoff = pauses();
  for (let attempt = 1;; attempt++) {
    const answer = request.bootBinary === undefined
      ? await rest.call(ctx, "/api/v1/provision", { ...common, json })
      : await rest.call(ctx, "/api/v1/provision/multipart", {
        ...common,
        body: await multipartBody({
          fields: { request: JSON.stringify(json) },
          file: { name: "boot_binary", path: request.bootBinary },
        }),
        readTimeoutMs: request.timeoutMs,
      });
    if (answer.ok) {
      const parsed = submitted.safeParse(jsonOf(answer.body));
      if (parsed.success) return encodeURIComponent(parsed.data.job_id);
      throw new ProvisioningError(
        `The control host took the request, but did not say the id of its job: ${
          answer.body.trim().slice(0, 500)
        }`,
      );
    }
    const failure = `The control host ${rest.url} does not take the request: ${answer.why}`;
    // Once it has got something, it may be at work, and a second request would be in its way.
    if (!answer.unreachable || attempt >= MAX_FAILURES) throw new ProvisioningError(failure);
    const pauseMs = backoff.next();
    ctx.log.warning(`${failure}; trying again in ${pauseMs / 1000} s`);
    await ctx.clock.sleep(pauseMs, ctx.signal);
  }
}

const submitted = z.looseObject({ job_id: z.union([z.string().min(1), z.number()]) })
  .transform(({ job_id: id }) => ({ job_id: String(id) }));

const statusAnswer = z.looseObject({ status: z.string(), error: z.unknown().optional() });

/** The control host's job, while it goes on. */
class Work {
  /** Where the stream is to go on: the id of the last entry that was shown. */
  #cursor: string | undefined;
  readonly #warned = new Set<unknown>();
  #failures = 0;
  readonly #backoff = pauses();
  /** Of the look before. */
  #entries = 0;
  #over = false;
  readonly #deadline: number;

  constructor(
    readonly ctx: ConnectorContext,
    readonly job: { readonly rest: RestService; readonly path: string; readonly limitMs: number },
  ) {
    this.#deadline = ctx.clock.monotonic() + job.limitMs;
  }

  /** The pause after a look; after one that brought nothing new, the next one doubles. */
  pauseMs(): number {
    const pause = this.#backoff.next();
    if (this.#entries > 0) this.#backoff.reset();
    return pause;
  }

  /** Shows what the log brings, then asks for the status: undefined when all is done. */
  async look(leftMs: number): Promise<string | undefined> {
    this.#entries = 0;
    if (leftMs > 0) await this.#follow();
    const { rest, path } = this.job;
    const answer = await rest.call(this.ctx, path, { timeoutMs: TIMEOUT_MS });
    const said = answer.ok ? statusAnswer.safeParse(jsonOf(answer.body)) : undefined;
    if (said === undefined || !said.success) {
      const why = answer.ok ? `it answers '${answer.body.trim().slice(0, 200)}'` : answer.why;
      return this.#failed(why, answer.ok ? undefined : answer);
    }
    this.#failures = 0;
    const { status, error } = said.data;
    if (IN_PROGRESS.includes(status)) return `it says '${status}'`;
    this.#over = true;
    if (status === "completed") return undefined;
    throw new ProvisioningError(errorText(error) ?? `The control host says '${status}'`);
  }

  /** Asks the service to give up, unless it is done. Old services do not know how. */
  async cancel(ctx: ConnectorContext): Promise<void> {
    if (this.#over) return;
    const { rest, path } = this.job;
    const answer = await rest.call(ctx, path, { method: "DELETE", timeoutMs: CANCEL_TIMEOUT_MS });
    if (answer.ok || answer.status === 404 || answer.status === 405) return;
    ctx.log.warning(`The control host was asked to give up, and did not answer: ${answer.why}`);
  }

  #failed(why: string, failure: RestFailure | undefined): string {
    const { status } = failure ?? {};
    // It is there, and knows nothing of the job, or of us.
    const final = status !== undefined && status >= 400 && status < 500 && status !== 408 &&
      status !== 429;
    this.#failures++;
    if (final || this.#failures >= MAX_FAILURES) {
      throw new ProvisioningError(
        `The control host does not say how far it is, after ${this.#failures} attempts: ${why}`,
      );
    }
    this.ctx.log.warning(`The control host does not say how far it is (yet): ${why}`);
    return `it does not answer: ${why}`;
  }

  /** Relays the log until the stream ends, however it ends. */
  async #follow(): Promise<void> {
    const { ctx, job: { rest, path } } = this;
    const stream = await rest.open(ctx, `${path}/logs`, {
      headers: {
        accept: "text/event-stream",
        ...(this.#cursor === undefined ? {} : { "last-event-id": this.#cursor }),
      },
      timeoutMs: TIMEOUT_MS,
      readTimeoutMs: () => Math.max(0, Math.min(STREAM_SILENCE_MS, this.#leftMs())),
    });
    if (!("ended" in stream)) {
      ctx.log.warning(`The control host's log cannot be read (yet): ${stream.why}`);
      return;
    }
    using open = stream;
    try {
      for await (const { id, data } of readEvents(this.#whileTimeIsLeft(open.body))) {
        if (!logEntry(ctx.log, data, this.#warned)) continue;
        this.#entries++;
        if (id !== undefined) this.#cursor = headerText(id) || undefined;
      }
    } catch (error) {
      ctx.signal.throwIfAborted();
      ctx.log.info(`The control host's log broke off: ${fullMessageOf(error)}`);
    }
  }

  /** A service that goes on saying something has a limit, too. */
  async *#whileTimeIsLeft(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const piece of body) {
      yield piece;
      if (this.#leftMs() <= 0) throw new Error("the time is over");
    }
  }

  #leftMs(): number {
    return this.#deadline - this.ctx.clock.monotonic();
  }
}

/** As headers can have it: UTF-8, byte by byte, without control characters. */
function headerText(text: string): string {
  return Buffer.from(text.replaceAll(/\p{Cc}/gu, ""), "utf8").toString("latin1");
}

function errorText(error: unknown): string | undefined {
  if (typeof error === "string") return error.trim() || undefined;
  return error === undefined || error === null ? undefined : JSON.stringify(error);
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
