import { assertEquals } from "@std/assert";
import { Lab } from "../support/lab.ts";

Deno.test("queues that the server did not take for a moment are advertised again soon, not a day later", async () => {
  await using lab = await Lab.open({ config: { advertised_queues: { "queue-1": "the first" } } });
  let refusals = 0;
  lab.sandbox.intercept((request) =>
    request.url.endsWith("/v1/agents/queues") && refusals++ === 0
      ? new Response("busy", { status: 503 })
      : undefined
  );
  lab.start();
  await lab.until(() => refusals > 1, "the queues are advertised again");
});

Deno.test("lines of the agent's log that the server did not take are posted again", async () => {
  let lines = ["one", "two"];
  await using lab = await Lab.open({ recentLog: () => lines.splice(0) });
  let refusals = 0;
  lab.sandbox.intercept((request) =>
    request.method === "POST" && request.url.includes("/v1/agents/data/") && refusals++ === 0
      ? new Response("busy", { status: 503 })
      : undefined
  );
  lab.start();
  const logged = () => lab.sandbox.agent("agent-1")?.log ?? [];
  await lab.until(() => logged().length > 0, "the lines");
  assertEquals(logged(), ["one", "two"]);
  lines = ["three"];
  await lab.until(() => logged().length > 2, "one more");
  assertEquals(logged(), ["one", "two", "three"]);
});
