/**
 * What a host answers over HTTP for its agents: metrics, health, status and the pages. Load this module only
 * when a port is set; the rest of the agent starts faster without it.
 */
import { type Context, Hono } from "hono";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { type AgentView, hostStatus, type HostView, viewConfiguration } from "./host_view.ts";
import { HttpServer } from "./http_server.ts";
import {
  createLiveEvents,
  type FeedMaker,
  type LiveEvents,
  pageFeed,
  textFeed,
} from "./live_events.ts";
import { piecesOf, showText } from "./output_text.ts";
import type { Metrics } from "./metrics.ts";
import { renderActionPage, renderAgentPage, renderDownPage } from "./page/agent_page.ts";
import { renderHostPage } from "./page/host_page.ts";
import { PAGE_JS } from "./page/script.ts";
import { iconOf, PAGE_CSS } from "./page/style.ts";
import { ActionDesk } from "./page_actions.ts";
import type { StatusBoard } from "./status.ts";

/** How often a port that is in use is tried again: the process before us may still be stopping. */
const BIND_AGAIN_MS = 60_000;

/** A browser that reads slowly does not keep the agent from stopping. */
const CLOSE_LIMIT_MS = 2_000;

/** What a page has of a log before its script has begun: a browser lays it out at once. */
const PAGE_LOG_BYTES = 64 * 1024;

/**
 * Nothing but our own style and script, no frame, no other origin: should a byte of output
 * ever get into the page as markup, it could still do nothing.
 */
const SECURITY_HEADERS = {
  "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; " +
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; " +
    "frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-store",
};

const EVENT_STREAM = { "content-type": "text/event-stream" };

/** What is served, and where. */
export interface HealthOptions {
  /** `metrics_host`. On a loopback address, requests by any other name are refused. */
  host: string;
  /** `metrics_port`; 0 for any free one. */
  port: number;
  view: HostView;
  metrics: Metrics;
  clock: Clock;
  log: Log;
}

/** The running endpoint. */
export interface Health {
  /** `http://127.0.0.1:9100/`; undefined while the port is not ours. */
  readonly url: string | undefined;
  close(): Promise<void>;
}

/**
 * Serves until `close()`. A port that cannot be had is an error in the log, and is tried again every
 * minute; it never ends the agent.
 */
export function serveHealth(options: HealthOptions): Health {
  const { host, port, clock, log } = options;
  const live = { text: new LiveLogs(clock, textFeed), page: new LiveLogs(clock, pageFeed) };
  const app = createHealthApp(options, live);
  const closing = new AbortController();
  let server: { http: HttpServer; url: string } | undefined;

  /** Returns why it did not work. */
  const bind = (): string | undefined => {
    try {
      const listener = Deno.listen({ hostname: host, port });
      const what = "the status page and the metrics";
      const http = new HttpServer({ listener, answer: app.fetch, what, clock, log });
      server = { http, url: urlOf(listener.addr) };
    } catch (error) {
      return messageOf(error);
    }
    log.info("The status page and the metrics are served", { url: server.url });
    return undefined;
  };

  const bindAgain = async () => {
    do {
      try {
        await clock.sleep(BIND_AGAIN_MS, closing.signal);
      } catch {
        return;
      }
    } while (bind() !== undefined);
  };

  const problem = bind();
  let binding = Promise.resolve();
  if (problem !== undefined) {
    log.error(
      "Cannot serve the status page and the metrics; the agent goes on without them and tries again " +
        "every minute. Set metrics_host and metrics_port to an address that is free",
      { host, port, reason: problem },
    );
    binding = bindAgain();
  }

  return {
    get url() {
      return server?.url;
    },
    async close() {
      closing.abort();
      live.text.close();
      live.page.close();
      await binding;
      await server?.http.close(CLOSE_LIMIT_MS);
    },
  };
}

function urlOf({ hostname, port }: Deno.NetAddr): string {
  return `http://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}/`;
}

/** The live logs of all agents; one for each board that is watched. */
class LiveLogs {
  readonly #clock: Clock;
  readonly #feed: FeedMaker;
  readonly #logs = new Map<StatusBoard, LiveEvents>();

  constructor(clock: Clock, feed: FeedMaker) {
    this.#clock = clock;
    this.#feed = feed;
  }

  open(board: StatusBoard, isCurrent: (board: StatusBoard) => boolean) {
    // A board ends with its agent's life.
    for (const [other, log] of this.#logs) {
      if (isCurrent(other)) continue;
      log.close();
      this.#logs.delete(other);
    }
    const log = this.#logs.get(board) ??
      createLiveEvents({ board, clock: this.#clock, feed: this.#feed });
    this.#logs.set(board, log);
    return log.open();
  }

  close(): void {
    for (const log of this.#logs.values()) log.close();
  }
}

/** The answers, without a port. */
function createHealthApp(
  options: HealthOptions,
  live: { text: LiveLogs; page: LiveLogs },
): Hono {
  const { view, metrics, clock, log } = options;
  const onlyLoopback = isLoopback(options.host);
  const app = new Hono();

  app.use(async (c, next) => {
    if (onlyLoopback && !isLoopback(hostOf(c))) {
      // DNS rebinding: a web page has its own name point to this host and would read the answer.
      c.res = c.text("This endpoint is served to localhost only.\n", 421);
    } else if (!["GET", "HEAD"].includes(c.req.method) && !isAction(c)) {
      c.res = c.text("Only GET and HEAD.\n", 405, { allow: "GET, HEAD" });
    } else {
      await next();
    }
    for (const [name, value] of Object.entries(SECURITY_HEADERS)) c.res.headers.set(name, value);
  });

  /** Whether it is an action on a page that allows it, and comes from that page and no other site's. */
  const isAction = (c: Context) => {
    const [, encoded] = /^\/agents\/([^/]+)\/actions$/.exec(c.req.path) ?? [];
    if (c.req.method !== "POST" || encoded === undefined) return false;
    const isOfAgent = view.agents().some(({ agentId, actions }) =>
      actions !== undefined && encodeURIComponent(agentId) === encoded
    );
    const origin = c.req.header("origin");
    return isOfAgent && (origin === undefined || URL.parse(origin)?.host === c.req.header("host"));
  };

  app.get(
    "/metrics",
    async (c) => c.body(await metrics.text(), 200, { "content-type": metrics.contentType }),
  );
  const status = () => hostStatus(view, clock.now());
  /** Of one agent there is nothing to say but its own words. */
  const isAlone = () => {
    const [only, ...others] = view.agents();
    return only !== undefined && others.length === 0 &&
      view.broken().every(({ agent_id }) => agent_id === only.agentId);
  };
  app.get("/healthz", (c) => {
    const { troubles, agents } = status();
    const words = isAlone() ? agents.flatMap(({ trouble }) => trouble ?? []) : troubles;
    return words.length === 0 ? c.text("ok\n") : c.text(`${words.join("\n")}\n`, 503);
  });
  app.get("/readyz", (c) => {
    const { ready, agents } = status();
    if (ready) return c.text("ok\n");
    const words = agents.map(({ agent_id, not_ready_because = "" }) =>
      isAlone() ? not_ready_because : `${agent_id}: ${not_ready_because}`
    );
    return c.text(`${words.join("\n") || "there are no agents"}\n`, 503);
  });
  app.get("/v1/status", (c) => c.json(status()));
  app.get("/v1/agents/:agent", (c) => {
    const agent = view.agent(c.req.param("agent"));
    if (agent === undefined) return c.text("There is no such agent.\n", 404);
    if (agent.board === undefined) return c.text(`It does not run: ${agent.trouble ?? ""}\n`, 503);
    return c.json(agent.board.snapshot());
  });
  const eventsOf = (logs: LiveLogs) => (c: Context) => {
    const board = view.agent(c.req.param("agent") ?? "")?.board;
    if (board === undefined) return c.text(NOT_RUNNING, 404);
    // Nobody would read the stream, or end it.
    if (c.req.raw.method === "HEAD") return c.body(null, 200, EVENT_STREAM);
    const stream = logs.open(board, (other) => view.agents().some(({ board }) => board === other));
    if (stream === undefined) return c.text("Too many are watching already.\n", 503);
    return c.body(stream, 200, EVENT_STREAM);
  };
  app.get("/v1/agents/:agent/events", eventsOf(live.text));
  app.get("/agents/:agent/live", eventsOf(live.page));
  const download = (name: string, bytesOf: (board: StatusBoard) => Uint8Array) => (c: Context) => {
    const agentId = c.req.param("agent") ?? "";
    const board = view.agent(agentId)?.board;
    if (board === undefined) return c.text(NOT_RUNNING, 404);
    const job = board.snapshot().job ?? board.snapshot().recent_jobs[0];
    const file = [agentId, job?.job_id ?? "no-job", name].join("-").replaceAll(/[^\w.-]/g, "_");
    return c.text(showText(new TextDecoder().decode(bytesOf(board))), 200, {
      "content-disposition": `attachment; filename="${file}"`,
    });
  };
  app.get("/agents/:agent/log.txt", download("log.txt", (board) => board.tail()));
  app.get("/agents/:agent/serial.txt", download("serial.txt", (board) => board.serialTail()));
  app.get("/agents/:agent", (c) => {
    const agent = view.agent(c.req.param("agent"));
    if (agent === undefined) return c.text("There is no such agent.\n", 404);
    return c.html(pageOf(agent));
  });
  const desk = new ActionDesk(clock);
  app.post("/agents/:agent/actions", async (c) => {
    const agentId = c.req.param("agent");
    const actions = view.agent(agentId)?.actions;
    if (actions === undefined) return c.text(NOT_RUNNING, 404);
    const { status, words } = await desk.take(new URLSearchParams(await c.req.text()), actions);
    const answer = { isDone: status === 200, words };
    return c.html(renderActionPage(agentId, { answer, ...about() }), status);
  });
  app.get("/agents/:agent/actions", (c) => {
    const agentId = c.req.param("agent");
    if (view.agent(agentId)?.actions === undefined) return c.text("It cannot be acted on.\n", 404);
    return c.html(renderActionPage(agentId, about()));
  });
  const about = () => ({ version: view.version, now: clock.now() });
  const pageOf = (agent: AgentView) => renderOneAgent(agent, about());
  app.get("/", (c) => {
    const [only] = view.agents();
    return c.html(
      only !== undefined && isAlone() ? pageOf(only) : renderHostPage(status(), c.req.query("q")),
    );
  });
  app.get("/:icon{icon-[a-z]+\\.svg}", (c) => {
    const icon = iconOf(c.req.param("icon").slice("icon-".length, -".svg".length));
    return icon === undefined
      ? c.notFound()
      : c.body(icon, 200, { "content-type": "image/svg+xml" });
  });
  app.get("/page.css", (c) => c.body(PAGE_CSS, 200, { "content-type": "text/css" }));
  app.get("/page.js", (c) => c.body(PAGE_JS, 200, { "content-type": "text/javascript" }));
  app.get("/favicon.ico", (c) => c.body(null, 204));

  let failed = false;
  app.onError((error, c) => {
    if (!failed) {
      failed = true;
      log.error("The status endpoint failed; jobs are not affected, please report this", {
        path: c.req.path,
        error: error.stack ?? error.message,
      });
    }
    return c.text("Internal error; the agent's log says more.\n", 500);
  });
  return app;
}

const NOT_RUNNING = "No such agent is running.\n";

/** The page of one agent; of one that does not run all that is known is why. */
function renderOneAgent(
  { agentId, board, configuration, defaults, trouble, actions, jobPage = () => undefined }:
    AgentView,
  { version, now }: { version: string; now: number },
) {
  if (board === undefined) {
    return renderDownPage(agentId, { why: trouble ?? "it is starting", version, now });
  }
  const { job_queues: queues } = configuration;
  const log = board.tail();
  const skipped = Math.max(0, log.length - PAGE_LOG_BYTES);
  const marks = board.marks().map(({ phase, at }) => ({ phase, at: Math.max(0, at - skipped) }));
  return renderAgentPage({
    status: board.snapshot(),
    configuration: viewConfiguration(configuration, defaults),
    queues: Array.isArray(queues) ? queues.map(String) : [],
    log: piecesOf(log.subarray(skipped), marks).pieces,
    serial: piecesOf(board.serialTail()).pieces,
    jobPage,
    canAct: actions !== undefined,
  });
}

/** The name by which the request asks, without the port; `""` when it is none. */
function hostOf(c: Context): string {
  const host = c.req.header("host");
  const url = host === undefined ? c.req.url : `http://${host}/`;
  return URL.canParse(url) ? new URL(url).hostname : "";
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host === "[::1]" ||
    /^127(\.\d{1,3}){3}$/.test(host);
}
