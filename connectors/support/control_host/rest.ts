/** The REST service of a control host. */
import type { Log } from "../../../lib/log.ts";
import type { ConnectorContext, PrepareContext } from "../../context.ts";
import { need } from "../config.ts";
import { fullMessageOf, ProvisioningError } from "../errors.ts";
import { exchange, type HttpAnswer, type HttpBody, type Trust } from "../http/exchange.ts";
import { bracketed } from "../ssh/ssh.ts";

/** One call. */
interface RestCall {
  /** @default "GET" */
  readonly method?: string;
  /** Sent as JSON. */
  readonly json?: unknown;
  /** In place of `json`. */
  readonly body?: HttpBody;
  readonly headers?: Readonly<Record<string, string>>;
  /** For connecting, and for silence where nothing else is said. */
  readonly timeoutMs: number;
  /** How long the service may be silent. @default `timeoutMs` */
  readonly readTimeoutMs?: number | (() => number);
}

/** What came of a call whose answer is small. */
type RestResult =
  | { readonly ok: true; readonly body: string }
  | RestFailure;

/** Why there is no answer that is any good. */
export interface RestFailure {
  readonly ok: false;
  readonly why: string;
  /** Undefined where there was no answer. */
  readonly status: number | undefined;
  /** The service has got nothing of the request. */
  readonly unreachable: boolean;
}

/** What a call needs of a stage. */
type CallContext = Pick<ConnectorContext, "limits" | "signal">;

/** The service, as the configuration says. */
export interface RestService {
  /** Its base, without a slash at the end. */
  readonly url: string;
  /** Sends a request and reads its answer. */
  call(ctx: CallContext, path: string, call: RestCall): Promise<RestResult>;
  /** The same for an answer that is read as it comes: the caller disposes of it. */
  open(
    ctx: CallContext,
    path: string,
    call: RestCall,
  ): Promise<HttpAnswer | RestFailure>;
}

/** How much of an answer a message shows. */
const SHOWN_CHARS = 500;

/**
 * The REST service of the configured control host.
 *
 * @throws ProvisioningError when the configuration does not name it, or the certificates to verify
 *   its own by cannot be read.
 */
export async function restService(
  { config, log }: Pick<PrepareContext, "config" | "log">,
): Promise<RestService> {
  const { control_host_scheme: scheme, control_host_token: token } = config;
  const host = need(config, "control_host");
  const url = `${scheme}://${bracketed(host)}:${config.control_host_port}`;
  const verify = config.control_host_verify_tls;
  // Where nothing is verified, a file that is not there is in nobody's way.
  const isVerified = scheme === "https" && verify;
  const trust: Trust = {
    verify,
    ca: isVerified ? await certificates(config.control_host_ca) : undefined,
  };
  if (scheme === "https" && !verify) {
    log.warning(
      `The certificate of the control host ${host} is not checked, as 'control_host_verify_tls' is ` +
        `false: passwords are sent to any host that answers in its place`,
    );
  }

  const service: RestService = {
    url,
    async open(ctx, path, call) {
      const { method, json, timeoutMs, readTimeoutMs = timeoutMs } = call;
      const answer = await exchange(ctx, url + path, {
        ...(method === undefined ? {} : { method }),
        body: call.body ?? (json === undefined ? undefined : jsonBody(json)),
        headers: {
          ...call.headers,
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        },
        connectTimeoutMs: timeoutMs,
        readTimeoutMs,
        trust,
      });
      if (answer.ended === "failed") {
        const { message: why, unreachable } = answer;
        return { ok: false, why, status: undefined, unreachable };
      }
      if (answer.ok) return answer;
      const { status } = answer;
      const words = (await answer.text()).trim().slice(0, SHOWN_CHARS);
      return {
        ok: false,
        why: `status ${status}${words === "" ? "" : `: ${words}`}`,
        status,
        unreachable: false,
      };
    },
    async call(ctx, path, call) {
      const answer = await service.open(ctx, path, call);
      if (!("ended" in answer)) return answer;
      try {
        return { ok: true, body: await answer.text() };
      } catch (error) {
        ctx.signal.throwIfAborted();
        const { status } = answer;
        return { ok: false, why: fullMessageOf(error), status, unreachable: false };
      }
    },
  };
  return service;
}

async function certificates(file: string | undefined): Promise<string | undefined> {
  if (file === undefined) return undefined;
  let why = "there is no certificate in it: PEM is expected";
  try {
    const text = await Deno.readTextFile(file);
    if (text.includes("-----BEGIN CERTIFICATE-----")) return text;
  } catch (error) {
    why = fullMessageOf(error);
  }
  throw new ProvisioningError(`Cannot read 'control_host_ca', the file '${file}': ${why}`);
}

function jsonBody(value: unknown): HttpBody {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  return { type: "application/json", length: bytes.length, pieces: () => [bytes] };
}

/** What the lines begin with that another host has logged. */
const MARK = "[control-host] ";

/** The service's levels, and ours. */
const LEVELS: Readonly<Record<string, keyof Log>> = {
  NOTSET: "debug",
  DEBUG: "debug",
  INFO: "info",
  WARN: "warning",
  WARNING: "warning",
  ERROR: "error",
  FATAL: "error",
  CRITICAL: "error",
};

/**
 * Shows an entry of a control host's log: a JSON object with `level` and `message`.
 *
 * @param warned the levels that nobody knows and that have been warned of.
 * @returns false when it is not JSON; then a warning says so.
 */
export function logEntry(log: Log, data: string, warned: Set<unknown>): boolean {
  let entry: unknown;
  try {
    entry = JSON.parse(data);
  } catch {
    log.warning(`The control host logs what is not JSON: ${data.slice(0, 200)}`);
    return false;
  }
  // Any object may have these, of any type.
  const isObject = typeof entry === "object" && entry !== null && !Array.isArray(entry);
  const { level, message } = isObject ? entry as { level?: unknown; message?: unknown } : {};
  const text = typeof message === "string" ? message : data;
  const known = typeof level === "string" ? LEVELS[level.toUpperCase()] : undefined;
  if (known === undefined && isObject && !warned.has(level)) {
    warned.add(level);
    log.warning(
      `The control host logs with the level ${JSON.stringify(level)}: such lines are shown as INFO`,
    );
  }
  for (const line of text.split(/\r?\n/)) log[known ?? "info"](`${MARK}${line}`);
  return true;
}
