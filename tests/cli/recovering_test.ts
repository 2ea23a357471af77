import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { serveSandbox } from "../../lib/sandbox/serve.ts";
import { startProgram } from "../support/agent_process.ts";
import { run } from "./support.ts";

const PATIENCE_MS = 60_000;

Deno.test("status, offline and restart say that an agent recovers a job that a reboot has interrupted", async () => {
  const folder = await Deno.makeTempDir({ prefix: "op-" });
  const id = `op-${crypto.randomUUID().slice(0, 8)}`;
  const file = `${folder}/a.conf`;
  const served = serveSandbox();
  await Deno.writeTextFile(
    file,
    `agent_id: ${id}\nserver_address: ${served.url}\njob_queues: [q]\npolling_interval: 0.2\n` +
      `min_free_space: 0\nexecution_basedir: ${folder}/run\nlogging_basedir: ${folder}/logs\n` +
      `results_basedir: ${folder}/results\ntest_command: echo begun; sleep 600\n` +
      `cleanup_command: until [ -e ${folder}/go -o ! -e ${folder} ]; do sleep 0.1; done\n`,
  );
  const args = ["-c", file, "--token-file", `${folder}/none`];
  const until = async (wanted: string) => {
    const limit = AbortSignal.timeout(PATIENCE_MS);
    while (true) {
      const { stdout } = await run("status", "-c", file);
      if (stdout.includes(wanted)) return stdout;
      if (limit.aborted) throw new Error(`Gave up waiting for '${wanted}':\n${stdout}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  const jobId = served.sandbox.submit({ job_queue: "q", test_data: { test_cmds: "x" } });
  try {
    {
      await using killed = startProgram(args, { host: { bootId: "before a reboot" } });
      await until("Phase          test for ");
      killed.kill("SIGKILL");
      await killed.exited;
    }
    await using agent = startProgram(args, { host: { bootId: "after it" } });
    const status = await until(`${id}  recovering for `);
    assertMatch(
      status,
      new RegExp(
        `\n {2}Recovering +job ${jobId}: an earlier process left it, and it is ended`,
      ),
    );
    const { stdout } = await run("status", "--format", "json", "-c", file);
    const [{ state, status: json }] = JSON.parse(stdout);
    assertEquals([state, json.ready, json.recovering.job_id], ["running", false, jobId]);
    assertMatch(json.not_ready_because, /of an earlier process is ended first$/);
    const restart = await run("restart", "-c", file);
    assertStringIncludes(
      restart.stdout,
      `restarts when this is over: job ${jobId} of an earlier process, which is ended`,
    );
    const late = await run("restart", "--timeout", "0", "-c", file);
    assertEquals(late.status, 3);
    await Deno.writeTextFile(`${folder}/go`, "");
    assertEquals(await agent.exited, 1);
    assertEquals(served.sandbox.state(jobId), "complete");
  } finally {
    await served.close();
    for (
      const name of [`testflinger-agent-${id}.lock`, `TESTFLINGER-DEVICE-RESTART-${id}`]
    ) {
      await Deno.remove(`/tmp/${name}`).catch(() => {});
    }
    await Deno.remove(folder, { recursive: true });
  }
});
