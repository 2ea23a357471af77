import { assertEquals } from "@std/assert";
import { createServer } from "node:http";
import { systemClock } from "../../lib/clock.ts";
import { createServerClient } from "../../lib/server/client.ts";
import { recordingLog } from "../support/recording_log.ts";

/** A server that loses the connection after it has read a request, and counts what it was sent. */
async function withLossyServer(
  answer: (length: string | undefined) => number | "lose",
  test: (url: string, bodies: string[]) => Promise<void>,
): Promise<void> {
  const bodies: string[] = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    bodies.push(body);
    const status = answer(request.headers["content-length"]);
    if (status === "lose") request.socket.destroy();
    else response.writeHead(status).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  try {
    await test(
      `http://127.0.0.1:${typeof address === "object" ? address?.port : 0}`,
      bodies,
    );
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

function clientOf(url: string) {
  return createServerClient({
    address: url,
    agentId: "agent-1",
    clock: systemClock,
    log: recordingLog(),
  });
}

const FRAGMENT = {
  fragment_number: 0,
  timestamp: "2026-01-01T00:00:00+00:00",
  phase: "test",
  log_data: "hello\n",
} as const;

Deno.test("a piece of a log is sent once when the connection is lost before the answer", () =>
  withLossyServer(() => "lose", async (url, bodies) => {
    const client = clientOf(url);
    const answer = await client.postLog(crypto.randomUUID(), "output", FRAGMENT);
    client.close();
    assertEquals(answer.ok, false);
    assertEquals(bodies.length, 1);
  }));

Deno.test("a server that insists on the length of a body gets it", () =>
  withLossyServer((length) => length === undefined ? 411 : 200, async (url, bodies) => {
    const client = clientOf(url);
    const answers = [
      await client.postLog(crypto.randomUUID(), "output", FRAGMENT),
      await client.postLog(crypto.randomUUID(), "output", FRAGMENT),
    ];
    client.close();
    assertEquals(answers.map((answer) => answer.ok), [true, true]);
    assertEquals(bodies.length, 3);
  }));
