/**
 * Points for InfluxDB 1.x, for labs whose dashboards are fed by them. Told and forgotten: points wait
 * in a bounded queue, and an InfluxDB that is slow or gone delays nothing and costs one warning.
 *
 * @see https://docs.influxdata.com/influxdb/v1/write_protocols/line_protocol_reference/
 */
import { Backoff } from "../backoff.ts";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { requestMessageOf } from "../message.ts";
import { type Sink, sinkOf } from "./events.ts";

const DATABASE = "agent_jobs";
const MEASUREMENT = "phase result";
const DEFAULT_PORT = 8086;

/** A busy lab makes some twenty points a job: days of them. The oldest go first. */
const MAX_QUEUED = 1000;
const MAX_POINTS_A_REQUEST = 200;

const REQUEST_LIMIT_MS = 10_000;
/** How long stopping may wait for the last points, `offline` among them. */
const CLOSE_LIMIT_MS = 2_000;
const FIRST_PAUSE_MS = 5_000;
const LONGEST_PAUSE_MS = 300_000;

/** Where the points go. */
export interface InfluxOptions {
  clock: Clock;
  log: Log;
  /** Reads `INFLUX_HOST`, `INFLUX_PORT`, `INFLUX_USER` and `INFLUX_PW`. @default Deno.env.get */
  env?: (name: string) => string | undefined;
}

/** What makes points. */
export interface Influx {
  readonly sink: Sink;
  /** Sends what is left, if that works within two seconds. */
  close(): Promise<void>;
}

interface Settings {
  url: string;
  authorization: string | undefined;
}

/** What became of a request; without a status there was no answer. */
type Sent = { ok: true } | { ok: false; status?: number; message: string };

/** 404: the database is gone. 401 and 403: the administrator may set it right. */
const PASSING_STATUS = [401, 403, 404, 408, 429];

/** Makes the points of all agents; `undefined` when `INFLUX_HOST` is not set, or what is set is wrong. */
export function createInflux(options: InfluxOptions): Influx | undefined {
  const { clock, log } = options;
  const settings = readSettings(options.env ?? ((name) => Deno.env.get(name)), log);
  if (settings === undefined) return undefined;

  const closing = new AbortController();
  const queue: string[] = [];
  let lastNs = 0n;
  /** The state that was told last, by agent. */
  const lastStates = new Map<string, string>();
  let databaseMade = false;
  let unreachable = false;
  let working: Promise<void> | undefined;

  const add = (agent: string, fields: string) => {
    // Two points with the same tags and time are one point to InfluxDB.
    const ns = BigInt(Math.trunc(clock.now())) * 1_000_000n;
    lastNs = ns > lastNs ? ns : lastNs + 1n;
    queue.push(`${escapeName(MEASUREMENT)},agent=${escapeTag(agent)} ${fields} ${lastNs}`);
    if (queue.length > MAX_QUEUED) queue.shift();
    if (!closing.signal.aborted) work();
  };

  const sendAll = async () => {
    // Points that are told in the same breath go in the same request.
    await Promise.resolve();
    const backoff = new Backoff({
      baseMs: FIRST_PAUSE_MS,
      capMs: LONGEST_PAUSE_MS,
      random: () => 1,
    });
    while (queue.length > 0 || !databaseMade) {
      const sent = await sendSome(REQUEST_LIMIT_MS, closing.signal);
      if (closing.signal.aborted) return;
      note(sent);
      if (isFinal(sent)) {
        backoff.reset();
        continue;
      }
      try {
        await clock.sleep(backoff.next(), closing.signal);
      } catch {
        return;
      }
    }
  };

  const sendSome = async (limitMs: number, signal?: AbortSignal): Promise<Sent> => {
    const call = (path: string, body: string) =>
      post(settings, { path, body, limitMs, clock, ...(signal === undefined ? {} : { signal }) });
    if (!databaseMade) {
      const made = await call(`query?q=${encodeURIComponent(`CREATE DATABASE "${DATABASE}"`)}`, "");
      // A user who may write but not create is refused here; the write tells whether that matters.
      if (!made.ok && !isAnswer(made)) return made;
      databaseMade = true;
    }
    if (queue.length === 0) return { ok: true };
    const points = queue.slice(0, MAX_POINTS_A_REQUEST);
    const sent = await call(`write?db=${DATABASE}&precision=ns`, points.join("\n") + "\n");
    if (isFinal(sent)) {
      // Not by number: the queue may have lost its oldest points meanwhile.
      queue.splice(0, queue.indexOf(points.at(-1) ?? "") + 1);
    }
    // The database may have been dropped.
    if (!sent.ok && sent.status === 404) databaseMade = false;
    return sent;
  };

  const note = (sent: Sent) => {
    if (sent.ok) {
      if (unreachable) log.info("InfluxDB takes points again");
      unreachable = false;
    } else if (!unreachable) {
      unreachable = true;
      log.warning(
        "InfluxDB does not take points; jobs are not affected. Check INFLUX_HOST, INFLUX_PORT, " +
          "INFLUX_USER and INFLUX_PW",
        { reason: sent.message },
      );
    }
  };

  const work = () => {
    working ??= sendAll().finally(() => working = undefined);
  };
  work();

  return {
    sink: sinkOf({
      mode({ agent, state }) {
        if (state === lastStates.get(agent)) return;
        lastStates.set(agent, state);
        add(agent, `phase=${fieldString(state)}`);
      },
      phase_ended({ agent, phase, status }) {
        add(agent, `phase=${fieldString(phase)},result=${status}i`);
      },
    }),
    async close() {
      closing.abort();
      await working;
      if (queue.length > 0 && !unreachable) await sendSome(CLOSE_LIMIT_MS);
    },
  };
}

function readSettings(env: (name: string) => string | undefined, log: Log): Settings | undefined {
  const host = env("INFLUX_HOST");
  if (!host) return undefined;
  const port = env("INFLUX_PORT") || `${DEFAULT_PORT}`;
  const name = host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
  const url = `http://${name}:${port}/`;
  if (!/^\d{1,5}$/.test(port) || !/^[\w.\-[\]:]+$/.test(name) || !URL.canParse(url)) {
    log.error(
      "No points are sent to InfluxDB: INFLUX_HOST must be a host name or address without a " +
        "scheme, INFLUX_PORT a number up to 65535",
      { INFLUX_HOST: host, INFLUX_PORT: port },
    );
    return undefined;
  }
  const user = env("INFLUX_USER");
  const bytes = new TextEncoder().encode(`${user}:${env("INFLUX_PW") ?? ""}`);
  return { url, authorization: user ? `Basic ${bytes.toBase64()}` : undefined };
}

/** Whether the server has read the request and would answer the same again. */
function isAnswer(sent: Sent): boolean {
  return !sent.ok && sent.status !== undefined && sent.status < 500;
}

/** Whether these points need not be sent again: they have arrived, or never will. */
function isFinal(sent: Sent): boolean {
  return sent.ok || (isAnswer(sent) && !PASSING_STATUS.includes(sent.status ?? 0));
}

interface Post {
  path: string;
  body: string;
  limitMs: number;
  clock: Clock;
  signal?: AbortSignal;
}

async function post(
  settings: Settings,
  { path, body, limitMs, clock, signal }: Post,
): Promise<Sent> {
  const ended = new AbortController();
  const limit = new AbortController();
  clock.sleep(limitMs, ended.signal).then(
    () => limit.abort(new Error(`no answer within ${limitMs / 1000} s`)),
    () => {},
  );
  try {
    const response = await fetch(settings.url + path, {
      method: "POST",
      body,
      // A redirect would carry the password to who knows where.
      redirect: "manual",
      headers: {
        "content-type": "text/plain; charset=utf-8",
        ...(settings.authorization === undefined ? {} : { authorization: settings.authorization }),
      },
      signal: signal === undefined ? limit.signal : AbortSignal.any([limit.signal, signal]),
    });
    await response.body?.cancel();
    if (response.ok) return { ok: true };
    const { status, statusText } = response;
    return { ok: false, status, message: `answered ${status} ${statusText}`.trimEnd() };
  } catch (error) {
    const message = requestMessageOf(error);
    return { ok: false, message };
  } finally {
    ended.abort();
  }
}

/** A measurement's name: commas and spaces are escaped. */
function escapeName(text: string): string {
  return text.replaceAll(/[, ]/g, "\\$&");
}

/** A tag's value cannot be quoted, cannot hold a new line, and must not end in a backslash. */
function escapeTag(text: string): string {
  const escaped = text.replaceAll(/[\r\n]+/g, " ").replaceAll(/[,= ]/g, "\\$&");
  return escaped.endsWith("\\") ? `${escaped}\\ ` : escaped;
}

function fieldString(text: string): string {
  return `"${text.replaceAll(/["\\]/g, "\\$&").replaceAll("\n", "\\n")}"`;
}
