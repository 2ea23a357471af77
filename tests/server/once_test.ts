import { assertEquals } from "@std/assert";
import { createServer } from "node:http";
import { systemClock } from "../../lib/clock.ts";
import type { Answer, ServerApi } from "../../lib/server/api.ts";
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

/** What the server adds to what it has, or tells in a job's history. */
const POSTS: Record<string, (client: ServerApi) => Promise<Answer<void>>> = {
  "a piece of a log": (client) => client.postLog(crypto.randomUUID(), "output", FRAGMENT),
  "a state": (client) => client.postResult(crypto.randomUUID(), { job_state: "test" }),
  "the agent's own log": (client) => client.postAgent({ log: ["hello"] }),
  "an event": (client) =>
    client.postEvents(crypto.randomUUID(), {
      agent_id: "agent-1",
      job_queue: "queue-1",
      job_status_webhook: "http://127.0.0.1:9/hook",
      events: [],
    }),
  "a provision log": (client) =>
    client.postProvisionLog({ job_id: crypto.randomUUID(), exit_code: 0, detail: "" }),
};

for (const [what, post] of Object.entries(POSTS)) {
  Deno.test(`${what} is sent once when the connection is lost before the answer`, () =>
    withLossyServer(() => "lose", async (url, bodies) => {
      const client = clientOf(url);
      const answer = await post(client);
      client.close();
      assertEquals(answer.ok, false);
      assertEquals(bodies.filter((body) => body !== "").length, 1);
    }));
}

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
