import { assertEquals, assertStringIncludes } from "@std/assert";
import { createSandbox } from "../../lib/sandbox/sandbox.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { get, post, UNKNOWN_JOB } from "./call.ts";

const DAY_MS = 24 * 3600 * 1000;
const AGENT = "/v1/agents/data/rpi4-001";

Deno.test("GET /v1 redirects to /v1/, which names the server", async () => {
  const sandbox = createSandbox();
  const redirect = await get(sandbox, "/v1");
  assertEquals([redirect.status, redirect.headers.get("Location")], [308, "http://server/v1/"]);
  const home = await get(sandbox, "/v1/");
  assertEquals(home.status, 200);
  assertStringIncludes(await home.text(), "Testflinger Server v");
});

Deno.test("what is not there is 404, in words", async () => {
  const answer = await get(createSandbox(), "/v1/something");
  assertEquals(answer.status, 404);
  assertStringIncludes(await answer.text(), "Not found");
});

Deno.test("posting an agent's data sets the cookie that names it", async () => {
  const answer = await post(createSandbox(), AGENT, {});
  assertEquals(answer.status, 200);
  assertEquals(await answer.json(), { status: "OK" });
  assertEquals(
    answer.headers.get("Set-Cookie"),
    "agent_name=rpi4-001; HttpOnly; Path=/; SameSite=Strict",
  );
});

Deno.test("an agent whose name does not fit into a cookie is known again nevertheless", async () => {
  const sandbox = createSandbox();
  const name = 'a "b"; Größe, 1';
  const answer = await post(sandbox, `/v1/agents/data/${encodeURIComponent(name)}`, {});
  const cookie = answer.headers.get("Set-Cookie")?.split("; HttpOnly")[0] ?? "";
  sandbox.submit({ job_queue: "q", exclude_agents: [name] });
  assertEquals((await get(sandbox, "/v1/job?queue=q", { Cookie: cookie })).status, 204);
  assertEquals((await get(sandbox, "/v1/job?queue=q", { Cookie: "agent_name=x" })).status, 200);
});

Deno.test("updates of an agent merge, and each one refreshes updated_at", async () => {
  const clock = new FakeClock();
  const sandbox = createSandbox({ clock });
  await post(sandbox, AGENT, { state: "waiting", queues: ["q"], location: "lab" });
  await clock.advance(60_000);
  await post(sandbox, AGENT, { state: "test", job_id: UNKNOWN_JOB, comment: "" });
  assertEquals(await (await get(sandbox, AGENT)).json(), {
    name: "rpi4-001",
    state: "test",
    queues: ["q"],
    location: "lab",
    job_id: UNKNOWN_JOB,
    comment: "",
    updated_at: "2026-01-01T00:01:00Z",
    restricted_to: {},
  });
});

Deno.test("updated_at can come in the form of a database", async () => {
  const sandbox = createSandbox({ clock: new FakeClock(), updatedAt: "$date" });
  await post(sandbox, AGENT, {});
  const { updated_at } = await (await get(sandbox, AGENT)).json();
  assertEquals(updated_at, { $date: "2026-01-01T00:00:00Z" });
});

Deno.test("an agent's data with an unknown field or a wrong type is 422, and changes nothing", async () => {
  const sandbox = createSandbox();
  for (const body of [{ colour: 1 }, { state: 1 }, { queues: "q" }, { log: [1] }, [], "text"]) {
    const answer = await post(sandbox, AGENT, body);
    assertEquals(answer.status, 422);
    assertEquals((await answer.json()).message, "Validation error");
  }
  assertEquals(sandbox.agent("rpi4-001"), undefined);
});

Deno.test("of an agent's log the last 100 lines are kept, and not shown", async () => {
  const sandbox = createSandbox();
  const lines = Array.from({ length: 60 }, (_, i) => `line ${i}`);
  await post(sandbox, AGENT, { log: lines });
  await post(sandbox, AGENT, { log: lines });
  assertEquals(sandbox.agent("rpi4-001")?.log, [...lines, ...lines].slice(-100));
  assertEquals("log" in await (await get(sandbox, AGENT)).json(), false);
});

Deno.test("an agent that has been silent for seven days is forgotten", async () => {
  const clock = new FakeClock();
  const sandbox = createSandbox({ clock });
  await post(sandbox, AGENT, { state: "waiting" });
  await clock.advance(7 * DAY_MS);
  assertEquals((await get(sandbox, AGENT)).status, 200);
  await clock.advance(1000);
  const answer = await get(sandbox, AGENT);
  assertEquals([answer.status, await answer.json()], [404, {}]);
  assertEquals(await (await get(sandbox, "/v1/agents/data")).json(), []);
});

Deno.test("a queue with owners shows in restricted_to of the agents that serve it", async () => {
  const sandbox = createSandbox();
  await post(sandbox, AGENT, { queues: ["open", "ours"] });
  sandbox.restrict("ours", ["me", "you"]);
  sandbox.restrict("theirs", ["them"]);
  const restricted = async () => (await (await get(sandbox, AGENT)).json()).restricted_to;
  assertEquals(await restricted(), { ours: ["me", "you"] });
  sandbox.restrict("ours", []);
  assertEquals(await restricted(), {});
});

Deno.test("an administrator sets an agent's state over HTTP as the agent itself does", async () => {
  const sandbox = createSandbox();
  await post(sandbox, AGENT, { state: "waiting", queues: ["q"] });
  await post(sandbox, AGENT, { state: "offline", comment: "Set to offline by me. Reason: fire" });
  const [agent] = await (await get(sandbox, "/v1/agents/data")).json();
  assertEquals([agent.name, agent.state, agent.queues], ["rpi4-001", "offline", ["q"]]);
  assertEquals(agent.comment, "Set to offline by me. Reason: fire");
});

Deno.test("provision logs are kept, the agent's last 100, with the streak they make", async () => {
  const sandbox = createSandbox();
  await post(sandbox, AGENT, {});
  const path = "/v1/agents/provision_logs/rpi4-001";
  const entry = { job_id: UNKNOWN_JOB, exit_code: 1, detail: "provision_fail" };
  for (let i = 0; i < 101; i++) assertEquals((await post(sandbox, path, entry)).status, 200);
  assertEquals(sandbox.provisionLogs("rpi4-001").length, 100);
  assertEquals((await (await get(sandbox, AGENT)).json()).provision_streak_count, 101);
  await post(sandbox, path, { ...entry, exit_code: 0, detail: "provision_success" });
  const agent = await (await get(sandbox, AGENT)).json();
  assertEquals([agent.provision_streak_type, agent.provision_streak_count], ["pass", 1]);
  assertEquals(sandbox.provisionLogs("rpi4-001").at(-1)?.detail, "provision_success");
});

Deno.test("a provision log of an unknown agent is 404, with unknown fields 422", async () => {
  const sandbox = createSandbox();
  const entry = { job_id: UNKNOWN_JOB, exit_code: 0, detail: "provision_success" };
  const unknown = await post(sandbox, "/v1/agents/provision_logs/nobody", entry);
  assertEquals([unknown.status, await unknown.text()], [404, "Agent not found\n"]);
  const wrong = { ...entry, colour: 1 };
  assertEquals((await post(sandbox, "/v1/agents/provision_logs/nobody", wrong)).status, 422);
});

Deno.test("advertised queues are listed with their descriptions, for seven days", async () => {
  const clock = new FakeClock();
  const sandbox = createSandbox({ clock });
  await post(sandbox, "/v1/agents/queues", { rpi4: "Raspberry Pi 4", x: "another" });
  await post(sandbox, "/v1/agents/queues", { x: "changed" });
  const list = async () => await (await get(sandbox, "/v1/agents/queues")).json();
  assertEquals(await list(), { rpi4: "Raspberry Pi 4", x: "changed" });
  await clock.advance(7 * DAY_MS + 1);
  assertEquals(await list(), {});
  assertEquals((await post(sandbox, "/v1/agents/queues", { rpi4: 1 })).status, 422);
});

Deno.test("GET /v1/queues also lists queues that are served and not advertised", async () => {
  const sandbox = createSandbox();
  await post(sandbox, AGENT, { queues: ["rpi4", "secret"] });
  await post(sandbox, "/v1/agents/queues", { rpi4: "Raspberry Pi 4" });
  const queues = await (await get(sandbox, "/v1/queues")).json();
  assertEquals(queues, { rpi4: "Raspberry Pi 4", secret: "" });
});

Deno.test("images of a queue replace the former ones", async () => {
  const sandbox = createSandbox();
  const path = "/v1/agents/images/rpi4";
  assertEquals(await (await get(sandbox, path)).json(), {});
  await post(sandbox, "/v1/agents/images", { rpi4: { core22: "url: http://a", jammy: "x" } });
  await post(sandbox, "/v1/agents/queues", { rpi4: "Raspberry Pi 4" });
  assertEquals(await (await get(sandbox, path)).json(), { core22: "url: http://a", jammy: "x" });
  await post(sandbox, "/v1/agents/images", { rpi4: { core24: "url: http://b" } });
  assertEquals(await (await get(sandbox, path)).json(), { core24: "url: http://b" });
  const queues = await (await get(sandbox, "/v1/agents/queues")).json();
  assertEquals(queues, { rpi4: "Raspberry Pi 4" });
});

for (const name of ["", "$core", "22.04", "a\0b"]) {
  Deno.test(`an image named ${JSON.stringify(name)} is 422`, async () => {
    const answer = await post(createSandbox(), "/v1/agents/images", { rpi4: { [name]: "x" } });
    assertEquals(answer.status, 422, await answer.text());
  });
}

Deno.test("the agents and the jobs of a queue are listed", async () => {
  const sandbox = createSandbox({ clock: new FakeClock() });
  const none = await get(sandbox, "/v1/queues/rpi4/agents");
  assertEquals(none.status, 404);
  assertEquals((await none.json()).message, "Queue 'rpi4' does not exist.");
  assertEquals((await get(sandbox, "/v1/queues/rpi4/jobs")).status, 204);
  await post(sandbox, AGENT, { queues: ["rpi4"], state: "waiting" });
  await post(sandbox, "/v1/agents/data/other", { queues: ["x"] });
  const [agent, ...others] = await (await get(sandbox, "/v1/queues/rpi4/agents")).json();
  assertEquals([agent.name, agent.state, others], ["rpi4-001", "waiting", []]);
  const jobId = sandbox.submit({ job_queue: "rpi4" });
  assertEquals(await (await get(sandbox, "/v1/queues/rpi4/jobs")).json(), [{
    created_at: "2026-01-01T00:00:00Z",
    job_id: jobId,
    job_queue: "rpi4",
    job_state: "waiting",
  }]);
});
