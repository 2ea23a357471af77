import { assertEquals, assertStringIncludes } from "@std/assert";
import { dirname, join } from "node:path";
import { Job } from "../../lib/job/job.ts";
import { JobStore } from "../../lib/job/store.ts";
import { recordingLog } from "../support/recording_log.ts";
import { membersOf } from "../support/archive.ts";
import { Lab } from "../support/lab.ts";

const jobs = (lab: Lab) => join(lab.config.results_basedir, "agent-agent-1", "jobs");

Deno.test("a log that cannot be read for a moment is delivered when it can be, by the same agent", async () => {
  await using lab = await Lab.open({
    config: { test_command: "echo hello; while [ ! -e ../go ]; do sleep 0.02; done" },
  });
  let isAway = true;
  lab.sandbox.intercept((request) =>
    isAway && request.url.includes("/log/") ? new Response("busy", { status: 503 }) : undefined
  );
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  const output = join(jobs(lab), jobId, "output");
  await lab.eventually(
    () => Deno.readTextFile(output).then((text) => text.includes("hello"), () => false),
    "something is to be delivered",
  );
  // As a disk that fails for a moment: what is written still arrives, nothing can be read.
  await Deno.rename(output, `${output}.away`);
  await Deno.mkdir(output);
  isAway = false;
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.eventually(
    () => lab.logged("error").some((line) => line.includes(`Cannot deliver job ${jobId}`)),
    "the trouble is told",
  );
  const next = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.output(next, "test"), "hello\n");
  await Deno.remove(output);
  await Deno.rename(`${output}.away`, output);
  await lab.complete(jobId);
  assertEquals(lab.output(jobId, "test"), "hello\n");
  assertEquals(lab.logged("error").length, 1, lab.logged("error").join("\n"));
});

Deno.test("an agent whose outbox is full in an outage starts and stops, also when the oldest job has been given up before", async () => {
  await using lab = await Lab.open({ config: { max_spool: 1000, cleanup_command: "true" } });
  const store = new JobStore(dirname(jobs(lab)), recordingLog());
  for (const [at, isGivenUp] of [true, false].entries()) {
    const jobId = lab.sandbox.submit({ job_queue: "elsewhere" });
    using outbox = await store.accept(new Job({ job_id: jobId, job_queue: "queue-1" }), [], at);
    await outbox.appendLog("output", "test", new TextEncoder().encode("x".repeat(2000)));
    outbox.send({ kind: "outcome", status: {} });
    outbox.append({ t: "finished", at });
    if (isGivenUp) await outbox.giveUp("log");
  }
  let isAway = true;
  lab.sandbox.intercept((request) =>
    isAway && request.url.includes("/v1/result/")
      ? new Response("busy", { status: 503 })
      : undefined
  );
  const agent = lab.start();
  await lab.until(
    () => lab.sandbox.requests.some(({ path }) => path === "/v1/job"),
    "a job is asked for",
  );
  agent.stop();
  assertEquals(await agent.ended, { ended: "stopped" });
  isAway = false;
  lab.start();
  await lab.eventually(() => [...Deno.readDirSync(jobs(lab))].length === 0, "all is delivered");
});

Deno.test("a job that bars the places where its artifacts would wait is delivered from its folder, and stops nothing", async () => {
  await using lab = await Lab.open({
    config: {
      // In the place where an ended job's artifacts wait: both ways to move them are barred.
      test_command: "mkdir artifacts; echo x > artifacts/report; " +
        'echo x > "../../results/agent-agent-1/jobs/$TESTFLINGER_JOB_ID/artifacts"; ' +
        'echo x > "../.artifacts-agent-1-$TESTFLINGER_JOB_ID"',
      cleanup_command: "echo cleaned",
    },
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.statuses(jobId), { test: 0, cleanup: 0 });
  const next = await lab.run({});
  assertEquals(lab.statuses(next), { cleanup: 0 });
  await lab.eventually(() => [...Deno.readDirSync(jobs(lab))].length === 0, "all is delivered");
  assertEquals(await membersOf(lab.sandbox.artifact(jobId)), ["artifacts/", "artifacts/report"]);
  assertEquals(lab.logged("error"), []);
  assertEquals(
    await Deno.stat(join(lab.config.execution_basedir, jobId)).then(() => true, () => false),
    false,
  );
});

Deno.test("a job that makes the agent fail inside is complete all the same, and the next one runs", async () => {
  let fails = 2;
  await using lab = await Lab.open({
    config: { test_command: "echo tested", cleanup_command: "echo cleaned" },
    setRedactor() {
      if (fails-- > 0) throw new Error("a fault of ours");
    },
  });
  const jobId = await lab.run({ test_data: { secrets: { TOKEN: "hunter2" } } });
  assertEquals(lab.statuses(jobId), { setup: 100, cleanup: 0 });
  const next = await lab.run({ test_data: { secrets: { TOKEN: "hunter2" } } });
  assertEquals(lab.statuses(next), { setup: 100, cleanup: 0 });
  const last = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.output(last, "test"), "tested\n");
});

Deno.test("a job whose end fails inside is ended on the server, and nothing of it stays on the host", async () => {
  await using lab = await Lab.open({
    config: { test_command: "echo tested" },
    setRedactor() {
      throw new Error("a fault of ours");
    },
  });
  const store = new JobStore(dirname(jobs(lab)), recordingLog());
  const jobId = lab.sandbox.submit({ job_queue: "elsewhere" });
  {
    using outbox = await store.accept(new Job({ job_id: jobId, job_queue: "queue-1" }), [], 1);
    outbox.append({ t: "phase_started", phase: "test" });
  }
  const folder = join(lab.config.execution_basedir, jobId);
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(join(folder, "testflinger.json"), '{"secret": "hunter2"}');
  lab.start();
  await lab.complete(jobId);
  assertEquals(lab.statuses(jobId), { test: 100 });
  await lab.eventually(() => [...Deno.readDirSync(jobs(lab))].length === 0, "all is delivered");
  assertEquals(lab.inExecutionBasedir(), []);
  assertStringIncludes(lab.logged("error").join("\n"), "The agent failed inside: a fault of ours");
});
