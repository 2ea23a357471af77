import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { startProgram } from "../support/agent_process.ts";
import { AGENT, run, withFiles } from "./support.ts";

Deno.test("--metrics-port takes a port and nothing else, under both spellings", () =>
  withFiles({ "a.conf": AGENT }, async (folder) => {
    for (const option of ["--metrics-port", "--metrics_port", "-p"]) {
      const { status, stderr } = await run("-c", `${folder}/a.conf`, option, "web");
      assertEquals([status, stderr], [2, "--metrics-port must be a number from 1 to 65535: web\n"]);
    }
  }));

Deno.test("--restart-status takes an exit status and nothing else", () =>
  withFiles({ "a.conf": AGENT }, async (folder) => {
    for (const wrong of ["none", "0", "256", "7.5"]) {
      const { status, stderr } = await run("-c", `${folder}/a.conf`, "--restart-status", wrong);
      assertEquals(
        [status, stderr],
        [2, `--restart-status must be a number from 1 to 255: ${wrong}\n`],
      );
    }
  }));

Deno.test("sandbox listens where --host and --port say, and refuses what is no port", async () => {
  const { status, stderr } = await run("sandbox", "--port", "many");
  assertEquals([status, stderr], [2, "--port must be a number from 0 to 65535: many\n"]);
  await using sandbox = startProgram(["sandbox", "--host", "127.0.0.1", "--port", "0"]);
  const limit = AbortSignal.timeout(30_000);
  while (!/listens at http:\/\/127\.0\.0\.1:\d+ /.test(sandbox.output())) {
    if (limit.aborted) throw new Error(sandbox.output());
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const [, url] = /listens at (\S+)/.exec(sandbox.output()) ?? [];
  assertMatch(await (await fetch(`${url}/v1/`)).text(), /^Testflinger Server/);
  sandbox.kill("SIGTERM");
  assertEquals(await sandbox.exited, 0);
});

Deno.test("version --licenses of a checkout says where the licences are", async () => {
  const { status, stdout } = await run("version", "--licenses");
  assertEquals(status, 0);
  assertMatch(stdout, /^testflinger-agent .*\n\nThis is a checkout: /s);
});

Deno.test("try --verbose shows what the agent logs, too", () =>
  withFiles({ "job.yaml": "test_data:\n  test_cmds: echo hello\n" }, async (cwd) => {
    await using trial = startProgram(["try", "--verbose", "job.yaml"], { cwd });
    assertEquals(await trial.exited, 0, trial.output());
    assertStringIncludes(trial.output(), "INFO Phase test begins");
  }));
