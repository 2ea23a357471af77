import { assert, assertEquals, assertFalse, assertStringIncludes, assertThrows } from "@std/assert";
import { createServerClient } from "../../lib/server/client.ts";
import type { Failure } from "../../lib/server/api.ts";
import { systemClock } from "../../lib/clock.ts";
import { recordingLog } from "../support/recording_log.ts";
import { connect, failed, JOB_ID, json, serve, serveRaw, until, write } from "./support/http.ts";

Deno.test("fifty calls in a row use one connection", async () => {
  await using server = serve(() => json({ status: "OK" }));
  using link = connect(server);
  const { client } = link;
  for (let i = 0; i < 10; i++) {
    await client.postAgent({ state: "waiting" });
    await client.getAgent();
    await client.nextJob(["q"]);
    await client.getJobState(JOB_ID);
    await client.postResult(JOB_ID, {});
  }
  assertEquals([server.seen.length, server.connections], [50, 1]);
});

Deno.test("Retry-After is understood as seconds and as a date, and a century is not believed", async () => {
  let value = "";
  await using server = serve(() =>
    new Response(null, { status: 429, headers: { "Retry-After": value } })
  );
  using link = connect(server);
  const { client, clock } = link;
  const waits: [string, number | undefined][] = [
    ["7", 7000],
    [new Date(clock.now() + 90_000).toUTCString(), 90_000],
    [new Date(clock.now() - 90_000).toUTCString(), 0],
    ["3153600000", 600_000],
    ["soon", undefined],
    ["-5", undefined],
  ];
  for (const [text, ms] of waits) {
    value = text;
    assertEquals(failed(await client.getAgent()).retryAfterMs, ms, text);
  }
});

Deno.test("a server that is not there is unreachable, and is found again when it is", async () => {
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const { port } = listener.addr;
  listener.close();
  const contacts: boolean[] = [];
  using link = connect({
    address: `http://127.0.0.1:${port}`,
    onAnswer: (ok) => contacts.push(ok),
  });
  const { client } = link;
  const failure = failed(await client.postAgent({ state: "waiting" }));
  assertEquals(failure.kind, "unreachable");
  assertStringIncludes(failure.message, "Connection refused");

  const server = Deno.serve({ port, hostname: "127.0.0.1", onListen() {} }, () => json({}));
  assert((await client.postAgent({ state: "waiting" })).ok);
  await server.shutdown();
  assertEquals(contacts, [false, true]);
});

Deno.test("a server that closes without a word is unreachable", async () => {
  await using server = serveRaw((connection) => Promise.resolve(connection.close()));
  using link = connect(server);
  const { client } = link;
  assertEquals(failed(await client.getAgent()).kind, "unreachable");
});

Deno.test("something that does not speak HTTP is named", async () => {
  await using server = serveRaw(async (connection) => {
    await write(connection, "SSH-2.0-OpenSSH_9.6\r\n");
    connection.closeWrite();
  });
  using link = connect(server);
  const { client } = link;
  assertStringIncludes(failed(await client.getAgent()).message, "does not speak HTTP");
});

Deno.test("a body that is cut off is unreachable", async () => {
  await using server = serveRaw(async (connection) => {
    await write(connection, 'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"name": "rpi');
    connection.closeWrite();
  });
  using link = connect(server);
  const { client } = link;
  for (const call of [client.getAgent(), client.getJobState(JOB_ID), client.viewResult(JOB_ID)]) {
    const failure = failed(await call);
    assertEquals(failure.kind, "unreachable");
    assertStringIncludes(failure.message, "cut off after 13 bytes");
  }
});

Deno.test("an answer of more than 1 MiB is refused without being kept", async () => {
  await using server = serve(() => json({ name: "x".repeat(2 * 1024 * 1024) }));
  using link = connect(server);
  const { client } = link;
  const failure = failed(await client.getAgent());
  assertEquals(failure.kind, "foreign");
  assertStringIncludes(failure.message, "larger than 1048576 bytes");
});

Deno.test("an endless error page does not hold a call up", async () => {
  await using server = serve(() =>
    new Response(
      new ReadableStream({
        pull: (controller) => controller.enqueue(new Uint8Array(65_536).fill(65)),
      }),
      { status: 500 },
    )
  );
  using link = connect(server);
  const { client } = link;
  assertEquals(failed(await client.getAgent()).kind, "busy");
});

Deno.test("a server that is silent for 30 s is given up, for a log post 60 s", async () => {
  const held: (() => void)[] = [];
  await using server = serve(() =>
    new Promise<Response>((resolve) => held.push(() => resolve(new Response())))
  );
  using link = connect(server);
  const { client, clock } = link;
  const fragment = {
    fragment_number: 0,
    timestamp: "2026-01-01T00:00:00Z",
    phase: "test",
    log_data: "x",
  } as const;
  const limits: [string, number, () => Promise<{ ok: true } | Failure>][] = [
    ["30 s", 30_000, () => client.postAgent({ state: "waiting" })],
    ["30 s", 30_000, () => client.nextJob(["q"])],
    ["60 s", 60_000, () => client.postLog(JOB_ID, "output", fragment)],
  ];
  for (const [words, ms, call] of limits) {
    const before = server.seen.length;
    let ended = false;
    const answer = call().finally(() => ended = true);
    await until(() => server.seen.length > before);
    await clock.advance(ms - 1);
    assertFalse(ended);
    await clock.advance(1);
    const failure = failed(await answer);
    assertEquals(failure.kind, "unreachable");
    assertStringIncludes(failure.message, words);
  }
  for (const release of held) release();
});

Deno.test("a call ends at once when its caller gives up, before or while the server thinks", async () => {
  const held: (() => void)[] = [];
  await using server = serve(() =>
    new Promise<Response>((resolve) => held.push(() => resolve(new Response())))
  );
  using link = connect(server);
  const { client, clock } = link;
  const controller = new AbortController();
  const answer = client.getAgent(controller.signal);
  await until(() => server.seen.length > 0);
  controller.abort(new Error("stop"));
  assertEquals(failed(await answer).kind, "aborted");
  assertEquals(failed(await client.getAgent(controller.signal)).kind, "aborted");
  assertEquals(clock.sleepers, 0);
  for (const release of held) release();
});

Deno.test("closing the client ends what is under way", async () => {
  const held: (() => void)[] = [];
  await using server = serve(() =>
    new Promise<Response>((resolve) => held.push(() => resolve(new Response())))
  );
  using link = connect(server);
  const { client } = link;
  const answer = client.getAgent();
  await until(() => server.seen.length > 0);
  client.close();
  assertEquals(failed(await answer).kind, "aborted");
  for (const release of held) release();
});

Deno.test("an agent's record is read with unknown fields and either form of its time", async () => {
  const record = {
    name: "a",
    state: "offline",
    comment: "broken",
    updated_at: { $date: "x" },
    new: 1,
  };
  await using server = serve(() => json(record));
  using link = connect(server);
  const { client } = link;
  assertEquals(await client.getAgent(), { ok: true, value: record });
});

Deno.test("queue names, agent ids and job ids cannot change a URL", async () => {
  await using server = serve(() => new Response(null, { status: 204 }));
  using link = connect({ ...server, agentId: "a/../b?c#d é" });
  const { client } = link;
  await client.postAgent({});
  await client.nextJob(["rpi 4&queue=x", "ü/#", "plain"]);
  assertEquals(server.seen.map((seen) => seen.path), [
    "/v1/agents/data/a%2F..%2Fb%3Fc%23d%20%C3%A9",
    "/v1/job?queue=rpi%204%26queue%3Dx&queue=%C3%BC%2F%23&queue=plain",
  ]);
  const calls = [
    client.getJobState("../agents"),
    client.postResult("x\n", {}),
    client.getAttachments(""),
    client.postArtifact(`${JOB_ID}/..`, { open: () => new ReadableStream() }),
    client.postLog("1", "output", {
      fragment_number: 0,
      timestamp: "",
      phase: "test",
      log_data: "",
    }),
  ];
  for (const call of calls) {
    const failure = failed(await call);
    assertEquals(failure.kind, "refused");
    assertStringIncludes(failure.message, "is not a job id");
  }
  assertEquals(server.seen.length, 2);
});

Deno.test("each post goes to its endpoint as the contract says", async () => {
  await using server = serve(() => json({ status: "OK" }));
  using link = connect(server);
  const { client } = link;
  const events = { agent_id: "a", job_queue: "q", job_status_webhook: "http://w", events: [] };
  await client.postQueues({ q: "a queue" });
  await client.postImages({ q: { image: "url: x" } });
  await client.postProvisionLog({ job_id: JOB_ID, exit_code: 0, detail: "ok" });
  await client.postResult(JOB_ID, { status: { test: 1 } });
  await client.postEvents(JOB_ID, events);
  assertEquals(server.seen.map(({ method, path, body }) => [method, path, JSON.parse(body)]), [
    ["POST", "/v1/agents/queues", { q: "a queue" }],
    ["POST", "/v1/agents/images", { q: { image: "url: x" } }],
    ["POST", "/v1/agents/provision_logs/rpi4-01", { job_id: JOB_ID, exit_code: 0, detail: "ok" }],
    ["POST", `/v1/result/${JOB_ID}`, { status: { test: 1 } }],
    ["POST", `/v1/job/${JOB_ID}/events`, events],
  ]);
  for (const { headers } of server.seen) {
    assertEquals(headers.get("content-type"), "application/json");
  }
});

Deno.test("an address may lack its scheme, end in a slash and have a path", async () => {
  await using server = serve(() => json({}));
  const host = server.address.replace("http://", "");
  using first = connect({ address: `${host}/` });
  assertEquals(first.client.address, server.address);
  using second = connect({ address: `${server.address}/testflinger/` });
  await first.client.postQueues({});
  await second.client.postQueues({});
  assertEquals(server.seen.map((seen) => seen.path), [
    "/v1/agents/queues",
    "/testflinger/v1/agents/queues",
  ]);
});

Deno.test("user and password of the address are sent, and shown nowhere", async () => {
  await using server = serve(() => json({ message: "no" }, { status: 500 }));
  const address = server.address.replace("//", "//lab:s3cr%40t@");
  using link = connect({ address });
  const { client, log } = link;
  const failure = failed(await client.getAgent());
  assertEquals(server.seen[0]?.headers.get("authorization"), `Basic ${btoa("lab:s3cr@t")}`);
  assertEquals(client.address, server.address);
  assertFalse(/s3cr|lab/.test(failure.message + client.address + JSON.stringify(log.lines)));
});

Deno.test("an address or an agent id that cannot be used is refused in words", () => {
  const make = (address: string, agentId = "a") => () =>
    createServerClient({ address, agentId, clock: systemClock, log: recordingLog() });
  assertThrows(make("ftp://host"), TypeError, "http:// or https://");
  assertThrows(make("http://us:pa ss@"), TypeError, "http:// or https://");
  assertThrows(make("http://host", ".."), TypeError, "agent_id");
});
