import { assertEquals, assertFalse, assertStringIncludes } from "@std/assert";
import { isFinal } from "../../lib/server/api.ts";
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

const notFound = () => new Response("Not found: 404 Not Found\n", { status: 404 });
const unknownJob = () => json({ message: "Job not found" }, { status: 404 });
const invalid = () => json({ message: "Validation error" }, { status: 422 });

/** A server of which a test changes how it takes logs; it begins as a legacy one. */
function changing() {
  const now: Record<"fragments" | "probe" | "greeting" | "text", () => Reply> = {
    fragments: notFound,
    /** What is asked with an id that is no job's. */
    probe: notFound,
    greeting: () => "Testflinger Server v1.2",
    text: () => "OK",
  };
  const server = serve(({ path, method }: Seen) => {
    if (path.includes("no-job")) return now.probe();
    if (path.includes("/log/")) return now.fragments();
    if (path === "/v1/") return now.greeting();
    // Of a job's result a legacy server knows something.
    return method === "GET" ? json({ job_state: "test" }) : now.text();
  });
  const paths = () =>
    server.seen.splice(0).map(({ method, path }) => `${method} ${path.replace(JOB_ID, "ID")}`);
  const becomeCurrent = () => Object.assign(now, { fragments: () => "OK", probe: invalid });
  return Object.assign(server, { now, paths, becomeCurrent });
}

const EXAMINATION = ["GET /v1/", "POST /v1/result/no-job/log/output", "GET /v1/"];

Deno.test("a current server gets fragments, and is asked nothing else", async () => {
  await using server = changing();
  server.becomeCurrent();
  using link = connect(server);
  const { client } = link;
  assertEquals(client.generation, undefined);
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  succeeded(await client.postLog(JOB_ID, "serial", fragment));
  assertEquals(client.generation, "current");
  assertEquals(succeeded(await client.findGeneration()), "current");
  assertEquals(server.seen.map(({ body }) => JSON.parse(body)), [fragment, fragment]);
  assertEquals(server.paths(), ["POST /v1/result/ID/log/output", "POST /v1/result/ID/log/serial"]);
});

Deno.test("a legacy server gets plain text, and is examined only once", async () => {
  for (const status of [404, 405]) {
    await using server = changing();
    server.now.fragments = server.now.probe = () => new Response(null, { status });
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
      ...EXAMINATION,
      "POST /v1/result/ID/output",
      "POST /v1/result/ID/serial_output",
    ]);
  }
});

Deno.test("the generation can be asked for before anything is posted", async () => {
  await using server = changing();
  using link = connect(server);
  assertEquals(succeeded(await link.client.findGeneration()), "legacy");
  assertEquals(server.paths(), EXAMINATION);
  server.becomeCurrent();
  using other = connect(server);
  assertEquals(succeeded(await other.client.findGeneration()), "current");
  assertEquals(server.paths(), EXAMINATION.slice(0, 2));
});

Deno.test("a current server that has forgotten one job is no legacy server: the log of another goes the right way", async () => {
  await using server = changing();
  // It looks at the body first, or at the job.
  for (const probe of [invalid, unknownJob]) {
    using asking = connect(server);
    for (const answer of [unknownJob, notFound]) {
      Object.assign(server.now, { fragments: answer, probe });
      assertFalse(isFinal(failed(await asking.client.postLog(JOB_ID, "output", fragment))));
      assertEquals(asking.client.generation, "current");
    }
  }
  using link = connect(server);
  const { client } = link;
  server.paths();
  server.now.fragments = () => "OK";
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  assertEquals(server.paths(), ["POST /v1/result/ID/log/output"]);
});

Deno.test("a legacy server that has no place for the serial log does not stop the log", async () => {
  await using server = changing();
  server.now.text = notFound;
  using link = connect(server);
  const { client, clock } = link;
  succeeded(await client.postLog(JOB_ID, "serial", fragment));
  server.paths();
  succeeded(await client.postLog(JOB_ID, "serial", fragment));
  assertEquals(server.paths(), ["POST /v1/result/ID/serial_output"]);
  // Later the 404 may be that of a current server, which would have taken it otherwise.
  server.becomeCurrent();
  await clock.advance(60_000);
  succeeded(await client.postLog(JOB_ID, "serial", fragment));
  assertEquals(server.paths().at(-1), "POST /v1/result/ID/log/serial");
});

Deno.test("a load balancer's 404 while the server is being replaced changes nothing", async () => {
  await using server = changing();
  using link = connect(server);
  const { client } = link;
  const greetings: (() => Reply)[] = [
    () => new Response("default backend - 404", { status: 404 }),
    () => new Response("Service Unavailable", { status: 503 }),
    () => "Welcome to nginx!",
    () => new Response("<h1>404</h1>", { status: 404 }),
  ];
  for (server.now.greeting of greetings) {
    const failure = failed(await client.postLog(JOB_ID, "output", fragment));
    assertFalse(isFinal(failure));
    assertStringIncludes(failure.message, "no Testflinger server");
    assertEquals(client.generation, undefined);
  }
  // One that is replaced in this moment greets otherwise than before.
  let version = 1;
  server.now.greeting = () => `Testflinger Server v${version++}`;
  assertEquals(failed(await client.postLog(JOB_ID, "output", fragment)).kind, "busy");
  assertEquals(client.generation, undefined);
  server.becomeCurrent();
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  assertEquals(client.generation, "current");
});

Deno.test("failures that say nothing of the generation are handed back", async () => {
  await using server = changing();
  using link = connect(server);
  const { client } = link;
  const answers: [Response, string][] = [
    [new Response(null, { status: 503 }), "busy"],
    [json({ message: "Specified action requires role: agent" }, { status: 403 }), "forbidden"],
    [json({}, { status: 422 }), "refused"],
    [new Response("<p>", { status: 404 }), "foreign"],
  ];
  for (const [answer, kind] of answers) {
    server.now.fragments = () => answer;
    assertEquals(failed(await client.postLog(JOB_ID, "output", fragment)).kind, kind);
    assertEquals(client.generation, undefined);
  }
});

Deno.test("a legacy server is examined again after an hour: it may have been upgraded", async () => {
  await using server = changing();
  using link = connect(server);
  const { client, clock } = link;
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  server.paths();
  await clock.advance(HOUR_MS - 1);
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  assertEquals(server.paths(), ["POST /v1/result/ID/output"]);
  await clock.advance(1);
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  assertEquals(server.paths(), [...EXAMINATION, "POST /v1/result/ID/output"]);
  server.becomeCurrent();
  await clock.advance(HOUR_MS);
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  assertEquals(server.paths(), [...EXAMINATION.slice(0, 2), "POST /v1/result/ID/log/output"]);
  assertEquals(client.generation, "current");
});

Deno.test("a legacy server is examined again after it was away", async () => {
  await using server = changing();
  using link = connect(server);
  const { client } = link;
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  server.now.text = () => new Response(null, { status: 503 });
  failed(await client.postLog(JOB_ID, "output", fragment));
  server.becomeCurrent();
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  assertEquals(client.generation, "current");
});

Deno.test("a server that was put back to the older generation gets plain text again", async () => {
  await using server = changing();
  server.becomeCurrent();
  using link = connect(server);
  const { client } = link;
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  server.now.fragments = server.now.probe = notFound;
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  assertEquals(client.generation, "legacy");
});

Deno.test("a server that takes logs in neither way is asked again and again, and gives up nothing", async () => {
  await using server = changing();
  server.now.text = notFound;
  using link = connect(server);
  const { client } = link;
  for (let i = 0; i < 3; i++) {
    assertEquals(failed(await client.postLog(JOB_ID, "output", fragment)).kind, "missing");
  }
  server.becomeCurrent();
  succeeded(await client.postLog(JOB_ID, "output", fragment));
  assertEquals(client.generation, "current");
});
