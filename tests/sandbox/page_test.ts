import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Lab } from "../support/lab.ts";

Deno.test("the sandbox's page shows queues, jobs and agents, and a job's log as text", async () => {
  await using lab = await Lab.open({
    config: { test_command: "echo '<b>bold</b>'; mkdir artifacts; echo x > artifacts/x" },
  });
  const get = async (path: string) => {
    const response = await fetch(`${lab.served.url}${path}`);
    return { status: response.status, text: await response.text() };
  };
  const empty = await get("/");
  assertEquals(empty.status, 200);
  assertStringIncludes(
    empty.text,
    "None yet. Submit one: <code>testflinger-agent submit job.yaml</code>",
  );
  assertStringIncludes(empty.text, "None has come yet.");

  const jobId = await lab.run({ name: "<i>odd</i>", test_data: { test_cmds: "x" } });
  const { text } = await get("/");
  assertStringIncludes(text, `<a href="/jobs/${jobId}">${jobId}</a>`);
  assertStringIncludes(text, "&lt;i&gt;odd&lt;/i&gt;");
  assertStringIncludes(text, "queue-1");
  assertMatch(text, /<td>agent-1<\/td>/);

  const job = await get(`/jobs/${jobId}`);
  assertStringIncludes(job.text, "&lt;b&gt;bold&lt;/b&gt;\n");
  assertStringIncludes(job.text, "<strong>complete</strong>");
  assertMatch(job.text, /<td>test<\/td>\s*<td>0<\/td>/);
  assertStringIncludes(job.text, `href="/v1/result/${jobId}/artifact"`);
  assertEquals((await get(`/jobs/${crypto.randomUUID()}`)).status, 404);
  assertEquals((await get("/jobs/none")).status, 400);
});
