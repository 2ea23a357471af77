import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { type Health, type HealthOptions, serveHealth } from "../../lib/observe/health.ts";
import { createMetrics } from "../../lib/observe/metrics.ts";
import { combineSinks, type Emit, emitterOf } from "../../lib/observe/events.ts";
import type { AgentView, HostView } from "../../lib/observe/host_view.ts";
import { createLiveness } from "../../lib/observe/liveness.ts";
import { createStatus } from "../../lib/observe/status.ts";
import { AgentStatus, HostStatus } from "../../lib/observe/status_schema.ts";
import { FakeClock, settle } from "../support/fake_clock.ts";
import { type RecordingLog, recordingLog } from "../support/recording_log.ts";

const START = Date.UTC(2026, 10, 22, 12);

interface Served {
  emit: Emit;
  /** What the host is said to have. */
  view: { agents: AgentView[]; broken: ReturnType<HostView["broken"]> };
  health: Health;
  /** Without a slash at the end. */
  url: string;
  clock: FakeClock;
  log: RecordingLog;
  options: HealthOptions;
}

/** A served host with one agent, and everything behind it as it is in real life, but for the clock. */
async function withHealth(
  test: (served: Served) => Promise<void>,
  changes: Partial<HealthOptions> = {},
) {
  const folder = await Deno.makeTempDir();
  const clock = new FakeClock(START);
  const log = recordingLog();
  const liveness = createLiveness({ clock, silenceLimitMs: 60_000 });
  const board = await createStatus({
    agentId: "agent-1",
    version: "9.8.7",
    serverAddress: "http://server",
    folder,
    clock,
    log,
    liveness,
  });
  const metrics = await createMetrics({ version: "9.8.7", clock });
  metrics.add("agent-1", "", "");
  const view: Served["view"] = {
    agents: [{
      agentId: "agent-1",
      file: "/etc/a.conf",
      configuration: { agent_id: "agent-1", test_command: "run --password hunter2" },
      board,
      get trouble() {
        return liveness.trouble();
      },
    }],
    broken: [],
  };
  const options: HealthOptions = {
    host: "127.0.0.1",
    port: 0,
    view: {
      version: "9.8.7",
      reloads: () => 0,
      startedAt: START,
      agents: () => view.agents,
      agent: (id) => view.agents.find(({ agentId }) => agentId === id),
      broken: () => view.broken,
    },
    metrics,
    clock,
    log,
    ...changes,
  };
  const health = serveHealth(options);
  try {
    const url = (health.url ?? "").replace(/\/$/, "");
    const sink = combineSinks([board.sink, metrics.sink, liveness.sink], log);
    const emit = emitterOf("agent-1", { clock, sink });
    await test({ emit, health, url, clock, log, options, view });
  } finally {
    await health.close();
    await board.close();
    await Deno.remove(folder, { recursive: true });
  }
}

async function get(url: string, init?: RequestInit) {
  const response = await fetch(url, init);
  return { status: response.status, headers: response.headers, text: await response.text() };
}

/** One request written by hand, for what fetch() does not send. Returns the whole answer. */
async function raw(url: string, request: string): Promise<string> {
  const { hostname, port } = new URL(url);
  using connection = await Deno.connect({ hostname, port: Number(port) });
  await connection.write(new TextEncoder().encode(request));
  return await new Response(connection.readable).text();
}

const bytes = (text: string) => new TextEncoder().encode(text);

Deno.test("/metrics serves what was counted", () =>
  withHealth(async ({ url, emit }) => {
    emit({ type: "job_began", job: "j", queue: "q" });
    const { status, headers, text } = await get(`${url}/metrics`);
    assertEquals(status, 200);
    assertMatch(headers.get("content-type") ?? "", /^text\/plain; version=0\.0\.4/);
    assertStringIncludes(text, 'jobs_total{agent_id="agent-1"} 1');
  }));

Deno.test("/healthz is 200 while the loop turns, and 503 with the reason when it hangs", () =>
  withHealth(async ({ url, clock }) => {
    assertEquals((await get(`${url}/healthz`)).status, 200);
    await clock.advance(61_000);
    const { status, text } = await get(`${url}/healthz`);
    assertEquals(status, 503);
    assertEquals(text, "the agent's loop has not turned for 61 s\n");
  }));

Deno.test("/readyz is 200 while jobs are taken, and 503 with the reason otherwise", () =>
  withHealth(async ({ url, emit }) => {
    assertEquals((await get(`${url}/readyz`)).status, 503);
    emit({ type: "mode", state: "waiting", comment: "" });
    emit({ type: "connectivity", ok: true });
    assertEquals((await get(`${url}/readyz`)).status, 200);
    emit({ type: "mode", state: "offline", comment: "cable broken" });
    const { status, text } = await get(`${url}/readyz`);
    assertEquals([status, text], [503, "the agent is offline: cable broken\n"]);
  }));

Deno.test("/v1/status lists the agents, /v1/agents/ID says all of one, both as their schemas say", () =>
  withHealth(async ({ url, emit }) => {
    emit({ type: "mode", state: "test", comment: "" });
    emit({ type: "job_began", job: "j", queue: "q" });
    emit({ type: "phase_began", job: "j", phase: "test", limits: { totalMs: 5000 } });
    const { headers, text } = await get(`${url}/v1/status`);
    assertMatch(headers.get("content-type") ?? "", /^application\/json/);
    const host = HostStatus.parse(JSON.parse(text));
    assertEquals(host, JSON.parse(text));
    assertEquals(host.agents.map(({ agent_id, state, job_id }) => [agent_id, state, job_id]), [
      ["agent-1", "test", "j"],
    ]);
    const one = await get(`${url}/v1/agents/agent-1`);
    assertEquals(AgentStatus.parse(JSON.parse(one.text)).job?.job_id, "j");
    assertEquals((await get(`${url}/v1/agents/agent-2`)).status, 404);
  }));

Deno.test("of several agents health and readiness name the one with trouble; the page lists and links them", () =>
  withHealth(async ({ url, emit, view }) => {
    emit({ type: "mode", state: "waiting", comment: "" });
    emit({ type: "connectivity", ok: true });
    view.agents.push({
      agentId: "b/<2>",
      file: "/etc/b.conf",
      configuration: {},
      board: undefined,
      trouble: "Cannot make the folder /srv",
    });
    const health = await get(`${url}/healthz`);
    assertEquals([health.status, health.text], [503, "b/<2>: Cannot make the folder /srv\n"]);
    // One that takes jobs is enough for a host.
    assertEquals((await get(`${url}/readyz`)).status, 200);
    const list = (await get(`${url}/`)).text;
    assertStringIncludes(list, '<a href="/agents/agent-1">agent-1</a>');
    assertStringIncludes(list, '<a href="/agents/b%2F%3C2%3E">b/&lt;2&gt;</a>');
    assertStringIncludes(list, "Cannot make the folder /srv");
    assertStringIncludes((await get(`${url}/agents/agent-1`)).text, '<h2 id="log-heading">Log');
    assertStringIncludes((await get(`${url}/agents/b%2F%3C2%3E`)).text, "not running");
    assertEquals((await get(`${url}/v1/agents/b%2F%3C2%3E`)).status, 503);

    emit({ type: "mode", state: "offline", comment: "cable" });
    const ready = await get(`${url}/readyz`);
    assertEquals([ready.status, ready.text], [
      503,
      "agent-1: the agent is offline: cable\nb/<2>: Cannot make the folder /srv\n",
    ]);
  }));

Deno.test("a configuration that cannot be used is in health, status and page", () =>
  withHealth(async ({ url, view }) => {
    view.broken.push({
      file: "/etc/c.conf",
      since: "2026-01-01T00:00:00.000Z",
      mistakes: ["/etc/c.conf:3:1: nope"],
      agent_id: "c",
    });
    assertEquals(await get(`${url}/healthz`).then(({ status, text }) => [status, text]), [
      503,
      "/etc/c.conf:3:1: nope\n",
    ]);
    const status = HostStatus.parse(JSON.parse((await get(`${url}/v1/status`)).text));
    assertEquals([status.healthy, status.broken_configurations[0]?.agent_id], [false, "c"]);
    assertStringIncludes((await get(`${url}/`)).text, "/etc/c.conf:3:1: nope");
  }));

Deno.test("the page says everything without a script", () =>
  withHealth(async ({ url, emit }) => {
    emit({ type: "mode", state: "waiting", comment: "" });
    emit({ type: "job_began", job: "j-0", queue: "q", name: "nightly" });
    emit({ type: "phase_began", job: "j", phase: "test", limits: {} });
    emit({
      type: "phase_ended",
      job: "j",
      phase: "test",
      status: 3,
      event: "test_fail",
      seconds: 61,
      release: "",
    });
    emit({ type: "recovery_failed", job: "j" });
    emit({ type: "job_ended", job: "j", reason: "test_fail" });
    emit({ type: "job_began", job: "j-1", queue: "q2" });
    emit({ type: "mode", state: "provision", comment: "" });
    emit({ type: "phase_skipped", job: "j", phase: "setup", reason: "no command" });
    emit({
      type: "phase_began",
      job: "j",
      phase: "provision",
      limits: { totalMs: 7_200_000, silenceMs: 900_000 },
    });
    emit({ type: "output", job: "j", bytes: bytes("hello from the device\n") });
    emit({ type: "connectivity", ok: false, message: "GET http://server/v1: refused" });
    emit({ type: "undelivered", bytes: 1536, fragments: 3, jobs: 1 });
    const { status, headers, text } = await get(`${url}/`);
    assertEquals(status, 200);
    assertMatch(headers.get("content-type") ?? "", /^text\/html; charset=utf-8/i);
    for (
      const said of [
        "<title>agent-1: provision</title>",
        "j-1",
        "q2",
        "skipped: no command",
        "running for 0 s",
        "2 h 0 min left of 2 h 0 min",
        "15 min left of 15 min",
        "to come",
        "hello from the device",
        "The server cannot be reached",
        "GET http://server/v1: refused",
        "Not delivered yet: 1.5 KiB of 1 job.",
        "nightly",
        "test failed after 1 min 1 s with status 3; the device could not be recovered",
        "test 1 min 1 s",
        "run ...",
        'http-equiv="refresh"',
      ]
    ) assertStringIncludes(text, said);
    assertEquals(text.includes("hunter2"), false);
  }));

Deno.test("the page of an agent that does nothing says so, and why", () =>
  withHealth(async ({ url, emit }) => {
    emit({ type: "mode", state: "offline", comment: "cable broken" });
    const { text } = await get(`${url}/`);
    assertStringIncludes(text, "No job is running. None is taken: the agent is offline: cable");
    assertStringIncludes(text, "None yet.");
  }));

Deno.test("what a job has just printed is no backlog, unless it is much or the server is away", () =>
  withHealth(async ({ url, emit }) => {
    const isSaid = async () => (await get(`${url}/`)).text.includes("Not delivered yet");
    emit({ type: "connectivity", ok: true, message: "" });
    emit({ type: "undelivered", bytes: 340, fragments: 1, jobs: 0 });
    assertEquals(await isSaid(), false);
    emit({ type: "undelivered", bytes: 100_000, fragments: 5, jobs: 0 });
    assertEquals(await isSaid(), true);
    emit({ type: "undelivered", bytes: 340, fragments: 1, jobs: 0 });
    emit({ type: "connectivity", ok: false, message: "refused" });
    assertEquals(await isSaid(), true);
  }));

const HOSTILE =
  `</pre></title><script>alert(1)</script><img src=x onerror="alert(1)">'"&\x1b[2J\u202e`;

Deno.test("markup, control sequences and bidi marks from outside are text wherever they show up", () =>
  withHealth(async ({ url, emit, view }) => {
    const [agent] = view.agents;
    if (agent !== undefined) agent.configuration = { agent_id: HOSTILE, [HOSTILE]: HOSTILE };
    for (let n = 0; n < 2; n++) {
      emit({ type: "mode", state: HOSTILE, comment: HOSTILE });
      emit({ type: "job_began", job: HOSTILE, queue: HOSTILE, name: HOSTILE });
      emit({ type: "phase_skipped", job: "j", phase: "setup", reason: HOSTILE });
      emit({ type: "phase_began", job: "j", phase: "test", limits: {} });
      emit({ type: "output", job: "j", bytes: bytes(HOSTILE) });
      emit({
        type: "phase_ended",
        job: "j",
        phase: "test",
        status: 1,
        event: HOSTILE,
        seconds: 1,
        release: HOSTILE,
      });
      emit({ type: "connectivity", ok: false, message: HOSTILE });
      if (n === 0) emit({ type: "job_ended", job: "j", reason: HOSTILE });
    }
    const { text } = await get(`${url}/`);
    assertEquals(text.match(/<script/g)?.length, 1);
    assertStringIncludes(text, '<script src="/page.js" defer></script>');
    assertEquals(text.includes("<img"), false);
    // Of the log and of the serial log.
    assertEquals(text.match(/<\/pre>/g)?.length, 2);
    assertEquals(text.match(/<\/title>/g)?.length, 1);
    // deno-lint-ignore no-control-regex -- control characters are what is looked for
    assertEquals(/[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]/.test(text), false);
    assertStringIncludes(text, "&lt;script&gt;alert(1)&lt;/script&gt;");
    assertStringIncludes(text, "␛[2J");
  }));

Deno.test("ten megabytes without a new line leave a page of a sane size", () =>
  withHealth(async ({ url, emit }) => {
    emit({ type: "output", job: "j", bytes: new Uint8Array(10 * 1024 * 1024).fill(0x3c) });
    const { text } = await get(`${url}/`);
    assert(text.length < 400_000);
    assertStringIncludes(text, "&lt;&lt;");
  }));

Deno.test("every answer forbids scripts of others, frames, sniffing and caching", () =>
  withHealth(async ({ url }) => {
    for (const path of ["/", "/metrics", "/v1/status", "/page.js", "/page.css", "/nothing"]) {
      const { headers } = await get(url + path);
      const policy = headers.get("content-security-policy") ?? "";
      assertStringIncludes(policy, "default-src 'none'", path);
      assertEquals(policy.includes("unsafe"), false);
      assertStringIncludes(policy, "frame-ancestors 'none'");
      assertEquals(headers.get("x-content-type-options"), "nosniff");
      assertEquals(headers.get("cache-control"), "no-store");
    }
  }));

Deno.test("the page needs nothing from elsewhere, and no style or script within it", () =>
  withHealth(async ({ url, emit }) => {
    emit({ type: "job_began", job: "j", queue: "q" });
    const { text } = await get(`${url}/`);
    for (const [, address] of text.matchAll(/(?:src|href)="([^"]*)"/g)) {
      assertMatch(address ?? "", /^(\/$|\/[a-z]|#)/);
      if (address?.startsWith("/")) assertEquals((await get(url + address)).status, 200, address);
    }
    assertEquals(/ style=| on[a-z]+=|<style/.test(text), false);
  }));

Deno.test("a web page whose name points to this host (DNS rebinding) gets nothing", () =>
  withHealth(async ({ url }) => {
    const port = new URL(url).port;
    for (
      const host of [
        "evil.example",
        `evil.example:${port}`,
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "a@127.0.0.1.x",
      ]
    ) {
      const answer = await raw(url, `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
      assertMatch(answer, /^HTTP\/1\.1 4\d\d /, host);
      assertEquals(answer.includes("agent-1"), false, host);
    }
    for (const host of [`127.0.0.1:${port}`, "localhost", `[::1]:${port}`, "LOCALHOST:1"]) {
      const answer = await raw(url, `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
      assertMatch(answer, /^HTTP\/1\.1 200 /, host);
    }
  }));

Deno.test("on an address for others any name will do", () =>
  withHealth(async ({ health, options }) => {
    const port = new URL(health.url ?? "").port;
    assertEquals(options.host, "0.0.0.0");
    const answer = await raw(
      `http://127.0.0.1:${port}`,
      "GET /healthz HTTP/1.1\r\nHost: lab-host-3.example\r\nConnection: close\r\n\r\n",
    );
    assertMatch(answer, /^HTTP\/1\.1 200 /);
  }, { host: "0.0.0.0" }));

Deno.test("actions on a page need the configuration, a token, and the agent's own page", () =>
  withHealth(async ({ url, view, clock }) => {
    const post = (headers: Record<string, string> = {}, token = "a token of some length") =>
      get(`${url}/agents/agent-1/actions`, {
        method: "POST",
        body: new URLSearchParams({ token, action: "offline", comment: "<b>card" }),
        headers,
      });
    assertEquals((await post()).status, 405);
    assertEquals((await get(`${url}/agents/agent-1/actions`)).status, 404);
    assertEquals((await get(`${url}/`)).text.includes(">Act<"), false);
    const tokenFile = await Deno.makeTempFile();
    await Deno.writeTextFile(tokenFile, "a token of some length\n");
    const asked: string[] = [];
    const [agent] = view.agents;
    if (agent === undefined) throw new Error("There is no agent");
    agent.actions = {
      tokenFile,
      act: ({ action, comment }) => {
        asked.push(`${action} ${comment}`);
        return Promise.resolve(`taken: ${comment}`);
      },
    };
    assertStringIncludes((await get(`${url}/`)).text, '<a href="/agents/agent-1/actions">Act</a>');
    const form = await get(`${url}/agents/agent-1/actions`);
    assertStringIncludes(form.text, 'action="/agents/agent-1/actions"');
    assertEquals(form.text.includes("http-equiv"), false);
    const done = await post();
    assertEquals(done.status, 200);
    assertStringIncludes(done.text, "taken: &lt;b&gt;card");
    assertEquals((await post({ origin: "http://evil.example" })).status, 405);
    assertEquals((await post({ origin: url })).status, 200);
    let isOver = false;
    const wrong = post({}, "a token of another length").finally(() => isOver = true);
    while (!isOver) {
      await settle();
      // Not while a request is read, which has ten seconds for it.
      if (clock.dues.every((ms) => ms <= 1_000)) await clock.advance(1_000);
    }
    assertEquals((await wrong).status, 403);
    assertEquals(asked, ["offline <b>card", "offline <b>card"]);
    assertEquals((await get(`${url}/agents/agent-1`, { method: "POST" })).status, 405);
    assertEquals((await get(`${url}/agents/%ff/actions`, { method: "POST" })).status, 405);
    await Deno.remove(tokenFile);
  }));

Deno.test("nothing can be changed: other methods are refused, HEAD is answered", () =>
  withHealth(async ({ url }) => {
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS"]) {
      const { status, headers } = await get(`${url}/`, { method });
      assertEquals([status, headers.get("allow")], [405, "GET, HEAD"]);
    }
    for (const path of ["/", "/v1/agents/agent-1/events", "/metrics"]) {
      const { status, text } = await get(url + path, { method: "HEAD" });
      assertEquals([status, text], [200, ""]);
    }
    assertEquals((await get(`${url}/etc/passwd`)).status, 404);
  }));

Deno.test("a port in use is one error that says what to do, and is taken once it is free", async () => {
  const other = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = other.addr;
  let closed = false;
  try {
    await withHealth(async ({ health, log, clock }) => {
      assertEquals(health.url, undefined);
      await clock.advance(60_000);
      assertEquals(log.lines.map(({ level }) => level), ["error"]);
      assertStringIncludes(log.lines[0]?.message ?? "", "metrics_port");
      assertEquals(log.lines[0]?.fields.port, port);
      other.close();
      closed = true;
      await clock.advance(60_000);
      assertEquals(health.url, `http://127.0.0.1:${port}/`);
      assertEquals((await get(`${health.url}metrics`)).status, 200);
      assertEquals(log.lines.map(({ level }) => level), ["error", "info"]);
    }, { port });
  } finally {
    if (!closed) other.close();
  }
});

Deno.test("an address that this host does not have is an error as well", () =>
  withHealth(async ({ log, health }) => {
    await settle();
    assertEquals(health.url, undefined);
    assertEquals(log.lines.map(({ level }) => level), ["error"]);
  }, { host: "192.0.2.1" }));

Deno.test("a browser that does not read its answer does not keep the agent from stopping", () =>
  withHealth(async ({ url, health, emit, clock }) => {
    emit({ type: "output", job: "j", bytes: new Uint8Array(65536).fill(0x3c) });
    const { hostname, port } = new URL(url);
    using connection = await Deno.connect({ hostname, port: Number(port) });
    // Many answers of 300 KB, and not a byte of them is read.
    const request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    await connection.write(bytes(request.repeat(200)));
    await get(`${url}/healthz`);
    const before = clock.now();
    await clock.advanceUntil(health.close(), 100);
    assert(clock.now() - before < 30_000, `it took ${clock.now() - before} ms`);
  }));

Deno.test("metrics that fail are one error in the log and a 500", () =>
  withHealth(async ({ url, log }) => {
    for (let n = 0; n < 3; n++) assertEquals((await get(`${url}/metrics`)).status, 500);
    assertEquals(log.lines.filter(({ level }) => level === "error").length, 1);
  }, {
    metrics: {
      sink: () => {},
      add: () => {},
      remove: () => Promise.resolve(),
      contentType: "text/plain",
      text: () => Promise.reject(new Error("broken gauge")),
    },
  }));

Deno.test("the page says how far attachments and artifacts have come, with a job and without", () =>
  withHealth(async ({ emit, url, clock }) => {
    const page = async () => await (await fetch(`${url}/`)).text();
    const task = { what: "Uploading the artifacts", job: "<b>j" };
    emit({ type: "transfer", ...task, bytes: 0, isOver: false });
    await clock.advance(10_000);
    emit({ type: "transfer", ...task, bytes: 50e6, isOver: false });
    const words = "Uploading the artifacts: 50.0 MB so far, 5.0 MB/s (job &lt;b&gt;j)";
    assertStringIncludes(await page(), words);
    emit({ type: "job_began", job: "j2", queue: "q" });
    assertStringIncludes(await page(), words);
    emit({ type: "transfer", ...task, bytes: 50e6, isOver: true });
    assertEquals((await page()).includes("Uploading"), false);
  }));

Deno.test("the page says why a phase was ended, and nothing more of one that ended by itself", () =>
  withHealth(async ({ emit, url }) => {
    const failed = { status: 3, seconds: 5, release: "unknown" };
    for (const event of ["normal_exit", "output_timeout"]) {
      emit({ type: "job_began", job: event, queue: "q" });
      emit({ type: "phase_began", job: "j", phase: "test", limits: {} });
      emit({ type: "phase_ended", job: "j", phase: "test", ...failed, event });
      emit({ type: "job_ended", job: "j", reason: "normal_exit" });
    }
    const page = await (await fetch(`${url}/`)).text();
    assertStringIncludes(page, "failed after 5 s with status 3 (output_timeout)");
    assertEquals(page.includes("(normal_exit)"), false);
  }));
