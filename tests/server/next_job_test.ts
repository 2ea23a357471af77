import { assertEquals, assertFalse, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { readJob } from "../../lib/server/answers.ts";
import {
  connect,
  failed,
  JOB_ID,
  json,
  serve,
  serveRaw,
  serveSlowly,
  succeeded,
  write,
} from "./support/http.ts";

const OTHER_ID = "99999999-2222-4333-8444-555555555555";

function answer(body: string, init: ResponseInit = {}) {
  return () => new Response(body, init);
}

async function ask(handle: () => Response) {
  await using server = serve(handle);
  using link = connect(server);
  const { client } = link;
  return await client.nextJob(["rpi4"]);
}

Deno.test("a job comes with every field the server sent, known or not", async () => {
  const job = {
    job_id: JOB_ID,
    job_queue: "rpi4",
    provision_data: null,
    started_at: "2026-01-01T00:00:00+00:00Z",
    something_new: { a: [1] },
  };
  assertEquals(await ask(() => json(job)), {
    ok: true,
    value: { kind: "job", job, text: JSON.stringify(job) },
  });
});

Deno.test("204, an empty body, null and an empty object all mean that there is no job", async () => {
  const replies = [
    () => new Response(null, { status: 204 }),
    answer(""),
    answer(" \n"),
    answer("{}"),
    answer("null"),
  ];
  for (const reply of replies) {
    assertEquals(await ask(reply), { ok: true, value: { kind: "none" } });
  }
});

Deno.test("a job that is cut off in the middle still names its id, for the server calls it running", async () => {
  await using server = serveRaw(async (connection) => {
    const body = `{"job_id": "${JOB_ID}", "test_data": {"test_cmds": "ech`;
    await write(connection, `HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n${body}`);
    connection.closeWrite();
  });
  using link = connect(server);
  const { client } = link;
  const offer = succeeded(await client.nextJob(["q"]));
  if (offer.kind !== "broken") throw new Error(`The offer is ${offer.kind}`);
  assertEquals(offer.jobId, JOB_ID);
  assertStringIncludes(offer.reason, "cut off");
});

Deno.test("a job that is cut off before its id is unreachable: nobody can be told", async () => {
  await using server = serveRaw(async (connection) => {
    await write(connection, `HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"job_queue": "rp`);
    connection.closeWrite();
  });
  using link = connect(server);
  const { client } = link;
  assertEquals(failed(await client.nextJob(["q"])).kind, "unreachable");
});

Deno.test("a job that comes slowly is waited for as long as it moves, and its id is kept when it stops", async () => {
  await using server = serveSlowly("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n");
  using link = connect(server);
  const { client, clock } = link;
  const offer = client.nextJob(["q"]);
  await server.begun(clock);
  // A piece every 20 s, 100 s in all: more than the 30 s that may pass without any.
  for (const piece of [`{"job_`, `id": "${JOB_ID}"`, `, "a`, `": 1`, `, "b": 2`]) {
    await clock.noticed(() => server.send(piece));
    await clock.advance(20_000);
  }
  await clock.advance(10_000);
  const value = succeeded(await offer);
  if (value.kind !== "broken") throw new Error(`The offer is ${value.kind}`);
  assertEquals(value.jobId, JOB_ID);
  assertStringIncludes(value.reason, "nothing moved for 30 s");
});

Deno.test("a job of more than 16 MiB is broken, not lost", async () => {
  const offer = succeeded(
    await ask(() =>
      json({ job_id: JOB_ID, test_data: { test_cmds: "x".repeat(17 * 1024 * 1024) } })
    ),
  );
  if (offer.kind !== "broken") throw new Error(`The offer is ${offer.kind}`);
  assertEquals(offer.jobId, JOB_ID);
  assertStringIncludes(offer.reason, "larger than 16777216 bytes");
});

Deno.test("a job without a usable id is no job, and no line shows what is in it", async () => {
  const secret = "hunter2";
  const bodies = [
    `{"job_queue": "q", "s": "${secret}"}`,
    `{"job_id": "../../etc", "s": "${secret}"}`,
    `{"job_id": 7, "provision_data": {"job_id": "${JOB_ID}"}, "s": "${secret}"}`,
    `[1, "${secret}"]`,
    `"${secret}"`,
    `{"s": "${secret}" oops`,
    `<html>${secret}</html>`,
  ];
  for (const body of bodies) {
    const failure = failed(await ask(answer(body)));
    assertEquals(failure.kind, "foreign", body);
    assertFalse(failure.message.includes(secret), failure.message);
  }
});

Deno.test("of a damaged job the id at its proper place counts, and two candidates are none", () => {
  const read = (text: string) => readJob({ what: "GET x", bytes: new TextEncoder().encode(text) });
  const idOf = (text: string) => {
    const result = read(text);
    return result.ok && result.value.kind === "broken" ? result.value.jobId : undefined;
  };
  assertEquals(idOf(`{"parent": {"job_id": "${OTHER_ID}"}, "job_id": "${JOB_ID}", "x": `), JOB_ID);
  assertEquals(idOf(`{"a" 1, "job_id": "${JOB_ID}"}`), JOB_ID);
  assertEquals(idOf(`[{"job_id": "${JOB_ID}"}`), JOB_ID);
  assertEquals(idOf(`{"a" 1, "b": {"job_id": "${OTHER_ID}"}, "job_id": "${JOB_ID}"}`), undefined);
  assertEquals(idOf(`{"cmds": "say \\"job_id\\": \\"${OTHER_ID}\\"`), undefined);
});

Deno.test("no body whatever makes an exception, and every cut of a job names it or fails", () => {
  const whole = new TextEncoder().encode(
    JSON.stringify({ job_id: JOB_ID, test_data: { test_cmds: "é".repeat(20) } }),
  );
  const after = whole.indexOf(0x2c);
  const arbitrary = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.json().map((text) => new TextEncoder().encode(text)),
    fc.nat(whole.length - 1).map((length) => whole.subarray(0, length)),
  );
  fc.assert(
    fc.property(arbitrary, (bytes) => {
      const result = readJob({ what: "GET x", bytes });
      if (bytes.buffer !== whole.buffer) return;
      const named = result.ok && result.value.kind === "broken" && result.value.jobId === JOB_ID;
      assertEquals(named, bytes.length >= after, new TextDecoder().decode(bytes));
    }),
    { numRuns: 10_000 },
  );
});

/** Like a current server: no job without the cookie, which it may come to give out anew. */
function strict({ takesEmpty = true } = {}) {
  const now = { cookie: "agent_name=first" };
  const server = serve(({ method, path, headers, body }) => {
    if (path.startsWith("/v1/agents/data/")) {
      if (!takesEmpty && body === "{}") return json({ message: "empty" }, { status: 422 });
      return json({ status: "OK" }, { headers: { "Set-Cookie": `${now.cookie}; HttpOnly` } });
    }
    if (method === "GET" && headers.get("cookie") === now.cookie) {
      return new Response(null, { status: 204 });
    }
    return json({ message: "Agent not identified" }, { status: 401 });
  });
  return Object.assign(server, { now });
}

Deno.test("without the cookie the agent makes itself known and asks again, and only once", async () => {
  await using server = strict();
  using link = connect(server);
  const { client } = link;
  assertEquals(succeeded(await client.nextJob(["q"])).kind, "none");
  assertEquals(succeeded(await client.nextJob(["q"])).kind, "none");
  assertEquals(server.seen.map(({ method, body }) => `${method} ${body}`), [
    "GET ",
    "POST {}",
    "GET ",
    "GET ",
  ]);
});

Deno.test("a server that takes no empty record gets what lasts of it, and no state over an administrator's", async () => {
  await using server = strict({ takesEmpty: false });
  using link = connect(server);
  const { client } = link;
  await client.postAgent({ state: "waiting", comment: "", location: "lab", log: ["x"] });
  await client.postAgent({ state: "test", job_id: JOB_ID, queues: ["q"] });
  server.now.cookie = "agent_name=second";
  server.seen.length = 0;
  assertEquals(succeeded(await client.nextJob(["q"])).kind, "none");
  assertEquals(server.seen.map(({ method, body }) => `${method} ${body}`), [
    "GET ",
    "POST {}",
    'POST {"location":"lab","queues":["q"]}',
    "GET ",
  ]);
});

Deno.test("an identity that the server never accepts ends in unauthorised, not in a circle", async () => {
  await using server = serve(({ path }) =>
    path.startsWith("/v1/job")
      ? json({ message: "Agent not identified" }, { status: 401 })
      : json({})
  );
  using link = connect(server);
  const { client } = link;
  const failure = failed(await client.nextJob(["q"]));
  assertEquals(failure.kind, "unauthorised");
  assertStringIncludes(failure.message, "Agent not identified");
  assertEquals(server.seen.length, 3);
});

Deno.test("once it is too late no job is asked for any more, also when the token came meanwhile", async () => {
  const tooLate = new AbortController();
  const asked: string[] = [];
  await using server = serve(({ path }) => {
    asked.push(path);
    if (asked.length > 1) return json({});
    // The agent is told to stop while the server wants to know first who asks.
    tooLate.abort();
    return json({ message: "Agent not identified" }, { status: 401 });
  });
  using link = connect(server);
  const answer = failed(await link.client.nextJob(["q"], { noLater: tooLate.signal }));
  assertEquals(answer.kind, "aborted");
  assertEquals(asked.filter((path) => path.startsWith("/v1/job?")).length, 1);
});
