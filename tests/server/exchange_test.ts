import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import type { Failure, ServerApi } from "../../lib/server/api.ts";
import { connect, failed, JOB_ID, serve, serveSlowly, succeeded, until } from "./support/http.ts";

Deno.test("an answer that stands still ends with its time or its caller, also when garbage was collected meanwhile", async () => {
  const script = join(import.meta.dirname ?? "", "support", "stalled_answers.ts");
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--allow-all", "--v8-flags=--expose-gc", script],
    signal: AbortSignal.timeout(60_000),
  }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  const calls = ["nextJob", "getAgent", "getJobState", "getStatuses", "viewResult", "postResult"];
  assertEquals(JSON.parse(new TextDecoder().decode(stdout)), {
    ...Object.fromEntries(calls.flatMap((call) => [
      [`${call} aborted`, "aborted"],
      [`${call} time limit`, "unreachable"],
    ])),
    "attachments aborted": "threw given up on request",
    "attachments time limit":
      "threw nothing moved for 600 s (the answer was cut off after 12 bytes)",
  });
});

const HEAD =
  "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

/** Calls whose answers may come slowly, with the time after which the whole is given up. */
const PATIENT: Record<string, { call: (server: ServerApi) => Promise<Answered>; s: number }> = {
  nextJob: { call: (server) => server.nextJob(["q"]), s: 120 },
  getJobState: { call: (server) => server.getJobState(JOB_ID), s: 60 },
  getStatuses: { call: (server) => server.getStatuses(JOB_ID), s: 60 },
  viewResult: { call: (server) => server.viewResult(JOB_ID), s: 600 },
};
type Answered = { ok: true } | Failure;

for (const [name, { call, s }] of Object.entries(PATIENT)) {
  Deno.test(`an answer to ${name} that goes on and on is given up after ${s} s`, async () => {
    await using server = serveSlowly(`${HEAD}2\r\n{"\r\n`);
    using link = connect(server);
    const { client, clock } = link;
    let ended = false;
    const answer = call(client).finally(() => ended = true);
    await server.begun(clock);
    for (let passed = 0; passed < s; passed += 20) {
      assertEquals(ended, false, `after ${passed} s`);
      await clock.noticed(() => server.send("1\r\nx\r\n"));
      await clock.advance(20_000);
    }
    const failure = failed(await answer);
    assertEquals(failure.kind, "unreachable");
    assertStringIncludes(failure.message, `no whole answer within ${s} s`);
  });
}

Deno.test("a job that never ends still names its id, for the server calls it running", async () => {
  await using server = serveSlowly(`${HEAD}39\r\n{"job_id": "${JOB_ID}", "a": "\r\n`);
  using link = connect(server);
  const { client, clock } = link;
  const answer = client.nextJob(["q"]);
  await server.begun(clock);
  for (let passed = 0; passed < 120; passed += 20) {
    await clock.noticed(() => server.send("1\r\nx\r\n"));
    await clock.advance(20_000);
  }
  const offer = succeeded(await answer);
  assertEquals(offer.kind === "broken" && offer.jobId, JOB_ID);
});

/** A body without an end, as fast as it is taken. */
function endless(piece: string): ReadableStream<Uint8Array> {
  const bytes = new TextEncoder().encode(piece.repeat(65_536 / piece.length));
  return new ReadableStream({ pull: (controller) => controller.enqueue(bytes) });
}

Deno.test("an answer without an end is let go of: a post's, a no's, a record's", async () => {
  let status = 200;
  await using server = serve(() => new Response(endless("A"), { status }));
  using link = connect(server);
  const { client, clock } = link;
  const post = failed(await client.postResult(JOB_ID, { job_state: "test" }));
  assertEquals(post.kind, "foreign");
  assertEquals(failed(await client.getAgent()).kind, "foreign");
  assertEquals(failed(await client.nextJob(["q"])).kind, "foreign");
  status = 422;
  assertEquals(failed(await client.postResult(JOB_ID, { job_state: "test" })).kind, "foreign");
  await until(() => clock.sleepers === 0);
});

Deno.test("the answer to a post that comes byte by byte is not waited for longer than the post", async () => {
  await using server = serveSlowly(HEAD);
  using link = connect(server);
  const { client, clock } = link;
  // An upload, which may otherwise take hours.
  const answer = client.postArtifact(JOB_ID, { open: () => new Blob(["archive"]).stream() });
  await server.begun(clock);
  for (let i = 0; i < 2; i++) {
    await clock.noticed(() => server.send("1\r\n{\r\n"));
    await clock.advance(15_000);
  }
  assertEquals(failed(await answer).kind, "unreachable");
});
