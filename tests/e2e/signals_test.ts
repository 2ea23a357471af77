import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { systemClock } from "../../lib/clock.ts";
import { startProgram as startSource } from "../support/agent_process.ts";
import { startProgram } from "./built_program.ts";
import { Lab } from "../support/lab.ts";
import { listeners } from "../support/listeners.ts";

/** What the runtime prints when it has come to its own handler of the signal. */
const RUNTIME_TRIED = /^(Debugger listening on|Failed to start inspector server)/gm;

Deno.test("SIGUSR1 opens no debugger in an agent that runs a job, and the restart waits for the job", async () => {
  await using lab = await Lab.open({ config: { agent_id: `usr1-${crypto.randomUUID()}` } });
  const { agent_id, execution_basedir } = lab.config;
  const file = await lab.writeConfig({
    test_command: "echo ready; until [ -e ../go ]; do sleep 0.02; done",
  });
  await using agent = startProgram(["-c", file], { env: { NO_COLOR: "1" } });
  const jobId = lab.submit({ test_data: { a: 1 } });
  await lab.until(() => lab.output(jobId, "test").includes("ready"), "the test runs");

  const tried = () => agent.output().matchAll(RUNTIME_TRIED).toArray().length;
  for (let round = 1; round <= 6; round++) {
    const before = tried();
    await lab.eventually(() => {
      // Again and again: the runtime listens only some time after the start, and says nothing of a
      // signal that finds its debugger still open from the one before.
      agent.kill("SIGUSR1");
      return tried() > before;
    }, "the runtime has come to its own handler");
    await lab.eventually(async () => (await listeners(agent.pid)).length === 0, "nothing listens");
  }

  await Deno.writeTextFile(join(execution_basedir, "go"), "");
  assertEquals(await agent.exited, 1, agent.output());
  assertEquals(lab.statuses(jobId), { test: 0 });
  assertEquals(lab.sandbox.agent(agent_id)?.state, "offline");
});

/** How many times faster than the wall's the clock of the agent in the next test runs. */
const FACTOR = 4;

Deno.test("an agent that is stopped while a slow server hands it a job takes the job, and brings it to its end", async () => {
  await using lab = await Lab.open({ config: { agent_id: `slow-${crypto.randomUUID()}` } });
  const cleanup_command = "echo cleaned";
  const file = await lab.writeConfig({ cleanup_command });
  const jobId = lab.submit({ test_data: { a: 1 } });
  const asked = Promise.withResolvers<void>();
  const stopped = Promise.withResolvers<void>();
  lab.sandbox.intercept(async (request, proceed) => {
    if (!request.url.includes("/v1/job?")) return undefined;
    const answer = await proceed();
    asked.resolve();
    await stopped.promise;
    // The server goes on working on the answer, for twelve of the agent's seconds.
    await systemClock.sleep(12_000 / FACTOR);
    return answer;
  });
  await using agent = startSource(["-c", file], { host: { clockFactor: FACTOR } });
  await asked.promise;
  agent.kill("SIGTERM");
  await lab.eventually(() => agent.output().includes("SIGTERM"), "the agent knows");
  stopped.resolve();
  assertEquals(await agent.exited, 0, agent.output());
  assertEquals(lab.sandbox.state(jobId), "complete");
  assertEquals(lab.statuses(jobId), { cleanup: 0 });
});
