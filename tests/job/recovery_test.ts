import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { JournalFile } from "../../lib/outbox/journal.ts";
import { Lab } from "../support/lab.ts";

function jobsFolder(lab: Lab): string {
  return join(lab.config.results_basedir, "agent-agent-1", "jobs");
}

/** What an agent leaves that was killed while a test ran: its journal, its log, the job. */
async function leaveInterrupted(
  lab: Lab,
  jobId: string,
  more: Record<string, unknown>[] = [],
): Promise<string> {
  const folder = join(jobsFolder(lab), jobId);
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(
    join(folder, "job.json"),
    JSON.stringify({ job_id: jobId, job_queue: "queue-1", test_data: { a: 1 } }),
  );
  await Deno.writeTextFile(join(folder, "output"), "printed before\n");
  const { file } = JournalFile.open(join(folder, "record"));
  for (
    const entry of [
      {
        t: "accepted",
        at: 1,
        jobId,
        queue: "queue-1",
        rerun: false,
      },
      { t: "phase_started", phase: "test" },
      { t: "region", log: "output", phase: "test", from: 0 },
      ...more,
    ]
  ) file.append(entry);
  file.close();
  return folder;
}

/** A job that the server takes for running. */
function running(lab: Lab): string {
  return lab.sandbox.submit({ job_queue: "elsewhere" });
}

Deno.test("a job of an agent that was killed is brought to its end by the next one", async () => {
  await using lab = await Lab.open({ config: { cleanup_command: "echo cleaned" } });
  const jobId = running(lab);
  await leaveInterrupted(lab, jobId);
  lab.start();
  await lab.complete(jobId);
  assertEquals(
    lab.sandbox.log(jobId, "output", "test"),
    "printed before\nThe agent was interrupted during test\n",
  );
  assertEquals(lab.output(jobId, "cleanup"), "cleaned\n");
  assertEquals(lab.statuses(jobId), { test: 100, cleanup: 0 });
});

Deno.test("a phase that was announced and does not begin says in its log why", async () => {
  await using lab = await Lab.open({ config: { test_command: "echo never" } });
  const jobId = running(lab);
  const folder = await leaveInterrupted(lab, jobId);
  await Deno.remove(join(folder, "record"));
  const { file } = JournalFile.open(join(folder, "record"));
  for (
    const entry of [
      { t: "accepted", at: 1, jobId, queue: "queue-1", rerun: false },
      { t: "passed", milestone: "begun" },
      { t: "passed", milestone: "prepared" },
      ...["setup", "provision", "firmware_update"].map((phase) => ({ t: "phase_skipped", phase })),
      { t: "phase_announced", phase: "test" },
      { t: "region", log: "output", phase: "test", from: 0 },
      { t: "cancelled" },
    ]
  ) file.append(entry);
  file.close();
  lab.start();
  await lab.complete(jobId);
  assertEquals(
    lab.sandbox.log(jobId, "output", "test"),
    "printed before\nJob cancellation was requested, exiting.\n",
  );
});

for (
  const [when, answersTo, statuses] of [
    ["while its attachments are fetched", "/attachments", { setup: 100 }],
    ["between two phases", "/status", { setup: 0, provision: 100 }],
  ] as const
) {
  Deno.test(`a job that a reboot interrupts ${when} ends with the phase that was due`, async () => {
    const config = { setup_command: "true", provision_command: "true", test_command: "true" };
    await using lab = await Lab.open({ config });
    const asked = Promise.withResolvers<void>();
    const rebooted = Promise.withResolvers<void>();
    let hangs = true;
    lab.sandbox.intercept(async (request) => {
      const isBefore = answersTo === "/status" && lab.sandbox.state(jobId) !== "setup";
      if (!hangs || isBefore || !request.url.endsWith(answersTo)) return undefined;
      asked.resolve();
      await rebooted.promise;
      return new Response(null, { status: 503 });
    });
    const jobId = lab.submit({
      attachments_status: "complete",
      provision_data: { a: 1 },
      test_data: { a: 1 },
    });
    const agent = lab.start();
    await asked.promise;
    agent.handOver();
    await agent.ended;
    hangs = false;
    rebooted.resolve();
    const next = await Lab.open({
      folder: lab.folder,
      served: lab.served,
      bootId: "another boot",
      config,
    });
    const other = next.start();
    await lab.complete(jobId);
    other.stop();
    await other.ended;
    assertEquals(lab.statuses(jobId), statuses);
    const [phase = ""] = Object.keys(statuses).slice(-1);
    assertStringIncludes(
      lab.sandbox.log(jobId, "output"),
      `The agent was interrupted during ${phase}\n`,
    );
  });
}

Deno.test("a damaged journal is put aside for a person to look at, and its job is ended all the same", async () => {
  await using lab = await Lab.open({ config: { cleanup_command: "true" } });
  const jobId = running(lab);
  const folder = await leaveInterrupted(lab, jobId);
  const journal = join(folder, "record");
  const text = await Deno.readTextFile(journal);
  await Deno.writeTextFile(journal, text.replace('"phase_started"', '"phase_startled"'));
  lab.start();
  await lab.complete(jobId);
  assertStringIncludes(lab.logged("error").join("\n"), `The journal of job ${jobId} is damaged`);
  const aside = [...Deno.readDirSync(join(lab.config.results_basedir, "agent-agent-1", "damaged"))];
  assertEquals(aside.length, 1);
  await lab.run({});
});

Deno.test("rubbish among the journals is put aside and named, and the agent goes on", async () => {
  await using lab = await Lab.open({ config: { setup_command: "true" } });
  await Deno.mkdir(join(jobsFolder(lab), "not-a-job"), { recursive: true });
  await Deno.mkdir(join(jobsFolder(lab), crypto.randomUUID(), "record"), { recursive: true });
  lab.start();
  await lab.run({});
  assertEquals(lab.logged("error").filter((line) => line.includes("is moved to")).length, 2);
});

Deno.test("a journal that holds nothing but rubbish still ends the job that its folder names", async () => {
  await using lab = await Lab.open({ config: { cleanup_command: "true" } });
  const jobId = running(lab);
  const folder = join(jobsFolder(lab), jobId);
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeFile(join(folder, "record"), crypto.getRandomValues(new Uint8Array(500)));
  lab.start();
  await lab.complete(jobId);
  // Nobody knows what it had come to: it has not passed.
  assertEquals(lab.statuses(jobId), { setup: 100, cleanup: 0 });
});

Deno.test("a job id that is handed out again runs again, behind what is left of the first time", async () => {
  await using lab = await Lab.open({
    config: { setup_command: "echo again", cleanup_command: "true" },
  });
  const jobId = crypto.randomUUID();
  await leaveInterrupted(lab, jobId, [
    { t: "fragment", log: "output", number: 4, phase: "test", from: 0, to: 15 },
  ]);
  lab.sandbox.submit({ job_id: jobId, job_queue: "queue-1" });
  // Nothing of the first time can be delivered before the job is handed out again.
  const undo = lab.sandbox.intercept((request) =>
    request.method === "POST" && request.url.includes("/v1/result/")
      ? new Response("busy", { status: 503 })
      : undefined
  );
  lab.start();
  await lab.eventually(
    () => [...Deno.readDirSync(jobsFolder(lab))].length === 2,
    "both runs are on disk",
  );
  undo();
  await lab.until(() => lab.output(jobId, "setup") === "again\n", "it ran again");
  const numbers = lab.sandbox.fragments(jobId, "output").map((f) => f.fragment_number);
  assertEquals(numbers, [...numbers].sort((a, b) => a - b));
  assertStringIncludes(lab.sandbox.log(jobId, "output", "test"), "printed before\n");
});

/** What the log of a setup is that ran so often. */
function setupLog(printed: string, runs: number): string {
  const frame = "*".repeat("* Starting testflinger setup phase on agent-1 *".length);
  return `${frame}\n* Starting testflinger setup phase on agent-1 *\n${frame}\n${printed}`
    .repeat(runs);
}

Deno.test("a job that is handed out again after it was delivered has its log behind the first one, also after a restart", async () => {
  await using lab = await Lab.open({
    config: { setup_command: "echo one; sleep 0.1; echo two; sleep 0.1; echo three" },
  });
  const looks = () =>
    lab.sandbox.requests.filter(({ method, path }) =>
      method === "GET" && path === `/v1/result/${jobId}`
    ).length;
  const jobId = await lab.run({});
  assertEquals(looks(), 0);
  for (let runs = 2; runs <= 3; runs++) {
    await lab.eventually(
      () => [...Deno.readDirSync(jobsFolder(lab))].length === 0,
      "nothing is left of the run before",
    );
    await lab.stop();
    await lab.run({ job_id: jobId });
    assertEquals(looks(), runs - 1);
    assertEquals(
      lab.sandbox.log(jobId, "output", "setup"),
      setupLog("one\ntwo\nthree\n", runs),
    );
    const numbers = lab.sandbox.fragments(jobId, "output").map((f) => f.fragment_number);
    assertEquals(numbers, [...new Set(numbers)].sort((a, b) => a - b));
  }
});

Deno.test("a piece of a job that is handed out again is not taken for one of the first run", async () => {
  await using lab = await Lab.open({ config: { setup_command: "echo one" } });
  const jobId = await lab.run({});
  await lab.eventually(
    () => [...Deno.readDirSync(jobsFolder(lab))].length === 0,
    "nothing is left of the first run",
  );
  let failures = 1;
  lab.sandbox.intercept((request) =>
    request.url.endsWith("/log/output") && failures-- > 0
      ? new Response("busy", { status: 503 })
      : undefined
  );
  await lab.run({ job_id: jobId });
  assertEquals(lab.sandbox.log(jobId, "output", "setup"), setupLog("one\n", 2));
});

Deno.test("results that the established agent could not deliver are taken over", async () => {
  await using lab = await Lab.open();
  const jobId = running(lab);
  const folder = join(lab.config.results_basedir, jobId);
  await Deno.mkdir(join(folder, "artifacts"), { recursive: true });
  await Deno.writeTextFile(join(folder, "artifacts", "report"), "x");
  await Deno.writeTextFile(join(folder, "testflinger.json"), JSON.stringify({ job_id: jobId }));
  await Deno.writeTextFile(
    join(folder, "testflinger-outcome.json"),
    JSON.stringify({ status: { setup: 0, test: 2 } }),
  );
  lab.start();
  await lab.complete(jobId);
  assertEquals(lab.statuses(jobId), { setup: 0, test: 2 });
  assertEquals(lab.sandbox.artifact(jobId) !== undefined, true);
  await lab.eventually(
    () => Deno.stat(folder).then(() => false, () => true),
    "the folder is gone",
  );
});

Deno.test("a leftover with the name of a job is moved aside, never mixed with the job", async () => {
  await using lab = await Lab.open({ config: { setup_command: "ls -A" } });
  const jobId = crypto.randomUUID();
  const folder = join(lab.config.execution_basedir, jobId);
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(join(folder, "old"), "");
  await lab.run({ job_id: jobId });
  assertEquals(lab.output(jobId, "setup").split("\n").includes("old"), false);
});
