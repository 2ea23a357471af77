import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { isBlockedPort } from "../../lib/server/node_http.ts";
import type { ServeOptions } from "../../lib/sandbox/serve.ts";
import { serveSandbox } from "../../lib/sandbox/serve.ts";
import { connect, failed, JOB_ID, succeeded, until } from "./support/http.ts";

/** Ports of other protocols, on which `fetch` makes no requests; one of them will be free. */
const PORTS = [10080, 6667, 6000, 5061, 5060, 4190];

/** Serves on the first of these ports that is free. */
function onBlockedPort<T>(serve: (port: number) => T): T {
  for (const port of PORTS) {
    try {
      return serve(port);
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
  throw new Error(`None of the ports ${PORTS.join(", ")} is free`);
}

function sandbox(options: ServeOptions = {}) {
  const served = onBlockedPort((port) => serveSandbox({ ...options, port }));
  return { ...served, address: served.url, [Symbol.asyncDispose]: () => served.close() };
}

Deno.test("the list of ports is that of the runtime", async () => {
  for (const port of [...PORTS, 1, 22, 25, 2049, 3659, 6566, 6665, 6679, 6697]) {
    const url = `http://127.0.0.1:${port}/`;
    assert(isBlockedPort(new URL(url)), `${port}`);
    await assertRejects(() => fetch(url), TypeError, "blocked");
  }
  for (const port of [80, 443, 5000, 8000, 8080]) {
    assertEquals(isBlockedPort(new URL(`http://127.0.0.1:${port}/`)), false);
  }
});

Deno.test("a server on such a port is served like every other: a job, its log, its artifact, its outcome", async () => {
  await using server = sandbox();
  const inside = server.sandbox;
  using link = connect(server);
  const { client } = link;
  succeeded(await client.postAgent({ state: "waiting", queues: ["q"] }));
  assertEquals(succeeded(await client.getAgent())?.state, "waiting");
  const archive = new Uint8Array(3_000_000).map((_, index) => index % 251);
  const jobId = inside.submit({ job_queue: "q", test_data: { attachments: [] } }, archive);
  const offer = succeeded(await client.nextJob(["q"]));
  assertEquals(offer.kind, "job");
  const attachments = succeeded(await client.getAttachments(jobId));
  assertEquals(attachments?.length, archive.length);
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  for await (const chunk of attachments?.stream ?? []) chunks.push(Uint8Array.from(chunk));
  assertEquals(new Uint8Array(await new Blob(chunks).arrayBuffer()), archive);
  for (const number of [0, 1, 2]) {
    const piece = { timestamp: "2026-01-01T00:00:00Z", phase: "test", log_data: "ä\n" } as const;
    succeeded(await client.postLog(jobId, "output", { fragment_number: number, ...piece }));
  }
  assertEquals(inside.log(jobId, "output"), "ä\nä\nä\n");
  succeeded(await client.postArtifact(jobId, { open: () => new Blob([archive]).stream() }));
  assertEquals(inside.artifact(jobId), archive);
  succeeded(await client.postResult(jobId, { job_state: "complete", status: { test: 0 } }));
  assertEquals(succeeded(await client.getJobState(jobId)), "complete");
  assertEquals(inside.state(jobId), "complete");
});

Deno.test("on such a port twenty calls in a row use one connection", async () => {
  const connections = new Set<number>();
  const server = onBlockedPort((port) =>
    Deno.serve({ port, hostname: "127.0.0.1", onListen() {} }, (_, info) => {
      connections.add(info.remoteAddr.port);
      return new Response("{}");
    })
  );
  using link = connect({ address: `http://127.0.0.1:${server.addr.port}` });
  for (let i = 0; i < 20; i++) succeeded(await link.client.postResult(JOB_ID, {}));
  assertEquals(connections.size, 1);
  link.client.close();
  await server.shutdown();
});

Deno.test("on such a port a token and a refusal are what they are elsewhere", async () => {
  const folder = await Deno.makeTempDir();
  await using server = sandbox({ tokens: true });
  server.sandbox.addRefreshToken("secret-1");
  await Deno.writeTextFile(`${folder}/token`, '{"refresh_token": "secret-1"}');
  using link = connect({ ...server, tokenFile: `${folder}/token` });
  const { client } = link;
  for (let i = 0; i < 20; i++) succeeded(await client.nextJob(["q"]));
  server.sandbox.expireAccessTokens();
  succeeded(await client.nextJob(["q"]));
  const failure = failed(await client.postResult(JOB_ID, { test_output: "x" }));
  assertEquals([failure.kind, failure.status], ["refused", 422]);
  assertStringIncludes(failure.message, "test_output");
  await Deno.remove(folder, { recursive: true });
});

Deno.test("on such a port a call ends with its caller, with its time, and with a server that is gone", async () => {
  let asked = 0;
  const server = onBlockedPort((port) =>
    Deno.serve({ port, hostname: "127.0.0.1", onListen() {} }, () => {
      asked++;
      const body = new ReadableStream<Uint8Array>({
        start: (controller) => controller.enqueue(new TextEncoder().encode('{"name": "rp')),
      });
      return new Response(body);
    })
  );
  const { port } = server.addr;
  using link = connect({ address: `http://127.0.0.1:${port}` });
  const { client, clock } = link;
  const controller = new AbortController();
  const aborted = client.getAgent(controller.signal);
  await until(() => asked === 1);
  controller.abort();
  assertEquals(failed(await aborted).kind, "aborted");
  const late = client.getAgent();
  await until(() => asked === 2);
  await clock.advance(30_000);
  const failure = failed(await late);
  assertEquals(failure.kind, "unreachable");
  await server.shutdown();
  assertEquals(failed(await client.getAgent()).kind, "unreachable");
});
