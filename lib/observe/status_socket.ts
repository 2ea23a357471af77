/**
 * What the agent is doing, for the commands `status`, `restart`, `offline`, `online` and `logs` on the
 * same host: a socket in the agent's own folder, for its own user and root. Other than the port of
 * the status page it is always there, and it costs no time at start.
 */
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { join } from "../path.ts";
import { HttpServer } from "./http_server.ts";
import { createLiveEvents } from "./live_events.ts";
import type { StatusBoard } from "./status.ts";
import type { HostStatus } from "./status_schema.ts";

/** In the agent's folder. */
const SOCKET_NAME = "status.sock";

/** The folder is the agent's alone already; if it is opened to others, the socket stays closed. */
const SOCKET_MODE = 0o600;

/** A command that reads slowly does not keep the agent from stopping. */
const CLOSE_LIMIT_MS = 2_000;

/** Where the socket of an agent is, given its folder in `results_basedir`. */
export function statusSocketPath(folder: string): string {
  return join(folder, SOCKET_NAME);
}

/** What is served, and where. */
export interface StatusSocketOptions {
  /** The agent's own folder. The caller holds the agent's lock: what lies there is a left-over. */
  folder: string;
  board: StatusBoard;
  /** The process and all its agents. */
  host(): HostStatus;
  clock: Clock;
  log: Log;
}

/** The socket. */
export interface StatusSocket {
  /** Makes it again where it was removed, with the agent's folder for one. */
  renew(): void;
  close(): Promise<void>;
}

/** Serves until `close()`. Where that cannot be done the agent goes on without, after a warning. */
export function serveStatusSocket(options: StatusSocketOptions): StatusSocket {
  const { folder, board, host, clock, log } = options;
  const path = statusSocketPath(folder);
  const live = createLiveEvents({ board, clock });
  const answer = (request: Request): Response => {
    if (request.method !== "GET") return new Response("Only GET.\n", { status: 405 });
    switch (new URL(request.url).pathname) {
      case "/v1/status":
        return Response.json(board.snapshot());
      case "/v1/host":
        return Response.json(host());
      case "/v1/events": {
        const stream = live.open();
        if (stream === undefined) {
          return new Response("Too many are watching already.\n", { status: 503 });
        }
        return new Response(stream, { headers: { "content-type": "text/event-stream" } });
      }
      default:
        return new Response("There are /v1/status, /v1/host and /v1/events.\n", { status: 404 });
    }
  };
  let server: HttpServer | undefined;
  let hasFailed = false;
  let renewing: Promise<void> | undefined;
  let isClosed = false;

  const serve = () => {
    try {
      removeLeftover(path);
      const listener = Deno.listen({ transport: "unix", path });
      server = new HttpServer({ listener, answer, what: "the agent's status socket", clock, log });
      Deno.chmodSync(path, SOCKET_MODE);
      hasFailed = false;
    } catch (error) {
      if (hasFailed) return;
      hasFailed = true;
      log.warning(
        "Cannot make the agent's status socket; the agent goes on without it, and 'testflinger-agent " +
          "status' will not reach it. A path of more than 107 bytes is too long: shorten " +
          "results_basedir",
        { path, reason: messageOf(error) },
      );
    }
  };
  serve();

  return {
    renew() {
      if (isThere(path) || renewing !== undefined) return;
      // A listener that ends removes what has its name by then, so the new one comes after that.
      renewing = (server?.close(0) ?? Promise.resolve()).then(() => {
        if (!isClosed) serve();
        renewing = undefined;
      });
    },
    async close() {
      isClosed = true;
      live.close();
      await renewing;
      await server?.close(CLOSE_LIMIT_MS);
    },
  };
}

function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

function removeLeftover(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
