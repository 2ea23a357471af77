import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { chooseAgents } from "../../lib/cli/agents/choose.ts";
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

Deno.test("a negative number is the value of its option, and is refused as that", async () => {
  for (const option of [["-n", "-1"], ["--lines", "-1"], ["--lines=-1"]]) {
    const { status, stderr } = await run("logs", ...option);
    assertEquals([status, stderr], [2, "--lines must be a whole number, 0 or more: it is '-1'\n"]);
  }
  const { status, stderr } = await run("offline", "--timeout", "-1");
  assertEquals([status, stderr], [2, "--timeout must be a whole number of seconds: it is '-1'\n"]);
  assertStringIncludes((await run("logs", "-1")).stderr, "unknown option -1");
});

Deno.test("sandbox blames the option that is wrong: an address that is none, or a port that is taken", async () => {
  const address = await run("sandbox", "--host", "999.1.1.1", "--port", "0");
  assertEquals(address.status, 1);
  assertMatch(
    address.stderr,
    /^The sandbox cannot listen on port 0 of 999\.1\.1\.1: .*; choose another --host, an/,
  );
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = taken.addr;
  const { status, stderr } = await run("sandbox", "--port", `${port}`);
  assertEquals(status, 1);
  assertMatch(
    stderr,
    /^The sandbox cannot listen on port \d+ of 127\.0\.0\.1: .*; choose another --port\n$/,
  );
});

Deno.test("logs of several agents advises what it takes: the name of one", async () => {
  const folder = await Deno.makeTempDir();
  const stdout = () => {};
  let stderr = "";
  try {
    for (const id of ["a", "b"]) {
      await Deno.writeTextFile(`${folder}/${id}.conf`, AGENT.replace("rpi4-1", id));
    }
    const line = { values: {}, lists: {}, switches: new Set<string>(), positionals: [] };
    const io = {
      stdout,
      stderr: (text: string) => void (stderr += text),
      signals: { listen() {} },
    };
    const places = { configFolder: folder, sharedFolder: folder };
    await chooseAgents(line, io, { manyByDefault: false, isForOne: true, places });
    assertEquals(stderr, "Which agent? Name one of them: a, b\n");
    stderr = "";
    await chooseAgents(line, io, { manyByDefault: false, places });
    assertEquals(stderr, "Which agent? Name one or more of them, or --all: a, b\n");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
