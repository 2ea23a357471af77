import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { startProgram } from "./built_program.ts";
import { Lab } from "../support/lab.ts";
import { isRunning } from "../support/processes.ts";

const FOREVER = "sleep 1000";

/** The configuration of a lab as a file. */
async function configFile(lab: Lab, more: Record<string, unknown> = {}): Promise<string> {
  return await lab.writeConfig({ polling_interval: 0.2, cancel_grace: 1, ...more });
}

/** Ids of agents whose markers and locks lie in the real /tmp must be nobody else's. */
function uniqueLab(): Promise<Lab> {
  return Lab.open({ config: { agent_id: `e2e-${crypto.randomUUID().slice(0, 8)}` } });
}

Deno.test("an agent runs a job as a process and exits with 0 after SIGTERM", async () => {
  await using lab = await uniqueLab();
  const file = await configFile(lab, { test_command: "echo hello" });
  await using agent = startProgram(["-c", file]);
  const jobId = lab.submit({ test_data: { a: 1 } });
  await lab.complete(jobId);
  agent.kill("SIGTERM");
  assertEquals(await agent.exited, 0, agent.output());
  assertEquals(lab.sandbox.agent(lab.config.agent_id)?.comment, "Agent stopped");
});

Deno.test("SIGTERM ends the running phase and its whole group, cleans up, delivers, and exits with 0", async () => {
  await using lab = await uniqueLab();
  const file = await configFile(lab, {
    test_command: `${FOREVER} & echo $! > ../child; echo ready; wait`,
    cleanup_command: "echo cleaned",
  });
  await using agent = startProgram(["-c", file]);
  const jobId = lab.submit({ test_data: { a: 1 } });
  await lab.until(() => lab.output(jobId, "test").includes("ready"), "the test runs");
  const child = Number(await Deno.readTextFile(join(lab.config.execution_basedir, "child")));
  agent.kill("SIGTERM");
  assertEquals(await agent.exited, 0, agent.output());
  assertEquals(await isRunning(child), false);
  assertEquals(lab.sandbox.state(jobId), "complete");
  assertEquals(lab.output(jobId, "cleanup"), "cleaned\n");
  assertStringIncludes(lab.output(jobId, "test"), "The agent was stopped, ending the phase.");
});

Deno.test("SIGUSR1 ends an idle agent with exit status 1, so that its supervisor starts it again", async () => {
  await using lab = await uniqueLab();
  const file = await configFile(lab);
  await using agent = startProgram(["-c", file]);
  await lab.until(() => lab.sandbox.agent(lab.config.agent_id)?.state === "waiting", "waiting");
  agent.kill("SIGUSR1");
  assertEquals(await agent.exited, 1, agent.output());
  assertEquals(lab.sandbox.agent(lab.config.agent_id)?.state, "offline");
});

Deno.test("SIGHUP hands over: the agent ends with status 1, its job goes on, and the next one takes it up", async () => {
  await using lab = await uniqueLab();
  const go = join(lab.folder, "go");
  const file = await configFile(lab, {
    test_command: `echo one; until [ -e ${go} ]; do sleep 0.02; done; echo two; exit 7`,
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  await using first = startProgram(["-c", file]);
  await lab.until(() => lab.output(jobId, "test") === "one\n", "the test runs");
  first.kill("SIGHUP");
  assertEquals(await first.exited, 1, first.output());
  assertEquals(lab.sandbox.agent(lab.config.agent_id)?.state, "test");
  await using second = startProgram(["-c", file]);
  await lab.eventually(() => second.output().includes("is taken over where it is"), "taken up");
  await Deno.writeTextFile(go, "");
  await lab.complete(jobId);
  assertEquals(lab.output(jobId, "test"), "one\ntwo\n");
  assertEquals(lab.statuses(jobId).test, 7);
});

Deno.test("SIGHUP ends an idle agent with status 1, and leaves its record as it is", async () => {
  await using lab = await uniqueLab();
  const file = await configFile(lab);
  await using agent = startProgram(["-c", file]);
  await lab.until(() => lab.sandbox.agent(lab.config.agent_id)?.state === "waiting", "waiting");
  agent.kill("SIGHUP");
  assertEquals(await agent.exited, 1, agent.output());
  assertEquals(lab.sandbox.agent(lab.config.agent_id)?.state, "waiting");
});

Deno.test("a log on standard error that is not read stops neither jobs nor the agent's end", async () => {
  await using lab = await uniqueLab();
  const file = await configFile(lab, { test_command: "echo hello" });
  // Standard error is a pipe that is full already and has no reader but itself.
  const full = 'mkfifo "$1" && exec 3<>"$1" && head -c 65536 /dev/zero >&3 && shift && ' +
    'exec "$@" 2>&3 3>&-';
  await using agent = startProgram(["-c", file], {
    through: ["sh", "-c", full, "sh", join(lab.folder, "pipe")],
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  await lab.complete(jobId);
  assertEquals(lab.output(jobId, "test"), "hello\n");
  agent.kill("SIGTERM");
  assertEquals(await agent.exited, 0);
  const { logging_basedir } = lab.config;
  assertStringIncludes(
    await Deno.readTextFile(join(logging_basedir, "testflinger-agent.log")),
    "The agent ends",
  );
});

Deno.test("--restart-status is the status of a restart that was asked for, and of nothing else", async () => {
  await using lab = await uniqueLab();
  const file = await configFile(lab);
  await using agent = startProgram(["-c", file, "--restart-status", "75"]);
  await lab.until(() => lab.sandbox.agent(lab.config.agent_id)?.state === "waiting", "waiting");
  await using second = startProgram(["-c", file, "--restart-status", "75"]);
  assertEquals(await second.exited, 1, second.output());
  agent.kill("SIGUSR1");
  assertEquals(await agent.exited, 75, agent.output());
});

Deno.test("a job that was running when the agent was killed goes on, and the next one takes it up", async () => {
  await using lab = await uniqueLab();
  const go = join(lab.folder, "go");
  const file = await configFile(lab, {
    test_command: `echo $$ > ../child; echo one; until [ -e ${go} ]; do sleep 0.02; done; echo two`,
    cleanup_command: "echo cleaned",
  });
  await using first = startProgram(["-c", file]);
  const jobId = lab.submit({ test_data: { a: 1 } });
  await lab.until(() => lab.output(jobId, "test").includes("one"), "the test runs");
  const child = Number(await Deno.readTextFile(join(lab.config.execution_basedir, "child")));
  first.kill("SIGKILL");
  await first.exited;
  assertEquals(await isRunning(child), true);
  await Deno.writeTextFile(go, "");
  await using second = startProgram(["-c", file]);
  await lab.complete(jobId);
  assertEquals(lab.output(jobId, "test"), "one\ntwo\n");
  assertEquals(lab.output(jobId, "cleanup"), "cleaned\n");
  assertEquals(lab.statuses(jobId), { test: 0, cleanup: 0 });
  second.kill("SIGTERM");
  assertEquals(await second.exited, 0, second.output());
});

Deno.test("a wrong configuration is exit status 2, with every mistake and its place", async () => {
  await using lab = await uniqueLab();
  const file = join(lab.folder, "wrong.conf");
  await Deno.writeTextFile(file, "agent_id: a\nserver_adress: x\njob_queues: q\n");
  await using agent = startProgram(["-c", file]);
  assertEquals(await agent.exited, 2);
  assertStringIncludes(agent.output(), `${file}:2:1: server_adress: `);
  assertStringIncludes(agent.output(), "did you mean 'server_address'?");
  assertStringIncludes(agent.output(), `${file}:3:13: job_queues: `);
});

Deno.test("a folder that cannot be made is named, and the exit status is 1", async () => {
  await using lab = await uniqueLab();
  await Deno.writeTextFile(join(lab.folder, "occupied"), "");
  const file = await configFile(lab, { execution_basedir: join(lab.folder, "occupied", "run") });
  await using agent = startProgram(["-c", file]);
  assertEquals(await agent.exited, 1);
  assertStringIncludes(
    agent.output(),
    `Cannot make the folder ${join(lab.folder, "occupied", "run")}`,
  );
});

Deno.test("an unknown command and an unknown option get a suggestion and exit status 2", async () => {
  await using command = startProgram(["chekc"]);
  assertEquals(await command.exited, 2);
  assertStringIncludes(command.output(), "Did you mean 'check'?");
  await using option = startProgram(["--confg", "x"]);
  assertEquals(await option.exited, 2);
  assertStringIncludes(option.output(), "did you mean --config?");
});

Deno.test({
  name: "a log folder that belongs to another user is named, and nothing is written into it",
  ignore: Deno.uid() !== 0,
  async fn() {
    await using lab = await uniqueLab();
    await Deno.chmod(lab.folder, 0o1777);
    const logging_basedir = join(lab.folder, "anothers");
    await Deno.mkdir(logging_basedir);
    await Deno.chown(logging_basedir, 65534, 65534);
    await using agent = startProgram(["-c", await configFile(lab, { logging_basedir })]);
    assertEquals(await agent.exited, 1, agent.output());
    assertStringIncludes(agent.output(), `${logging_basedir} belongs to user 65534`);
    assertEquals([...Deno.readDirSync(logging_basedir)], []);
  },
});

Deno.test({
  name: "an agent that runs as root says that its jobs do, too",
  ignore: Deno.uid() !== 0,
  async fn() {
    await using lab = await uniqueLab();
    await using agent = startProgram(["-c", await configFile(lab)]);
    await lab.until(() => lab.sandbox.agent(lab.config.agent_id)?.state === "waiting", "waiting");
    assertStringIncludes(agent.output(), " WARNING The agent runs as root, and so does everything");
    agent.kill("SIGTERM");
    assertEquals(await agent.exited, 0);
  },
});
