/** What a job says is data: it is no path, no command, and no address that the agent would call. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { systemClock } from "../../lib/clock.ts";
import { readRelease } from "../../lib/job/os_release.ts";
import { Lab } from "../support/lab.ts";

Deno.test("a job's webhook is told to the server, and never called by the agent", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  let calls = 0;
  (async () => {
    for await (const connection of listener) {
      calls++;
      connection.close();
    }
  })();
  const webhook = `http://127.0.0.1:${listener.addr.port}/hook`;
  await using lab = await Lab.open({ config: { test_command: "true" } });
  const told: unknown[] = [];
  lab.sandbox.intercept(async (request) => {
    if (request.url.endsWith("/events")) {
      told.push((await request.clone().json()).job_status_webhook);
    }
    return undefined;
  });
  const jobId = await lab.run({ job_status_webhook: webhook, test_data: { a: 1 } });
  await lab.until(() => lab.events(jobId).includes("job_end"), "all events");
  assert(told.length > 0);
  assertEquals(new Set(told), new Set([webhook]));
  assertEquals(calls, 0);
});

for (
  const jobId of [
    "../../../etc",
    "..",
    "/tmp/x",
    "00000000-0000-0000-0000-000000000000/../x",
    "00000000-0000-0000-0000-000000000000\n",
    "$(id)",
  ]
) {
  Deno.test(`a job with the id ${JSON.stringify(jobId)} is not run, and makes no folder`, async () => {
    await using lab = await Lab.open({ config: { test_command: "touch ../../ran" } });
    let handedOut = 0;
    lab.sandbox.intercept((request) => {
      if (!request.url.includes("/v1/job?") || handedOut > 0) return undefined;
      handedOut++;
      return Response.json({ job_id: jobId, job_queue: "queue-1", test_data: { a: 1 } });
    });
    lab.start();
    await lab.eventually(() => lab.logged("error").length > 0, "the agent complains");
    assertEquals(lab.inExecutionBasedir(), []);
    assertEquals(await Deno.stat(join(lab.folder, "ran")).catch(() => "no"), "no");
    // And the agent takes the next one.
    await lab.run({ test_data: { a: 1 } });
  });
}

Deno.test("no text of a job becomes a part of a command", async () => {
  await using lab = await Lab.open({ config: { provision_command: "true", test_command: "true" } });
  const trap = `"; touch ${lab.folder}/trapped; '$(touch ${lab.folder}/trapped)\``;
  const jobId = await lab.run({
    name: trap,
    parent_job_id: trap,
    global_timeout: trap,
    output_timeout: trap,
    reserve_data: { ssh_keys: [trap] },
    provision_data: { url: trap, [trap]: trap },
    test_data: { test_cmds: trap, test_username: trap, secrets: { KEY: trap, [trap]: trap } },
  });
  assertEquals(lab.statuses(jobId), { provision: 0, test: 0 });
  assertEquals(await Deno.stat(join(lab.folder, "trapped")).catch(() => "no"), "no");
});

Deno.test("a device's address that would be an option or a command is not asked for its release", async () => {
  const folder = await Deno.makeTempDir();
  const ran = join(folder, "ran");
  try {
    for (const address of [`-oProxyCommand=touch ${ran}`, `x; touch ${ran}`, "", "a b", "$(id)"]) {
      const options = {
        username: "ubuntu",
        env: Deno.env.toObject(),
        clock: systemClock,
        signal: AbortSignal.timeout(5000),
      };
      assertEquals(await readRelease(address, options), "unknown");
      assertEquals(
        await readRelease("127.0.0.1", { ...options, username: address || "-x" }),
        "unknown",
      );
    }
    assertEquals(await Deno.stat(ran).catch(() => "no"), "no");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("testflinger.json has the job as the server gave it, numbers that are larger than ours included", async () => {
  await using lab = await Lab.open({ config: { setup_command: "cat testflinger.json" } });
  lab.sandbox.intercept(async (request, proceed) => {
    if (new URL(request.url).pathname !== "/v1/job" || request.method !== "GET") return undefined;
    const answer = await proceed();
    if (answer.status !== 200) return answer;
    const text = (await answer.text()).replace('"BIG"', "12345678901234567890").replace(
      '"FLOAT"',
      "1.0",
    );
    return new Response(text, { headers: { "content-type": "application/json" } });
  });
  const jobId = await lab.run({ provision_data: { serial: "BIG", version: "FLOAT" } });
  assertStringIncludes(
    lab.output(jobId, "setup"),
    '"provision_data":{"serial":12345678901234567890,"version":1.0}',
  );
});
