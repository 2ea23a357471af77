import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { runSandbox, serveSandbox } from "../../lib/sandbox/serve.ts";

Deno.test("a served sandbox answers on its address, and its connections end with it", async () => {
  const { sandbox, url, close } = serveSandbox();
  assertMatch(url, /^http:\/\/127\.0\.0\.1:\d+$/);
  const redirected = await fetch(`${url}/v1`);
  assertEquals(redirected.url, `${url}/v1/`);
  assertMatch(await redirected.text(), /^Testflinger Server v/);
  assertEquals(sandbox.requests.map((request) => request.path), ["/v1", "/v1/"]);
  await close();
  await assertRejects(() => fetch(`${url}/v1/`), TypeError);
});

Deno.test("a sandbox comes back after an outage with all it knew, on the same port", async () => {
  const before = serveSandbox();
  const jobId = before.sandbox.submit({ job_queue: "q" });
  await before.close();
  const port = Number(new URL(before.url).port);
  const after = serveSandbox({ port, sandbox: before.sandbox });
  assertEquals(after.url, before.url);
  const result = await (await fetch(`${after.url}/v1/result/${jobId}`)).json();
  assertEquals(result, { job_state: "waiting" });
  await after.close();
});

Deno.test("close() does not wait for a reader who reads no further", async () => {
  const { sandbox, url, close } = serveSandbox();
  sandbox.intercept(() =>
    new Response(
      new ReadableStream({
        pull: (controller) => controller.enqueue(new Uint8Array(65_536)),
      }, { highWaterMark: 0 }),
    )
  );
  const hanging = await fetch(url);
  await close();
  await hanging.body?.cancel().catch(() => {});
});

Deno.test("a port that is taken is an error that says so", async () => {
  const { url, close } = serveSandbox();
  const port = Number(new URL(url).port);
  assertThrows(() => serveSandbox({ port }), Deno.errors.AddrInUse);
  await close();
});

Deno.test("an answer is not compressed: what is read is what was moved", async () => {
  const { sandbox, url, close } = serveSandbox();
  const jobId = sandbox.submit({ job_queue: "q", test_data: { test_cmds: "x".repeat(10_000) } });
  const answer = await fetch(`${url}/v1/job/${jobId}`, { headers: { "Accept-Encoding": "gzip" } });
  assertEquals(answer.headers.get("Content-Encoding"), null);
  await answer.body?.cancel();
  await close();
});

/** Runs a sandbox until its address is printed. */
async function run(options: { legacy: boolean; tokens: boolean; mode?: boolean }) {
  const lines: string[] = [];
  const stop = new AbortController();
  const ended = runSandbox({
    port: 0,
    hostname: "127.0.0.1",
    ...options,
    print: (line) => lines.push(line),
    signal: stop.signal,
  });
  const text = () => lines.join("\n");
  // It prints all of it before it first waits.
  const url = /http:\/\/127\.0\.0\.1:\d+/.exec(text())?.[0] ?? "";
  await (await fetch(`${url}/v1/`)).text();
  return { url, lines, text, stop: () => (stop.abort(), ended) };
}

/** The curl command that was printed, as a request. */
function printedJob(text: string): [string, RequestInit] {
  const [, type = "", url = "", body = ""] =
    /curl -H 'Content-Type: (.*?)' (\S+) \\\n\s+-d '(.*)'/.exec(text) ?? [];
  return [url, { method: "POST", headers: { "Content-Type": type }, body }];
}

Deno.test("'sandbox' prints its address and a way to submit a job that works, until it is stopped", async () => {
  const sandbox = await run({ legacy: false, tokens: false });
  assertMatch(sandbox.text(), new RegExp(`server_address: ${sandbox.url}\n`));
  const submitted = await fetch(...printedJob(sandbox.text()));
  const { job_id: jobId } = await submitted.json();
  const result = await (await fetch(`${sandbox.url}/v1/result/${jobId}`)).json();
  assertEquals(result, { job_state: "waiting" });
  assertEquals(sandbox.lines.at(-1), `GET /v1/result/${jobId} 200`);
  await sandbox.stop();
  await assertRejects(() => fetch(sandbox.url), TypeError);
});

Deno.test("'sandbox --tokens' prints a refresh token and credentials that work", async () => {
  const sandbox = await run({ legacy: false, tokens: true });
  const tokenFile = /\{"refresh_token": ".*"\}/.exec(sandbox.text())?.[0] ?? "";
  const json = { "Content-Type": "application/json" };
  const refreshed = await fetch(`${sandbox.url}/v1/oauth2/refresh`, {
    method: "POST",
    headers: json,
    body: tokenFile,
  });
  const { access_token } = await refreshed.json();
  const post = async (headers: Record<string, string>) => {
    const url = `${sandbox.url}/v1/agents/data/a`;
    const answer = await fetch(url, {
      method: "POST",
      headers: { ...json, ...headers },
      body: "{}",
    });
    await answer.text();
    return answer.status;
  };
  assertEquals(await post({ Authorization: `Bearer ${access_token}` }), 200);
  assertEquals(await post({}), 403);
  const [, id, key] = /--client-id (\S+) --secret-key (\S+)/.exec(sandbox.text()) ?? [];
  const login = await fetch(`${sandbox.url}/v1/oauth2/token`, {
    method: "POST",
    headers: { Authorization: `Basic ${btoa(`${id}:${key}`)}` },
  });
  assertEquals(login.status, 200);
  await login.text();
  await sandbox.stop();
});

Deno.test("'sandbox --legacy' is a server of the older generation", async () => {
  const sandbox = await run({ legacy: true, tokens: false });
  const { job_id: jobId } = await (await fetch(...printedJob(sandbox.text()))).json();
  const output = await fetch(`${sandbox.url}/v1/result/${jobId}/output`, {
    method: "POST",
    body: "x",
  });
  assertEquals(await output.text(), "OK");
  await sandbox.stop();
});

Deno.test("'sandbox --mode' keeps what administrators want apart from what agents do", async () => {
  const sandbox = await run({ legacy: false, tokens: false, mode: true });
  const post = async (body: Record<string, unknown>) => {
    const answer = await fetch(`${sandbox.url}/v1/agents/data/a`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    await answer.text();
    return answer.status;
  };
  const shown = async () => {
    const { mode, state } = await (await fetch(`${sandbox.url}/v1/agents/data/a`)).json();
    return [mode, state];
  };
  assertEquals(await post({ mode: "maintenance", state: "test", comment: "new disk" }), 200);
  // Readers of the old form find the mode in the state.
  assertEquals(await shown(), ["maintenance", "maintenance"]);
  for (
    const wrong of [
      { state: "maintenance" },
      { mode: "maintenance", state: "waiting" },
      { mode: "offline", state: "waiting", comment: "x" },
      { mode: "online" },
      { mode: "asleep", state: "waiting" },
    ]
  ) assertEquals([wrong, await post(wrong)], [wrong, 422]);
  // A phase in the old form undoes what an administrator has set.
  assertEquals(await post({ state: "test" }), 200);
  assertEquals(await shown(), ["online", "test"]);
  assertEquals(await post({ state: "offline", comment: "" }), 200);
  assertEquals(await shown(), ["offline", "offline"]);
  await sandbox.stop();
});
