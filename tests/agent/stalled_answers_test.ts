import { assertEquals } from "@std/assert";
import { Lab } from "../support/lab.ts";

/** An answer that stands still after its first bytes. */
function stalled(): Response {
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(new TextEncoder().encode('{"name": "age')),
  });
  return new Response(body, { headers: { "content-type": "application/json" } });
}

/** An answer that goes on and on. */
function endless(): Response {
  const piece = new TextEncoder().encode(" ".repeat(1024));
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      controller.enqueue(piece);
    },
  });
  return new Response(body, { headers: { "content-type": "application/json" } });
}

const QUESTIONS = {
  "GET /v1/job": (request: Request) => request.url.includes("/v1/job?"),
  "GET /v1/agents/data": (request: Request) =>
    request.method === "GET" && request.url.includes("/v1/agents/data/"),
};

for (const [what, answer] of Object.entries({ "stands still": stalled, "never ends": endless })) {
  for (const [question, is] of Object.entries(QUESTIONS)) {
    Deno.test(`an answer to ${question} that ${what} does not keep the next job from being run`, async () => {
      await using lab = await Lab.open({ config: { test_command: "true" } });
      let answers = 0;
      lab.sandbox.intercept((request) => is(request) && ++answers === 2 ? answer() : undefined);
      lab.start();
      await lab.eventually(() => answers >= 2, "such an answer");
      const jobId = await lab.run({ test_data: { a: 1 } });
      assertEquals(lab.statuses(jobId), { test: 0 });
    });

    Deno.test(`an agent that waits for an answer to ${question} that ${what} stops when it is told to`, async () => {
      await using lab = await Lab.open();
      let answers = 0;
      lab.sandbox.intercept((request) => is(request) && ++answers >= 2 ? answer() : undefined);
      const agent = lab.start();
      await lab.eventually(() => answers >= 2, "such an answer");
      agent.stop();
      assertEquals(await agent.ended, { ended: "stopped" });
    });
  }

  Deno.test(`an answer to the question for a cancellation that ${what} does not hide the cancellation`, async () => {
    await using lab = await Lab.open({ config: { test_command: "echo ready; sleep 1000" } });
    let isOdd = true;
    let answers = 0;
    lab.sandbox.intercept((request) => {
      const isAsked = request.method === "GET" && request.url.includes("/v1/result/");
      if (!isAsked || !isOdd) return undefined;
      answers++;
      return answer();
    });
    const jobId = lab.submit({ test_data: { a: 1 } });
    lab.start();
    await lab.eventually(() => answers > 0, "such an answer");
    await lab.until(
      () => lab.sandbox.log(jobId, "output", "test").includes("ready"),
      "the test runs",
    );
    lab.sandbox.cancel(jobId);
    isOdd = false;
    await lab.complete(jobId);
    assertEquals(lab.statuses(jobId), { test: 256 - 15 });
  });
}
