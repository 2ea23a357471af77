import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { createSandbox, type Sandbox } from "../../lib/sandbox/sandbox.ts";
import { serveSandbox } from "../../lib/sandbox/serve.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { get, post, UNKNOWN_JOB, upload } from "./call.ts";

const COOKIE = { Cookie: "agent_name=rpi4-001" };

async function submit(sandbox: Sandbox, job: Record<string, unknown>): Promise<string> {
  const response = await post(sandbox, "/v1/job", job);
  const answer = await response.json();
  assertEquals(response.status, 200, JSON.stringify(answer));
  return answer.job_id;
}

async function next(sandbox: Sandbox, query = "queue=rpi4"): Promise<Record<string, unknown>> {
  return await (await get(sandbox, `/v1/job?${query}`, COOKIE)).json();
}

Deno.test("a submitted job waits until an agent asks for its queue, and is then running", async () => {
  const sandbox = createSandbox({ clock: new FakeClock() });
  const jobId = await submit(sandbox, { job_queue: "rpi4", test_data: { test_cmds: "true" } });
  assertEquals(sandbox.state(jobId), "waiting");
  const response = await get(sandbox, "/v1/job?queue=other&queue=rpi4", COOKIE);
  assertEquals(response.status, 200);
  assertEquals(await response.json(), {
    exclude_agents: [],
    job_id: jobId,
    job_queue: "rpi4",
    started_at: "2026-01-01T00:00:00+00:00Z",
    test_data: { test_cmds: "true" },
  });
  assertEquals(sandbox.state(jobId), "running");
});

Deno.test("a job is handed out once: the next one to ask gets 204 with an empty body", async () => {
  const sandbox = createSandbox();
  await submit(sandbox, { job_queue: "rpi4" });
  await next(sandbox);
  const response = await get(sandbox, "/v1/job?queue=rpi4", COOKIE);
  assertEquals([response.status, await response.text()], [204, ""]);
});

Deno.test("an agent that has no cookie is told 'Agent not identified', and the job stays", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "rpi4" });
  const without: Record<string, string>[] = [{}, { Cookie: "other=1" }, { Cookie: "agent_name=" }];
  for (const headers of without) {
    const response = await get(sandbox, "/v1/job?queue=rpi4", headers);
    assertEquals(response.status, 401);
    assertEquals(await response.json(), { detail: {}, message: "Agent not identified" });
  }
  assertEquals(sandbox.state(jobId), "waiting");
});

Deno.test("asking for a job without naming a queue is 400", async () => {
  const response = await get(createSandbox(), "/v1/job", COOKIE);
  assertEquals(response.status, 400);
  assertEquals((await response.json()).message, "No queue(s) specified in request");
});

Deno.test("jobs of higher priority go first, those of the same one in the order they came", async () => {
  const sandbox = createSandbox();
  const first = await submit(sandbox, { job_queue: "rpi4" });
  const second = await submit(sandbox, { job_queue: "rpi4" });
  const urgent = await submit(sandbox, { job_queue: "rpi4", job_priority: 10 });
  const handedOut = [];
  for (let i = 0; i < 3; i++) handedOut.push((await next(sandbox)).job_id);
  assertEquals(handedOut, [urgent, first, second]);
});

Deno.test("a job is not handed to an agent that it excludes", async () => {
  const sandbox = createSandbox();
  sandbox.submit({ job_queue: "rpi4", exclude_agents: ["rpi4-001"] });
  assertEquals((await get(sandbox, "/v1/job?queue=rpi4", COOKIE)).status, 204);
  const other = await get(sandbox, "/v1/job?queue=rpi4", { Cookie: "a=b; agent_name=rpi4-002" });
  assertEquals(other.status, 200);
  await other.body?.cancel();
});

Deno.test("a job that excludes every agent of its queue is refused", async () => {
  const sandbox = createSandbox();
  await post(sandbox, "/v1/agents/data/rpi4-001", { queues: ["rpi4"] });
  const job = { job_queue: "rpi4", exclude_agents: ["rpi4-001"] };
  const response = await post(sandbox, "/v1/job", job);
  assertEquals(response.status, 422);
  assertStringIncludes(await response.text(), "There are no agents on the specified queue");
});

Deno.test("secrets are handed out as they were given", async () => {
  const sandbox = createSandbox();
  const secrets = { TOKEN: "s3cret with $pecial\ncharacters", EMPTY: "" };
  await submit(sandbox, { job_queue: "rpi4", test_data: { secrets } });
  assertEquals((await next(sandbox)).test_data, { secrets });
});

for (
  const [timeout, seconds] of [
    [3600, 3600],
    ["3600", 3600],
    ["90m", 5400],
    ["2h30m", 9000],
    ["1 day 2 hours 3mins 4sec", 93_784],
    [null, null],
  ] as const
) {
  Deno.test(`a reservation of ${JSON.stringify(timeout)} is handed out as ${seconds} seconds`, async () => {
    const sandbox = createSandbox();
    await submit(sandbox, { job_queue: "rpi4", reserve_data: { timeout, ssh_keys: ["lp:me"] } });
    assertEquals((await next(sandbox)).reserve_data, { timeout: seconds, ssh_keys: ["lp:me"] });
  });
}

const REFUSED: [string, Record<string, unknown>, Record<string, unknown>][] = [
  ["without a queue", {}, { job_queue: ["Missing data for required field."] }],
  ["with an empty queue", { job_queue: "" }, { job_queue: ["Shorter than minimum length 1."] }],
  ["with an unknown field", { job_queue: "q", colour: 1 }, { colour: ["Unknown field."] }],
  [
    "with an unknown field in test_data",
    { job_queue: "q", test_data: { colour: 1 } },
    { test_data: { colour: ["Unknown field."] } },
  ],
  [
    "with a local path left in an attachment",
    { job_queue: "q", test_data: { attachments: [{ agent: "a", local: "b" }] } },
    { test_data: { attachments: { 0: { local: ["Unknown field."] } } } },
  ],
];
for (const [what, job, detail] of REFUSED) {
  Deno.test(`a job ${what} is refused with 422 that names the field`, async () => {
    const response = await post(createSandbox(), "/v1/job", job);
    assertEquals(response.status, 422);
    assertEquals(await response.json(), {
      message: "Validation error",
      detail: { json: detail },
    });
  });
}

for (
  const job of [
    { global_timeout: "soon" },
    { output_timeout: 1.5 },
    { reserve_data: { timeout: "a while" } },
    { reserve_data: { timeout: "2h x" } },
    { reserve_data: { timeout: -1 } },
    { reserve_data: { ssh_keys: ["who:me"] } },
    { reserve_data: { colour: "red" } },
    { test_data: { secrets: { "not-a-name": "x" } } },
    { provision_data: "text" },
    { tags: "one" },
    { exclude_agents: "one" },
  ]
) {
  Deno.test(`a job with ${JSON.stringify(job)} is refused with 422`, async () => {
    const response = await post(createSandbox(), "/v1/job", { job_queue: "q", ...job });
    assertEquals(response.status, 422, await response.text());
  });
}

for (
  const job of [
    { provision_data: null },
    { provision_data: { anything: { goes: true } } },
    { global_timeout: "60" },
    { test_data: { test_cmds: ["one", "two"] } },
    { allocate_data: { allocate: true } },
    { firmware_update_data: { version: "latest", ignore_failure: false } },
    { parent_job_id: UNKNOWN_JOB, name: "x", tags: ["a"], debug: true },
    { job_status_webhook: "http://hook" },
  ]
) {
  Deno.test(`a job with ${JSON.stringify(job)} is taken`, async () => {
    await submit(createSandbox(), { job_queue: "q", ...job });
  });
}

Deno.test("a job may bring its own id, which must be a UUID", async () => {
  const sandbox = createSandbox();
  const job = { job_queue: "q", job_id: "77777777-7777-7777-7777-777777777777" };
  assertEquals(await submit(sandbox, job), job.job_id);
  const response = await post(sandbox, "/v1/job", { ...job, job_id: "bad" });
  assertEquals(response.status, 400);
  assertEquals((await response.json()).message, "Invalid job_id specified");
});

Deno.test("a body that is not JSON is 400, one without the label of JSON counts as empty", async () => {
  const sandbox = createSandbox();
  const request = (type: string, body: string) =>
    new Request("http://server/v1/job", {
      method: "POST",
      headers: { "Content-Type": type },
      body,
    });
  const broken = await sandbox.fetch(request("application/json", "{"));
  assertEquals(broken.status, 400);
  assertStringIncludes(await broken.text(), "Invalid JSON");
  const unlabelled = await sandbox.fetch(request("text/plain", '{"job_queue": "q"}'));
  assertEquals(unlabelled.status, 422);
  assertStringIncludes(await unlabelled.text(), "Missing data for required field.");
});

Deno.test("GET /v1/job/{id} shows the job also when it runs, and 204 when it is unknown", async () => {
  const sandbox = createSandbox();
  const jobId = await submit(sandbox, { job_queue: "rpi4" });
  await next(sandbox);
  const expected = { exclude_agents: [], job_id: jobId, job_queue: "rpi4" };
  assertEquals(await (await get(sandbox, `/v1/job/${jobId}`)).json(), expected);
  assertEquals((await get(sandbox, `/v1/job/${UNKNOWN_JOB}`)).status, 204);
});

Deno.test("ids that are not UUIDs are 400 on every endpoint of a job", async () => {
  const sandbox = createSandbox();
  const answers = [
    await get(sandbox, "/v1/job/bad"),
    await get(sandbox, "/v1/job/bad/position"),
    await get(sandbox, "/v1/job/bad/attachments"),
    await post(sandbox, "/v1/job/bad/action", { action: "cancel" }),
    await upload(sandbox, "/v1/job/bad/attachments", new Uint8Array(3)),
    await post(sandbox, "/v1/job/bad/events", {
      agent_id: "a",
      job_queue: "q",
      job_status_webhook: "http://hook",
      events: [],
    }),
  ];
  for (const answer of answers) {
    assertEquals(answer.status, 400);
    assertMatch(await answer.text(), /Invalid job.?id/);
  }
});

Deno.test("a job's position counts down as those before it start or are cancelled", async () => {
  const sandbox = createSandbox();
  const [a, b, c] = [1, 2, 3].map(() => sandbox.submit({ job_queue: "rpi4" }));
  const position = async (id: string | undefined) =>
    await (await get(sandbox, `/v1/job/${id}/position`)).text();
  assertEquals([await position(a), await position(b), await position(c)], ["0", "1", "2"]);
  await next(sandbox);
  assertEquals(await position(c), "1");
  await post(sandbox, `/v1/job/${b}/action`, { action: "cancel" });
  assertEquals(await position(c), "0");
  const started = await get(sandbox, `/v1/job/${a}/position`);
  assertEquals([started.status, await started.text()], [
    410,
    "Job not found or already started\n",
  ]);
});

Deno.test("a job can be cancelled until it is over", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "rpi4" });
  const cancel = () => post(sandbox, `/v1/job/${jobId}/action`, { action: "cancel" });
  assertEquals(await (await cancel()).text(), "OK");
  assertEquals(sandbox.state(jobId), "cancelled");
  for (const state of ["cancelled", "complete", "completed"]) {
    await post(sandbox, `/v1/result/${jobId}`, { job_state: state });
    const again = await cancel();
    assertEquals([again.status, await again.text()], [
      400,
      "The job is already completed or cancelled",
    ]);
  }
  assertEquals((await get(sandbox, "/v1/job?queue=rpi4", COOKIE)).status, 204);
});

Deno.test("an action other than cancel is 422", async () => {
  const answer = await post(createSandbox(), `/v1/job/${UNKNOWN_JOB}/action`, { action: "run" });
  assertEquals(answer.status, 422);
});

Deno.test("a job with attachments is handed out only when they have come", async () => {
  const sandbox = createSandbox();
  const attachments = [{ agent: "script.sh" }];
  const jobId = await submit(sandbox, { job_queue: "rpi4", test_data: { attachments } });
  assertEquals(sandbox.job(jobId)?.attachments_status, "waiting");
  assertEquals((await get(sandbox, "/v1/job?queue=rpi4", COOKIE)).status, 204);
  assertEquals((await get(sandbox, `/v1/job/${jobId}/attachments`)).status, 204);

  const archive = crypto.getRandomValues(new Uint8Array(8000));
  const path = `/v1/job/${jobId}/attachments`;
  assertEquals(await (await upload(sandbox, path, archive)).text(), "OK");
  const repeated = await upload(sandbox, path, new Uint8Array(1));
  assertEquals(repeated.status, 200);

  const job = await next(sandbox);
  assertEquals([job.job_id, job.attachments_status], [jobId, "complete"]);
  const fetched = await get(sandbox, path);
  assertEquals(fetched.headers.get("Content-Type"), "application/gzip");
  assertEquals(fetched.headers.get("Content-Length"), "8000");
  assertEquals(await fetched.bytes(), archive);
});

Deno.test("attachments that no job waits for are 422", async () => {
  const sandbox = createSandbox();
  const plain = sandbox.submit({ job_queue: "rpi4" });
  for (const id of [UNKNOWN_JOB, plain]) {
    const answer = await upload(sandbox, `/v1/job/${id}/attachments`, new Uint8Array(1));
    assertEquals(answer.status, 422, await answer.text());
  }
});

Deno.test("jobs are found by tag and by state", async () => {
  const sandbox = createSandbox({ clock: new FakeClock() });
  const a = sandbox.submit({ job_queue: "q", tags: ["one", "two"] });
  const b = sandbox.submit({ job_queue: "q", tags: ["two"] });
  sandbox.cancel(b);
  const search = async (query: string) =>
    (await (await get(sandbox, `/v1/job/search?${query}`)).json())
      .map((job: { job_id: string }) => job.job_id);
  assertEquals(await search("tags=one&tags=two"), [a, b]);
  assertEquals(await search("tags=one&tags=two&match=all"), [a]);
  assertEquals(await search("tags=three"), []);
  assertEquals(await search("state=active"), [a]);
  assertEquals(await search("state=cancelled&tags=two"), [b]);
  assertEquals(await (await get(sandbox, "/v1/job/search?tags=one")).json(), [
    { created_at: "2026-01-01T00:00:00Z", job_id: a, job_state: "waiting" },
  ]);
});

Deno.test("a search for what the server does not know is 422", async () => {
  for (const query of ["state=colourful", "match=some", "colour=red"]) {
    const answer = await get(createSandbox(), `/v1/job/search?${query}`);
    assertEquals(answer.status, 422, await answer.text());
  }
});

const EVENTS = {
  agent_id: "rpi4-001",
  job_queue: "rpi4",
  events: [{ event_name: "job_start", timestamp: "2026-01-01T00:00:00+00:00", detail: "x" }],
};

Deno.test("a job's events are kept, the newest list in the place of the former", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "rpi4" });
  const body = { ...EVENTS, job_status_webhook: "http://hook" };
  assertEquals((await post(sandbox, `/v1/job/${jobId}/events`, body)).status, 200);
  const more = [...EVENTS.events, { ...EVENTS.events[0], event_name: "job_end" }];
  await post(sandbox, `/v1/job/${jobId}/events`, { ...body, events: more });
  assertEquals(sandbox.events(jobId).map((event) => event.event_name), ["job_start", "job_end"]);
});

Deno.test("events of an unknown job are 404, unknown fields in them 422", async () => {
  const sandbox = createSandbox();
  const body = { ...EVENTS, job_status_webhook: "http://hook" };
  assertEquals((await post(sandbox, `/v1/job/${UNKNOWN_JOB}/events`, body)).status, 404);
  const wrong = await post(sandbox, `/v1/job/${UNKNOWN_JOB}/events`, { ...body, colour: 1 });
  assertEquals(wrong.status, 422);
});

Deno.test("asked to, the server puts events to the webhook and passes its answer on", async () => {
  const received: [string, unknown][] = [];
  const statuses = [200, 404, 401, 302, 204];
  const hook = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, async (request) => {
    received.push([request.method, await request.json()]);
    const status = statuses.shift() ?? 200;
    return new Response(status === 204 ? null : "thanks", { status, headers: { Location: "/x" } });
  });
  const { sandbox, url, close } = serveSandbox({ deliverWebhooks: true });
  const jobId = sandbox.submit({ job_queue: "rpi4" });
  const answers = [];
  for (let i = 0; i < 5; i++) {
    const answer = await fetch(`${url}/v1/job/${jobId}/events`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        ...EVENTS,
        job_status_webhook: `http://127.0.0.1:${hook.addr.port}/hook`,
      }),
      redirect: "manual",
    });
    answers.push(answer.status);
    await answer.text();
  }
  assertEquals(received.length, 5);
  assertEquals(received[0], ["PUT", EVENTS]);
  assertEquals(answers, [200, 404, 500, 302, 204]);
  await hook.shutdown();
  const gone = await post(sandbox, `/v1/job/${jobId}/events`, {
    ...EVENTS,
    job_status_webhook: `http://127.0.0.1:${hook.addr.port}/hook`,
  });
  assertEquals(gone.status, 502);
  assertEquals((await gone.json()).message, "Webhook unreachable");
  await close();
});
