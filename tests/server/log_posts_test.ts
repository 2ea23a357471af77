import { assertEquals, assertStringIncludes } from "@std/assert";
import type { LogFragment } from "../../lib/server/schema.ts";
import {
  connect,
  failed,
  JOB_ID,
  json,
  type Reply,
  type Seen,
  serve,
  succeeded,
} from "./support/http.ts";

const HOUR_MS = 3_600_000;

const fragment: LogFragment = {
  fragment_number: 3,
  timestamp: "2026-01-01T00:00:00+00:00",
  phase: "test",
  log_data: "Grüße\n",
};

/** A server of which a test changes how it takes logs. */
function changing() {
  const now: { fragments: () => Reply; greeting: () => Reply; text: () => Reply } = {
    fragments: () => new Response("Not Found", { status: 404 }),
    greeting: () => "Testflinger Server v1.2",
    text: () => "OK",
  };
  const server = serve(({ path }: Seen) => {
    if (path.includes("/log/")) return now.fragments();
    if (path === "/v1/") return now.greeting();
    return now.text();
  });
  const paths = () =>
    server.seen.splice(0).map(({ method, path }) => `${method} ${path.replace(JOB_ID, "ID")}`);
  return Object.assign(server, { now, paths });
}

Deno.test("a current server gets fragments", async () => {
  await using server = changing();
  server.now.fragments = () => json({ status: "OK" });
  using link = connect(server);
  const { client } = link;
  assertEquals(client.generation, undefined);
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  succeeded(await client.postLog(JOB_ID, "serial", fragment));
  assertEquals(client.generation, "current");
  assertEquals(server.seen.map(({ body }) => JSON.parse(body)), [fragment, fragment]);
  assertEquals(server.paths(), ["POST /v1/result/ID/log/output", "POST /v1/result/ID/log/serial"]);
});

Deno.test("a legacy server gets plain text, and is asked for the other way only once", async () => {
  for (const status of [404, 405]) {
    await using server = changing();
    server.now.fragments = () => new Response(null, { status });
    using link = connect(server);
    const { client } = link;
    succeeded(await client.postLog(JOB_ID, "output", fragment));
    assertEquals(client.generation, "legacy");
    const text = server.seen.at(-1);
    assertEquals(text?.body, "Grüße\n");
    assertEquals(text?.headers.get("content-type"), "text/plain; charset=utf-8");
    succeeded(await client.postLog(JOB_ID, "serial", fragment));
    assertEquals(server.paths(), [
      "POST /v1/result/ID/log/output",
      "GET /v1/",
      "POST /v1/result/ID/output",
      "POST /v1/result/ID/serial_output",
    ]);
  }
});

Deno.test("a legacy server that has no place for the serial log does not stop the log", async () => {
  await using server = changing();
  server.now.text = () => new Response(null, { status: 404 });
  using link = connect(server);
  const { client } = link;
  succeeded(await client.postLog(JOB_ID, "serial", fragment));
});

Deno.test("a load balancer's 404 while the server is being replaced changes nothing", async () => {
  await using server = changing();
  using link = connect(server);
  const { client } = link;
  const greetings: (() => Reply)[] = [
    () => new Response("default backend - 404", { status: 404 }),
    () => new Response("Service Unavailable", { status: 503 }),
    () => "Welcome to nginx!",
  ];
  for (server.now.greeting of greetings) {
    const failure = failed(await client.postLog(JOB_ID, "output", fragment));
    assertEquals(failure.kind, "busy");
    assertStringIncludes(failure.message, "no Testflinger server");
    assertEquals(client.generation, undefined);
  }
  server.now.fragments = () => json({});
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  assertEquals(client.generation, "current");
});

Deno.test("a 404 from a server that took fragments before is an answer, not a change of server", async () => {
  await using server = changing();
  server.now.fragments = () => json({});
  using link = connect(server);
  const { client } = link;
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  server.now.fragments = () => new Response(null, { status: 404 });
  assertEquals(failed(await client.postLog(JOB_ID, "output", fragment)).kind, "refused");
  assertEquals(client.generation, "current");
});

Deno.test("failures that say nothing of the generation are handed back", async () => {
  await using server = changing();
  using link = connect(server);
  const { client } = link;
  for (const [status, kind] of [[503, "busy"], [403, "forbidden"], [422, "refused"]] as const) {
    server.now.fragments = () => new Response(null, { status });
    assertEquals(failed(await client.postLog(JOB_ID, "output", fragment)).kind, kind);
    assertEquals(client.generation, undefined);
  }
});

Deno.test("a legacy server is examined again after an hour: it may have been upgraded", async () => {
  await using server = changing();
  using link = connect(server);
  const { client, clock } = link;
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  server.now.fragments = () => json({});
  server.paths();
  await clock.advance(HOUR_MS - 1);
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  await clock.advance(1);
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  assertEquals(server.paths(), ["POST /v1/result/ID/output", "POST /v1/result/ID/log/output"]);
  assertEquals(client.generation, "current");
});

Deno.test("a legacy server is examined again after it was away", async () => {
  await using server = changing();
  using link = connect(server);
  const { client } = link;
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  server.now.greeting = () => new Response(null, { status: 503 });
  failed(await client.ping());
  server.now.fragments = () => json({});
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  assertEquals(client.generation, "current");
});

Deno.test("a server that takes logs in neither way is examined anew at the next post", async () => {
  await using server = changing();
  server.now.text = () => new Response(null, { status: 404 });
  using link = connect(server);
  const { client } = link;
  assertEquals(failed(await client.postLog(JOB_ID, "output", fragment)).kind, "refused");
  server.now.fragments = () => json({});
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  assertEquals(client.generation, "current");
});
