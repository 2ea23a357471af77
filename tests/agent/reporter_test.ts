import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { DesiredState } from "../../lib/agent/desired_state.ts";
import { Reporter } from "../../lib/agent/reporter.ts";
import { StateFile } from "../../lib/agent/state_file.ts";
import { scaledClock } from "../../lib/clock.ts";
import { Connectivity } from "../../lib/server/connectivity.ts";
import { createServerClient } from "../../lib/server/client.ts";
import { FakeClock, settle } from "../support/fake_clock.ts";
import { Lab } from "../support/lab.ts";
import { recordingLog } from "../support/recording_log.ts";
import { TempFolder } from "../support/temp_folder.ts";

/** The limit of each call: while one waits for it, a request is under way. */
const CALL_LIMIT_MS = 30_000;

/** Resolves when the agent has nothing to do but to wait for its next round and its next post. */
async function idle(clock: FakeClock): Promise<void> {
  while (clock.dues.length !== 2 || clock.dues.includes(CALL_LIMIT_MS)) await settle();
}

Deno.test("an idle agent that asks every 10 s costs the server at most 12 requests a minute", async () => {
  const clock = new FakeClock();
  await using lab = await Lab.open({ clock, config: { polling_interval: 10 } });
  lab.start();
  const hasAsked = () => lab.sandbox.requests.some(({ path }) => path === "/v1/job");
  while (!hasAsked()) await clock.advance(10);
  await idle(clock);
  const before = lab.sandbox.requests.length;
  const end = clock.now() + 3 * 60_000;
  while (true) {
    await idle(clock);
    const step = clock.nextDue ?? 0;
    if (clock.now() + step > end) break;
    await clock.advance(step);
  }
  const requests = lab.sandbox.requests.slice(before);
  const count = (wanted: string) =>
    requests.filter(({ method, path }) => `${method} ${path}` === wanted).length;
  assert(requests.length <= 3 * 12, `${requests.length} requests in 3 minutes`);
  // It is not the polling, and not the signs of life, that was saved on.
  assert(count("GET /v1/job") >= 14, `asked ${count("GET /v1/job")} times`);
  assertEquals(count("GET /v1/agents/data/agent-1"), count("GET /v1/job"));
  assert(count("POST /v1/agents/data/agent-1") >= 3);
});

Deno.test("agents that begin together do not go on together: the first pause is any part of the interval", async () => {
  const clock = new FakeClock();
  await using lab = await Lab.open({ clock, config: { polling_interval: 10 } });
  lab.start();
  const asked = () => lab.sandbox.requests.filter(({ path }) => path === "/v1/job").length;
  /** How long it is until the agent has asked so often; time stands still while it does. */
  const pauseUntil = async (times: number) => {
    const since = clock.now();
    while (asked() < times) {
      await clock.advance(clock.nextDue ?? 0);
      await idle(clock);
    }
    return clock.now() - since;
  };
  while (asked() < 1) await clock.advance(10);
  await idle(clock);
  const [first, second, third] = [await pauseUntil(2), await pauseUntil(3), await pauseUntil(4)];
  assert(first <= 10_000, `asked again after ${first} ms`);
  assert(second >= 11_000 && second <= 12_000, `asked once more after ${second} ms`);
  // Twelve times in the interval of an agent there is a moment at which all of a process may ask.
  const step = 959;
  assertEquals([third, clock.monotonic() % step], [12 * step, 0]);
});

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

/** Has the server refuse each post to the agent's record that has one of `fields`, as one that does not know them. */
function refuse(lab: Lab, fields: string[]): void {
  lab.sandbox.intercept(async (request) => {
    if (request.method !== "POST" || !request.url.includes("/v1/agents/data/")) return undefined;
    const body = await request.clone().json();
    const unknown = fields.filter((field) => field in body);
    if (unknown.length === 0) return undefined;
    const json = Object.fromEntries(unknown.map((field) => [field, ["Unknown field."]]));
    return Response.json({ detail: { json }, message: "Validation error" }, { status: 422 });
  });
}

for (const field of ["identifier", "location", "log", "job_id"]) {
  Deno.test(`a server that refuses ${field} has all the rest of the agent's record, and one line is logged`, async () => {
    const lines = ["one"];
    await using lab = await Lab.open({
      config: {
        identifier: "SN-1",
        location: "rack 4",
        provision_type: "muxpi",
        test_command: "true",
      },
      recentLog: () => lines.splice(0),
    });
    refuse(lab, [field]);
    lab.start();
    await lab.run({ test_data: { a: 1 } });
    await lab.until(() => lab.sandbox.agent("agent-1")?.state === "waiting", "waiting");
    const { state, queues, provision_type } = lab.sandbox.agent("agent-1") ?? {};
    assertEquals([state, queues, provision_type], ["waiting", ["queue-1"], "muxpi"]);
    assertEquals(
      lab.logged("error").map((line) => line.split(":")[0]),
      [`The server does not take the agent's ${field}`],
    );
  });
}

Deno.test("a sign of life is one that the server takes", async () => {
  await using lab = await Lab.open({ config: { provision_type: "muxpi" } });
  refuse(lab, ["location"]);
  let alone = 0;
  lab.sandbox.intercept(async (request) => {
    if (request.method !== "POST" || !request.url.includes("/v1/agents/data/")) return undefined;
    const keys = Object.keys(await request.clone().json());
    if (keys.join() === "provision_type") alone++;
    return undefined;
  });
  lab.start();
  // The first time is that of the record's parts.
  await lab.until(() => alone > 1, "a sign of life");
});

Deno.test("what is lost on its way after a refusal is posted again", async () => {
  await using lab = await Lab.open({ config: { identifier: "SN-1" } });
  refuse(lab, ["identifier"]);
  let isBusy = true;
  lab.sandbox.intercept(async (request) => {
    if (!isBusy || request.method !== "POST" || !request.url.includes("/v1/agents/data/")) {
      return undefined;
    }
    const { queues, identifier } = await request.clone().json();
    if (queues === undefined || identifier !== undefined) return undefined;
    isBusy = false;
    return new Response("busy", { status: 503 });
  });
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.queues !== undefined, "the queues");
  assertEquals(isBusy, false);
});

Deno.test("an offline that is read as the end of a job is told is shown, not taken for shown", async () => {
  await using lab = await Lab.open();
  await using temp = new TempFolder();
  const clock = scaledClock(1);
  const log = recordingLog();
  const { agent_id: agentId, server_address: address } = lab.config;
  const server = createServerClient({ address, agentId, clock, log });
  const reporter = new Reporter({
    config: lab.config,
    server,
    connectivity: new Connectivity(clock, log),
    clock,
    log,
    emit() {},
    desired: new DesiredState(new StateFile(temp.path, log), log),
    recentLog: () => [],
  });
  const over = new AbortController();
  const flush = () => reporter.flush(30_000, over.signal);
  const running = reporter.run(over.signal);
  // The poll loop has read nothing for long: each post looks at the record first.
  reporter.register();
  reporter.setJob(crypto.randomUUID());
  reporter.showPhase("setup");
  await flush();
  lab.sandbox.setAgent(agentId, { state: "offline", comment: "cable broken" });
  reporter.showPhase("test");
  await flush();
  assertEquals(lab.sandbox.agent(agentId)?.state, "test");
  reporter.setJob("");
  await flush();
  reporter.showIdle();
  await flush();
  over.abort();
  await running;
  server.close();
  const { state, comment } = lab.sandbox.agent(agentId) ?? {};
  assertEquals([state, comment], ["offline", "cable broken"]);
});

const AFTER_CANCELLATION = {
  "a server that has cleared the id of a cancelled job is posted none": true,
  "a server that still shows the id of a cancelled job is told that it is over, and nothing else":
    false,
};
for (const [name, clears] of Object.entries(AFTER_CANCELLATION)) {
  Deno.test(name, async () => {
    await using lab = await Lab.open({
      config: {
        test_command: "touch ../testing; sleep 1000",
        cleanup_command: "touch ../cleaning; while [ ! -e ../go ]; do sleep 0.02; done",
      },
    });
    const posted: unknown[] = [];
    let isCancelled = false;
    lab.sandbox.intercept(async (request, proceed) => {
      if (!request.url.includes("/v1/agents/data/")) return undefined;
      if (request.method === "POST") {
        const body: Record<string, unknown> = await request.clone().json();
        if (isCancelled && "job_id" in body) posted.push(body.job_id);
        return undefined;
      }
      const answer = await proceed();
      if (!isCancelled || !clears) return answer;
      return Response.json({ ...await answer.json(), job_id: "" });
    });
    const jobId = lab.submit({ test_data: { a: 1 } });
    lab.start();
    const exists = (name: string) =>
      Deno.stat(join(lab.config.execution_basedir, name)).then(() => true, () => false);
    await lab.eventually(() => exists("testing"), "the test runs");
    await lab.until(() => lab.sandbox.agent("agent-1")?.job_id === jobId, "the server shows it");
    // A state that is on its way would be the job's again.
    await lab.until(() => lab.sandbox.state(jobId) === "test", "the server knows the phase");
    lab.sandbox.cancel(jobId);
    isCancelled = true;
    await lab.eventually(() => exists("cleaning"), "it cleans up");
    await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
    await lab.complete(jobId);
    await lab.until(() => lab.sandbox.agent("agent-1")?.state === "waiting", "it waits");
    assertEquals(posted, clears ? [] : [""]);
  });
}
