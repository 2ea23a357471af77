import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { emitterOf } from "../../lib/observe/events.ts";
import { createInflux } from "../../lib/observe/influx.ts";
import { FakeClock, settle } from "../support/fake_clock.ts";
import { recordingLog } from "../support/recording_log.ts";

const START = Date.UTC(2026, 10, 22, 12);
const START_NS = `${START}000000`;

interface Request {
  path: string;
  body: string;
  authorization: string | null;
}

/** An InfluxDB that writes down what it is asked, and answers as it is told. */
function serveInflux(answer: (request: Request) => Response | Promise<Response>) {
  const requests: Request[] = [];
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, async (request) => {
    const url = new URL(request.url);
    const seen = {
      path: url.pathname + decodeURIComponent(url.search),
      body: await request.text(),
      authorization: request.headers.get("authorization"),
    };
    requests.push(seen);
    return await answer(seen);
  });
  return {
    requests,
    env: { INFLUX_HOST: "127.0.0.1", INFLUX_PORT: `${server.addr.port}` },
    lines: () =>
      requests.filter(({ path }) => path.startsWith("/write"))
        .flatMap(({ body }) => body.trimEnd().split("\n")),
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

function make(env: Record<string, string>, agentId = "agent-1") {
  const clock = new FakeClock(START);
  const log = recordingLog();
  const influx = createInflux({ clock, log, env: (name) => env[name] });
  const emit = emitterOf(agentId, { clock, sink: (event) => influx?.sink(event) });
  return { clock, emit, log, influx };
}

/** Waits for a condition that a real server brings about. */
async function until(condition: () => boolean) {
  for (let n = 0; !condition(); n++) {
    if (n > 10_000) throw new Error("it never happened");
    await settle();
  }
}

const noContent = () => new Response(null, { status: 204 });
const ended = { status: 0, event: "test_success", seconds: 1, release: "unknown" };

Deno.test("without INFLUX_HOST there is no InfluxDB", () => {
  assertEquals(make({}).influx, undefined);
  assertEquals(make({ INFLUX_HOST: "" }).influx, undefined);
});

Deno.test("the database is created at the start, before anything has happened", async () => {
  await using server = serveInflux(noContent);
  const { influx } = make(server.env);
  await until(() => server.requests.length === 1);
  assertEquals(server.requests[0]?.path, '/query?q=CREATE DATABASE "agent_jobs"');
  await influx?.close();
});

Deno.test("a point says each state, and each phase with its result", async () => {
  await using server = serveInflux(noContent);
  const { emit, influx } = make(server.env);
  emit({ type: "mode", state: "waiting", comment: "" });
  emit({ type: "mode", state: "waiting", comment: "again" });
  emit({ type: "mode", state: "test", comment: "" });
  emit({ type: "phase_ended", job: "j", phase: "test", ...ended, status: 7 });
  await until(() => server.lines().length === 3);
  const ns = BigInt(START_NS);
  assertEquals(server.lines(), [
    `phase\\ result,agent=agent-1 phase="waiting" ${ns}`,
    `phase\\ result,agent=agent-1 phase="test" ${ns + 1n}`,
    `phase\\ result,agent=agent-1 phase="test",result=7i ${ns + 2n}`,
  ]);
  assertEquals(server.requests[1]?.path, "/write?db=agent_jobs&precision=ns");
  assertEquals(server.requests[1]?.authorization, null);
  await influx?.close();
});

Deno.test("INFLUX_USER and INFLUX_PW go as basic authorization, in UTF-8", async () => {
  await using server = serveInflux(noContent);
  const { influx } = make({ ...server.env, INFLUX_USER: "lab", INFLUX_PW: "pä:ss" });
  await until(() => server.requests.length === 1);
  const bytes = Uint8Array.fromBase64(server.requests[0]?.authorization?.slice(6) ?? "");
  assertEquals(new TextDecoder().decode(bytes), "lab:pä:ss");
  await influx?.close();
});

Deno.test("commas, spaces, quotes and backslashes in names are escaped", async () => {
  await using server = serveInflux(noContent);
  const { emit, influx } = make(server.env, "a, b=c\n\\");
  emit({ type: "mode", state: 'say "x"\\\n', comment: "" });
  await until(() => server.lines().length === 1);
  assertEquals(
    server.lines()[0],
    `phase\\ result,agent=a\\,\\ b\\=c\\ \\\\  phase="say \\"x\\"\\\\\\n" ${START_NS}`,
  );
  await influx?.close();
});

Deno.test("an InfluxDB that is down is one warning, and gets the points when it is back", async () => {
  let up = false;
  await using server = serveInflux(() => up ? noContent() : new Response("no", { status: 503 }));
  const { emit, influx, log, clock } = make(server.env);
  emit({ type: "mode", state: "waiting", comment: "" });
  for (let n = 1; n <= 4; n++) {
    // Two waits each: the limit of the request, and the pause after its answer.
    await until(() => clock.begun === 2 * n);
    assertEquals(server.requests.length, n);
    up = n === 4;
    await clock.advance(clock.nextDue ?? 0);
  }
  await until(() => server.lines().length === 1 && log.lines.length === 2);
  assertEquals(log.lines.map(({ level }) => level), ["warning", "info"]);
  assertStringIncludes(String(log.lines[0]?.fields.reason), "503");
  await influx?.close();
});

Deno.test("nothing listening at all is one warning, and closing does not wait for it", async () => {
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const port = `${listener.addr.port}`;
  listener.close();
  const { emit, influx, log } = make({ INFLUX_HOST: "127.0.0.1", INFLUX_PORT: port });
  emit({ type: "mode", state: "waiting", comment: "" });
  await until(() => log.lines.length === 1);
  for (let n = 0; n < 5000; n++) emit({ type: "mode", state: `s${n}`, comment: "" });
  await influx?.close();
  assertEquals(log.lines.length, 1);
});

Deno.test("an InfluxDB that never answers is given up after ten seconds", async () => {
  const hanging = Promise.withResolvers<Response>();
  await using server = serveInflux(() => hanging.promise);
  const { influx, log, clock } = make(server.env);
  await until(() => server.requests.length === 1);
  await clock.advance(10_000);
  await until(() => log.lines.length === 1);
  assertMatch(String(log.lines[0]?.fields.reason), /no answer within 10 s/);
  hanging.resolve(noContent());
  await influx?.close();
});

Deno.test("points that InfluxDB refuses are dropped, and later ones are sent", async () => {
  await using server = serveInflux(({ body }) =>
    body.includes("bad") ? new Response("partial write", { status: 400 }) : noContent()
  );
  const { emit, influx, log } = make(server.env);
  emit({ type: "mode", state: "bad", comment: "" });
  await until(() => log.lines.length === 1);
  emit({ type: "mode", state: "good", comment: "" });
  await until(() => server.lines().length === 2);
  assertStringIncludes(server.lines()[1] ?? "", '"good"');
  await influx?.close();
});

Deno.test("a database that was dropped is created again", async () => {
  let missing = true;
  await using server = serveInflux(({ path }) => {
    if (path.startsWith("/query")) return noContent();
    const answer = missing ? new Response("database not found", { status: 404 }) : noContent();
    missing = false;
    return answer;
  });
  const { emit, influx, clock } = make(server.env);
  emit({ type: "mode", state: "waiting", comment: "" });
  // The limits of two requests, and a pause.
  await until(() => clock.begun === 3);
  await clock.advance(clock.nextDue ?? 0);
  await until(() => server.requests.length === 4);
  assertEquals(server.requests.map(({ path }) => path.slice(0, 6)), [
    "/query",
    "/write",
    "/query",
    "/write",
  ]);
  await influx?.close();
});

Deno.test("a user who may write but not create a database can still write", async () => {
  await using server = serveInflux(({ path }) =>
    path.startsWith("/query") ? new Response("no", { status: 403 }) : noContent()
  );
  const { emit, influx, log } = make(server.env);
  emit({ type: "mode", state: "waiting", comment: "" });
  await until(() => server.lines().length === 1);
  await influx?.close();
  assertEquals(log.lines, []);
});

Deno.test("the queue is bounded: the oldest points go first", async () => {
  let up = false;
  await using server = serveInflux(() => up ? noContent() : new Response("", { status: 500 }));
  const { emit, influx, clock } = make(server.env);
  for (let n = 0; n < 1500; n++) emit({ type: "mode", state: `s${n}`, comment: "" });
  await until(() => clock.begun === 2);
  up = true;
  await clock.advance(clock.nextDue ?? 0);
  await until(() => server.lines().length === 1000);
  assertStringIncludes(server.lines()[0] ?? "", '"s500"');
  assertStringIncludes(server.lines()[999] ?? "", '"s1499"');
  await influx?.close();
});

Deno.test("close() sends what was told last", async () => {
  await using server = serveInflux(noContent);
  const { emit, influx } = make(server.env);
  emit({ type: "mode", state: "offline", comment: "Agent stopped" });
  await influx?.close();
  assertStringIncludes(server.lines()[0] ?? "", '"offline"');
});

for (
  const [what, env] of Object.entries({
    "a host with a scheme": { INFLUX_HOST: "http://influx" },
    "a port that is no number": { INFLUX_HOST: "influx", INFLUX_PORT: "http" },
    "a port that is too large": { INFLUX_HOST: "influx", INFLUX_PORT: "99999" },
    "a host with a path": { INFLUX_HOST: "influx/x" },
  })
) {
  Deno.test(`${what} is one error that says what to do`, () => {
    const { influx, log } = make(env);
    assertEquals(influx, undefined);
    assertEquals(log.lines.length, 1);
    assertStringIncludes(log.lines[0]?.message ?? "", "INFLUX_HOST must be a host name");
  });
}
