import { assertFalse, AssertionError } from "@std/assert";
import type { Answer, Failure } from "../../../lib/server/api.ts";
import { createServerClient, type ServerClientOptions } from "../../../lib/server/client.ts";
import { FakeClock } from "../../support/fake_clock.ts";
import { recordingLog } from "../../support/recording_log.ts";

export const JOB_ID = "11111111-2222-4333-8444-555555555555";

/** A request that a `TestServer` has received. */
export interface Seen {
  method: string;
  /** With the query. */
  path: string;
  headers: Headers;
  body: string;
}

/** An HTTP server on loopback that answers as a test says and remembers what it was asked. */
export interface TestServer extends AsyncDisposable {
  address: string;
  seen: Seen[];
  /** How many connections were opened. */
  readonly connections: number;
}

/** What a test's handler answers with; a string is a 200 with that text. */
export type Reply = Response | string | Promise<Response>;

/** Serves on a free port; `handle` gets each request with its body already read. */
export function serve(handle: (seen: Seen, request: Request) => Reply): TestServer {
  const seen: Seen[] = [];
  const ports = new Set<number>();
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, async (
    request,
    info,
  ) => {
    ports.add(info.remoteAddr.port);
    const url = new URL(request.url);
    const body = new TextDecoder().decode(await request.arrayBuffer());
    const { method, headers } = request;
    const one = { method, path: url.pathname + url.search, headers, body };
    seen.push(one);
    const reply = await handle(one, request);
    return typeof reply === "string" ? new Response(reply) : reply;
  });
  return {
    address: `http://127.0.0.1:${server.addr.port}`,
    seen,
    get connections() {
      return ports.size;
    },
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

/** A server on loopback of which a test writes each byte: for answers that no HTTP server gives. */
export function serveRaw(
  handle: (connection: Deno.TcpConn, request: string) => Promise<void>,
): AsyncDisposable & { address: string; count: number } {
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const connections = new Set<Deno.TcpConn>();
  const tasks: Promise<void>[] = [];
  const result = {
    address: `http://127.0.0.1:${listener.addr.port}`,
    count: 0,
    async [Symbol.asyncDispose]() {
      listener.close();
      for (const connection of connections) close(connection);
      await Promise.allSettled(tasks);
    },
  };
  const one = async (connection: Deno.TcpConn) => {
    const buffer = new Uint8Array(65_536);
    const length = await connection.read(buffer);
    if (length === null) return;
    result.count += 1;
    await handle(connection, new TextDecoder().decode(buffer.subarray(0, length)));
  };
  tasks.push((async () => {
    for await (const connection of listener) {
      connections.add(connection);
      tasks.push(one(connection));
    }
  })());
  return result;
}

/** Closing twice is fine in a test's end. */
export function close(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch (error) {
    if (!(error instanceof Deno.errors.BadResource)) throw error;
  }
}

/** Writes all of a text to a connection. */
export async function write(connection: Deno.TcpConn, text: string): Promise<void> {
  let bytes = new TextEncoder().encode(text);
  while (bytes.length > 0) bytes = bytes.subarray(await connection.write(bytes));
}

/** A clock that knows how often it was looked at: each byte that moves makes a limit look. */
export class WatchedClock extends FakeClock {
  looks = 0;

  override monotonic(): number {
    this.looks += 1;
    return super.monotonic();
  }

  /** Does what makes bytes arrive, and waits until they have been noticed. */
  async noticed(act: () => Promise<void>): Promise<void> {
    const before = this.looks;
    await act();
    await until(() => this.looks > before);
  }
}

/** A server whose answer has begun and goes on as a test says. */
export function serveSlowly(head: string) {
  let connection: Deno.TcpConn | undefined;
  const server = serveRaw(async (accepted) => {
    await write(accepted, head);
    connection = accepted;
  });
  return Object.assign(server, {
    /** Resolves when the client has seen the head and waits for what follows. */
    async begun(clock: WatchedClock) {
      // At the start of the limit, at the head of the answer, at the start of reading.
      await until(() => connection !== undefined && clock.looks >= 3);
    },
    async send(text: string) {
      if (connection === undefined) throw new Error("Nobody has connected yet");
      await write(connection, text);
    },
  });
}

/** A client whose clock stands still and whose log is kept. */
export function connect(options: Partial<ServerClientOptions> & { address: string }) {
  const clock = new WatchedClock();
  const log = recordingLog();
  const client = createServerClient({ agentId: "rpi4-01", clock, log, ...options });
  return { client, clock, log, [Symbol.dispose]: () => client.close() };
}

/** Fails the test unless the call has failed, with one printable line, whatever the server sent. */
export function failed(answer: { ok: true } | Failure): Failure {
  if (answer.ok) throw new AssertionError("The call should have failed");
  assertFalse(/[\p{Cc}\p{Zl}\p{Zp}]/u.test(answer.message), answer.message);
  return answer;
}

/** Fails the test unless the call has succeeded. */
export function succeeded<T>(answer: Answer<T>): T {
  if (!answer.ok) throw new AssertionError(`The call should have succeeded: ${answer.message}`);
  return answer.value;
}

/** A JSON answer. */
export function json(value: unknown, init: ResponseInit = {}): Response {
  return Response.json(value, init);
}

/** Polls until a condition holds: for events of another task, which take no measured time. */
export async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 2000 && !condition(); i++) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  if (!condition()) throw new Error("The condition did not come to hold");
}
