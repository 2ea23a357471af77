import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { type ServeOptions, serveSandbox } from "../../lib/sandbox/serve.ts";
import type { LogFragment } from "../../lib/server/schema.ts";
import { connect, failed, succeeded } from "./support/http.ts";

function sandbox(options: ServeOptions = {}) {
  const served = serveSandbox(options);
  return { ...served, address: served.url, [Symbol.asyncDispose]: () => served.close() };
}

function fragment(number: number, text: string): LogFragment {
  return {
    fragment_number: number,
    timestamp: "2026-01-01T00:00:00.000Z",
    phase: "test",
    log_data: text,
  };
}

Deno.test("a current server: a job from being handed out to its outcome", async () => {
  await using server = sandbox();
  using link = connect(server);
  const { client } = link;
  const { sandbox: inside } = server;
  assertEquals(succeeded(await client.getAgent()), null);
  succeeded(await client.postAgent({ state: "waiting", queues: ["q"], location: "lab" }));
  succeeded(await client.postQueues({ q: "a queue" }));
  succeeded(await client.postImages({ q: { core: "url: http://x" } }));
  assertEquals(succeeded(await client.getAgent())?.location, "lab");

  const jobId = inside.submit({ job_queue: "q", test_data: { test_cmds: "true" } });
  const offer = succeeded(await client.nextJob(["other", "q"]));
  if (offer.kind !== "job") throw new Error(`The offer is ${offer.kind}`);
  assertEquals(offer.job.job_id, jobId);
  assertEquals(succeeded(await client.nextJob(["q"])).kind, "none");
  assertEquals(succeeded(await client.getAttachments(jobId)), null);

  succeeded(await client.postResult(jobId, { job_state: "test" }));
  assertEquals(succeeded(await client.getJobState(jobId)), "test");
  succeeded(await client.postLog(jobId, "output", fragment(0, "hello ")));
  succeeded(await client.postLog(jobId, "output", fragment(1, "wörld\n")));
  succeeded(await client.postLog(jobId, "serial", fragment(0, "login:")));
  assertEquals(client.generation, "current");
  assertEquals(inside.log(jobId, "output"), "hello wörld\n");
  assertEquals(succeeded(await client.viewResult(jobId)), {
    jobState: "test",
    logBytes: { test_output: 13, test_serial: 6 },
  });

  const archive = new Uint8Array(300_000).map((_, index) => index % 251);
  succeeded(await client.postArtifact(jobId, { open: () => new Blob([archive]).stream() }));
  assertEquals(inside.artifact(jobId), archive);
  succeeded(
    await client.postProvisionLog({ job_id: jobId, exit_code: 0, detail: "provision_success" }),
  );
  inside.cancel(jobId);
  assertEquals(succeeded(await client.getJobState(jobId)), "cancelled");
  succeeded(await client.postResult(jobId, { job_state: "complete", status: { test: 0 } }));
  assertEquals(inside.state(jobId), "complete");
});

Deno.test("a current server says which field it does not know", async () => {
  await using server = sandbox();
  using link = connect(server);
  const { client } = link;
  const jobId = server.sandbox.submit({ job_queue: "q" });
  const failure = failed(await client.postResult(jobId, { test_output: "x" }));
  assertEquals(failure.kind, "refused");
  assertStringIncludes(failure.message, "422");
  assertStringIncludes(failure.message, "test_output");
});

Deno.test("a legacy server is recognised, and gets its log as text", async () => {
  await using server = sandbox({ generation: "legacy" });
  using link = connect(server);
  const { client } = link;
  const jobId = server.sandbox.submit({ job_queue: "q" });
  assertEquals(succeeded(await client.nextJob(["q"])).kind, "job");
  succeeded(await client.postLog(jobId, "output", fragment(0, "Grüße\n")));
  succeeded(await client.postLog(jobId, "serial", fragment(0, "login:")));
  assertEquals(client.generation, "legacy");
  assertEquals(server.sandbox.log(jobId, "output"), "Grüße\n");
  succeeded(
    await client.postResult(jobId, {
      job_state: "complete",
      test_status: 0,
      test_output: "Grüße\n",
    }),
  );
  assertEquals(succeeded(await client.viewResult(jobId)).logBytes, { test_output: 8 });
});

Deno.test("a server with tokens: nothing without one, everything with one, also when it expires", async () => {
  const folder = await Deno.makeTempDir();
  const tokenFile = `${folder}/refresh_token`;
  await using server = sandbox({ tokens: true });
  server.sandbox.addRefreshToken("secret-1");
  using link = connect({ ...server, tokenFile });
  const { client } = link;
  assertEquals(failed(await client.nextJob(["q"])).kind, "unauthorised");

  await Deno.writeTextFile(tokenFile, '{"refresh_token": "secret-1"}');
  assertEquals(succeeded(await client.nextJob(["q"])).kind, "none");
  server.sandbox.expireAccessTokens();
  assertEquals(succeeded(await client.nextJob(["q"])).kind, "none");
  server.sandbox.expireAccessTokens();
  const upload = { open: () => new Blob(["archive"]).stream() };
  const jobId = server.sandbox.submit({ job_queue: "q" });
  succeeded(await client.postArtifact(jobId, upload));

  server.sandbox.revokeRefreshToken("secret-1");
  server.sandbox.expireAccessTokens();
  assertEquals(failed(await client.nextJob(["q"])).kind, "unauthorised");
  const lines = JSON.stringify(link.log.lines);
  assertStringIncludes(lines, "have a new one issued");
  assert(!lines.includes("secret-1"));
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a server that was away and comes back is served on, cookie and all", async () => {
  const before = serveSandbox();
  using link = connect({ address: before.url });
  const { client } = link;
  assertEquals(succeeded(await client.nextJob(["q"])).kind, "none");
  await before.close();
  assertEquals(failed(await client.nextJob(["q"])).kind, "unreachable");
  const after = serveSandbox({ port: Number(new URL(before.url).port), sandbox: before.sandbox });
  assertEquals(succeeded(await client.nextJob(["q"])).kind, "none");
  await after.close();
});

Deno.test("a token of a signing key that the server no longer has is replaced, and the request repeated", async () => {
  const folder = await Deno.makeTempDir();
  const tokenFile = `${folder}/refresh_token`;
  await Deno.writeTextFile(tokenFile, '{"refresh_token": "secret-1"}');
  await using server = sandbox({ tokens: true });
  server.sandbox.addRefreshToken("secret-1");
  const problems: (string | undefined)[] = [];
  using link = connect({ ...server, tokenFile, onAccess: (problem) => problems.push(problem) });
  const { client } = link;
  const jobId = server.sandbox.submit({ job_queue: "q" });
  succeeded(await client.postResult(jobId, { job_state: "test" }));
  server.sandbox.spoilAccessTokens();
  succeeded(await client.postResult(jobId, { job_state: "complete" }));
  assertEquals(server.sandbox.state(jobId), "complete");
  assertEquals(problems, []);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a token of the wrong role is said once, and once that it is right again", async () => {
  const folder = await Deno.makeTempDir();
  const tokenFile = `${folder}/refresh_token`;
  await Deno.writeTextFile(tokenFile, '{"refresh_token": "people"}');
  await using server = sandbox({ tokens: true });
  server.sandbox.addRefreshToken("people", { role: "contributor" });
  server.sandbox.addRefreshToken("agents");
  const problems: (string | undefined)[] = [];
  using link = connect({ ...server, tokenFile, onAccess: (problem) => problems.push(problem) });
  const { client, clock, log } = link;
  const jobId = server.sandbox.submit({ job_queue: "q" });
  for (let i = 0; i < 3; i++) {
    for (const call of [client.postResult(jobId, {}), client.nextJob(["q"])]) {
      assertEquals(failed(await call).kind, "forbidden");
    }
    // What everybody may do is no sign that it is mended.
    succeeded(await client.getJobState(jobId));
  }
  assertEquals(log.lines.map(({ level }) => level), ["error"]);
  assertStringIncludes(log.lines[0]?.message ?? "", `role 'agent' and put it into ${tokenFile}`);
  assertEquals(problems.length, 1);

  await Deno.writeTextFile(tokenFile, '{"refresh_token": "agents"}');
  await clock.advance(10_000);
  succeeded(await client.postResult(jobId, {}));
  assertEquals(problems.length, 1);
  assertEquals(succeeded(await client.nextJob(["q"])).kind, "job");
  assertEquals(problems.slice(1), [undefined]);
  assertEquals(log.lines.map(({ level }) => level), ["error", "info"]);
  await Deno.remove(folder, { recursive: true });
});
