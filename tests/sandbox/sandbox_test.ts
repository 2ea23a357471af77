import { assertEquals, assertRejects } from "@std/assert";
import { createSandbox } from "../../lib/sandbox/sandbox.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { fragment, get, post, UNKNOWN_JOB } from "./call.ts";

Deno.test("submit() takes any job as it is, also one that the server would refuse", async () => {
  const sandbox = createSandbox();
  const job = { job_queue: "q", provision_data: null, colour: { of: "the sky" } };
  const jobId = sandbox.submit(job);
  const handedOut = await (await get(sandbox, "/v1/job?queue=q", { Cookie: "agent_name=a" }))
    .json();
  assertEquals({ ...handedOut, started_at: "" }, { ...job, job_id: jobId, started_at: "" });
});

Deno.test("submit() keeps its own copy of the job and of the archive", () => {
  const sandbox = createSandbox();
  const job = { job_queue: "q", test_data: { attachments: [{ agent: "a" }] } };
  const archive = new Uint8Array([1, 2, 3]);
  const jobId = sandbox.submit(job, archive);
  job.job_queue = "changed";
  archive.fill(0);
  assertEquals(sandbox.job(jobId)?.job_queue, "q");
  assertEquals(sandbox.job(jobId)?.attachments_status, "complete");
});

Deno.test("a job that is submitted again under its id waits again", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  await get(sandbox, "/v1/job?queue=q", { Cookie: "agent_name=a" });
  assertEquals(sandbox.submit({ job_queue: "q", job_id: jobId }), jobId);
  assertEquals(sandbox.state(jobId), "waiting");
});

Deno.test("what is asked about unknown jobs and agents is empty, not an error", () => {
  const sandbox = createSandbox();
  assertEquals(sandbox.job(UNKNOWN_JOB), undefined);
  assertEquals(sandbox.state(UNKNOWN_JOB), undefined);
  assertEquals(sandbox.result(UNKNOWN_JOB), undefined);
  assertEquals(sandbox.log(UNKNOWN_JOB, "output"), "");
  assertEquals(sandbox.fragments(UNKNOWN_JOB, "serial"), []);
  assertEquals(sandbox.artifact(UNKNOWN_JOB), undefined);
  assertEquals(sandbox.events(UNKNOWN_JOB), []);
  assertEquals(sandbox.cancel(UNKNOWN_JOB), false);
  assertEquals(sandbox.agent("nobody"), undefined);
  assertEquals(sandbox.provisionLogs("nobody"), []);
});

Deno.test("fragments tell when they came", async () => {
  const clock = new FakeClock();
  const sandbox = createSandbox({ clock });
  const jobId = sandbox.submit({ job_queue: "q" });
  await clock.advance(1234);
  await post(sandbox, `/v1/result/${jobId}/log/output`, fragment());
  assertEquals(sandbox.fragments(jobId, "output"), [{
    fragment_number: 0,
    timestamp: "2026-01-01T00:00:00.000000+00:00",
    phase: "test",
    log_data: "hello\n",
    at: clock.now(),
  }]);
});

Deno.test("an administrator sets, and the server forgets, an agent", () => {
  const sandbox = createSandbox();
  sandbox.setAgent("a", { state: "offline", comment: "fire" });
  assertEquals(sandbox.agent("a")?.state, "offline");
  assertEquals(sandbox.agent("a")?.comment, "fire");
  sandbox.forgetAgent("a");
  assertEquals(sandbox.agent("a"), undefined);
});

Deno.test("requests are remembered with path, query, status and time", async () => {
  const clock = new FakeClock();
  const lines: string[] = [];
  const sandbox = createSandbox({ clock, log: (line) => lines.push(line) });
  await get(sandbox, "/v1/job?queue=a&queue=b");
  await post(sandbox, "/v1/agents/data/a", {});
  assertEquals(sandbox.requests, [
    { method: "GET", path: "/v1/job", query: "?queue=a&queue=b", status: 401, at: clock.now() },
    { method: "POST", path: "/v1/agents/data/a", query: "", status: 200, at: clock.now() },
  ]);
  assertEquals(sandbox.requestCount, 2);
  assertEquals(lines, ["GET /v1/job?queue=a&queue=b 401", "POST /v1/agents/data/a 200"]);
});

Deno.test("of the requests the last 10 000 are remembered, and all are counted", async () => {
  const sandbox = createSandbox();
  sandbox.intercept(() => new Response());
  for (let i = 0; i <= 10_000; i++) await get(sandbox, `/${i}`);
  assertEquals(sandbox.requests.length, 10_000);
  assertEquals(sandbox.requests[0]?.path, "/1");
  assertEquals(sandbox.requestCount, 10_001);
});

Deno.test("waitFor() resolves at once when there is nothing to wait for", async () => {
  assertEquals(await createSandbox().waitFor(() => 0), 0);
});

Deno.test("waitFor() resolves when a request, or a test, makes its condition true", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const logged = sandbox.waitFor(() => sandbox.log(jobId, "output").includes("hello"));
  const cancelled = sandbox.waitFor(() => sandbox.state(jobId) === "cancelled");
  const agent = sandbox.waitFor(() => sandbox.agent("a"));
  await post(sandbox, `/v1/result/${jobId}/log/output`, fragment());
  sandbox.cancel(jobId);
  sandbox.setAgent("a", { state: "offline" });
  assertEquals([await logged, await cancelled, (await agent).state], [true, true, "offline"]);
});

Deno.test("waitFor() ends with the signal's reason, or with the predicate's error", async () => {
  const sandbox = createSandbox();
  const stop = new AbortController();
  const waiting = sandbox.waitFor(() => false, { signal: stop.signal });
  stop.abort(new Error("enough"));
  await assertRejects(() => waiting, Error, "enough");
  await assertRejects(
    () => sandbox.waitFor(() => false, { signal: stop.signal }),
    Error,
    "enough",
  );
  await assertRejects(
    () =>
      sandbox.waitFor(() => {
        throw new Error("broken predicate");
      }),
    Error,
    "broken predicate",
  );
});

Deno.test("an interceptor answers in the server's place, until it is taken away", async () => {
  const sandbox = createSandbox();
  const seen: string[] = [];
  const remove = sandbox.intercept((request) => {
    seen.push(request.method);
    if (request.method === "POST") return new Response("busy", { status: 503 });
  });
  assertEquals((await post(sandbox, "/v1/agents/data/a", {})).status, 503);
  assertEquals((await get(sandbox, "/v1/")).status, 200);
  assertEquals(sandbox.agent("a"), undefined);
  assertEquals(sandbox.requests.map((request) => request.status), [503, 200]);
  remove();
  remove();
  assertEquals((await post(sandbox, "/v1/agents/data/a", {})).status, 200);
  assertEquals(seen, ["POST", "GET"]);
});

Deno.test("an interceptor can let the server act and lose the answer", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const remove = sandbox.intercept(async (_, proceed) => {
    assertEquals((await proceed()).status, 200);
    return new Response("gateway", { status: 502 });
  });
  const path = `/v1/result/${jobId}/log/output`;
  assertEquals((await post(sandbox, path, fragment())).status, 502);
  remove();
  assertEquals((await post(sandbox, path, fragment())).status, 200);
  assertEquals(sandbox.log(jobId, "output"), "hello\nhello\n");
});

Deno.test("an interceptor can look at the body and let the request through", async () => {
  const sandbox = createSandbox();
  const bodies: string[] = [];
  sandbox.intercept(async (request) => {
    bodies.push(await request.clone().text());
    return undefined;
  });
  await post(sandbox, "/v1/agents/data/a", { state: "waiting" });
  assertEquals(bodies, ['{"state":"waiting"}']);
  assertEquals(sandbox.agent("a")?.state, "waiting");
});

Deno.test("interceptors are asked in turn, and one that throws is a 500", async () => {
  const sandbox = createSandbox();
  const seen: string[] = [];
  sandbox.intercept(() => void seen.push("first"));
  sandbox.intercept(() => {
    seen.push("second");
    throw new Error("broken interceptor");
  });
  assertEquals((await get(sandbox, "/v1/")).status, 500);
  assertEquals(seen, ["first", "second"]);
});
