import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { maskOf } from "../../lib/process/patterns.ts";
import { startProgram } from "../support/agent_process.ts";
import { Lab } from "../support/lab.ts";

const SECRET = "sesame-open-the-door";

Deno.test("a server that quotes a secret when the job has ended does not bring it into the agent's log", async () => {
  await using lab = await Lab.open({ config: { agent_id: `late-${crypto.randomUUID()}` } });
  const file = await lab.writeConfig({
    polling_interval: 0.2,
    test_command: "mkdir artifacts; echo x > artifacts/file",
  });
  // Delivered last of all, and long after the job has ended: only then the server speaks.
  const jobEnded = () => Deno.readTextFileSync(log).includes(`Job ${jobId} ended`);
  const log = join(lab.config.logging_basedir, "testflinger-agent.log");
  let refused = 0;
  lab.sandbox.intercept(async (request) => {
    if (!request.url.endsWith("/artifact")) return undefined;
    await request.body?.cancel();
    if (!jobEnded()) return new Response("not yet", { status: 503 });
    refused++;
    return Response.json({ message: `no room for ${SECRET}` }, { status: 413 });
  });
  const jobId = lab.submit({ test_data: { secrets: { KEY: SECRET } } });
  await using agent = startProgram(["-c", file]);
  await lab.complete(jobId);
  agent.kill("SIGTERM");
  assertEquals(await agent.exited, 0, agent.output());
  assert(refused > 0);
  const lines = await Deno.readTextFile(log);
  assert(lines.includes(`no room for ${maskOf(SECRET)}`), lines);
  assert(!lines.includes(SECRET) && !agent.output().includes(SECRET), lines);
});
