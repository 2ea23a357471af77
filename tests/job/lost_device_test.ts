/** A device that cannot be brought back: whatever becomes of the agent's process, it takes no more jobs with it. */
import { assertEquals } from "@std/assert";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { JournalFile } from "../../lib/outbox/journal.ts";
import { Lab, type RunningAgent } from "../support/lab.ts";

/** The state and the comment that the server shows. */
function shown(lab: Lab): [string | undefined, string | undefined] {
  const { state, comment } = lab.sandbox.agent("agent-1") ?? {};
  return [state, comment];
}

/** What it shows when a job has lost the device. */
function lostIn(jobId: string): [string, string] {
  return [
    "offline",
    `Set to offline by agent. Recovery failed during job '${jobId}' execution.`,
  ];
}

/** Checks that the agent, which runs, is offline on account of `lost`, and takes no job. */
async function assertOffline(lab: Lab, lost: string): Promise<void> {
  const next = lab.submit({ test_data: { a: 1 } });
  const over = `Job ${lost} ended`;
  await lab.eventually(() => lab.logged("info").includes(over), over);
  const rounds = lab.sandbox.requestCount;
  await lab.until(() => lab.sandbox.requestCount > rounds + 6, "some rounds");
  await lab.until(() => shown(lab)[0] === "offline", "offline");
  assertEquals([shown(lab), lab.sandbox.state(next)], [lostIn(lost), "waiting"]);
}

const MOMENTS = {
  "finds it": (event: { type: string }) => event.type === "recovery_failed",
  "begins to clean up": (event: { type: string; phase?: string }) =>
    event.type === "phase_began" && event.phase === "cleanup",
  "ends": (event: { type: string }) => event.type === "job_ended",
};
for (const [moment, is] of Object.entries(MOMENTS)) {
  Deno.test(`a device is lost for the next process, too, that takes over as the job ${moment}`, async () => {
    let agent: RunningAgent | undefined;
    await using lab = await Lab.open({
      config: { provision_command: "exit 46", cleanup_command: "true" },
      sink: (event) => {
        if (is(event)) agent?.handOver();
      },
    });
    const jobId = lab.submit({ provision_data: { url: "x" } });
    agent = lab.start();
    assertEquals(await agent.ended, { ended: "handed over" });
    agent = undefined;
    lab.start();
    await lab.complete(jobId);
    await assertOffline(lab, jobId);
    assertEquals(lab.logged("error").filter((line) => line.includes("Recovery failed")).length, 1);
  });
}

for (const entry of ["phase_ended", "finished"]) {
  Deno.test(`a device is lost for the agent after one that was killed as the journal said ${entry}`, async () => {
    let results = "";
    /** What a kill at that moment leaves. */
    const left = () => `${results}-left`;
    let jobId = "";
    let isOver = false;
    await using lab = await Lab.open({
      config: { provision_command: "exit 46", cleanup_command: "true" },
      onJournal(moment) {
        if (moment === "before" || isOver) return;
        const journal = join(results, "agent-agent-1", "jobs", jobId, "record");
        isOver = Deno.readTextFileSync(journal).includes(`"${entry}"`);
        if (isOver) cpSync(results, left(), { recursive: true });
      },
    });
    results = lab.config.results_basedir;
    jobId = lab.submit({ provision_data: { url: "x" } });
    lab.start();
    await lab.until(() => shown(lab)[0] === "offline", "offline");
    await lab.stop();
    await Deno.remove(results, { recursive: true });
    await Deno.rename(left(), results);
    lab.sandbox.setAgent("agent-1", { state: "provision", comment: "" });
    lab.start();
    await lab.complete(jobId);
    await assertOffline(lab, jobId);
  });
}

Deno.test("a device is lost of which only the journal of an earlier version says so", async () => {
  await using lab = await Lab.open({ config: { cleanup_command: "true" } });
  const jobId = lab.sandbox.submit({ job_queue: "elsewhere" });
  const folder = join(lab.config.results_basedir, "agent-agent-1", "jobs", jobId);
  await Deno.mkdir(folder, { recursive: true });
  const job = { job_id: jobId, job_queue: "queue-1", provision_data: { a: 1 } };
  await Deno.writeTextFile(join(folder, "job.json"), JSON.stringify(job));
  const { file } = JournalFile.open(join(folder, "record"));
  const entries = [
    { t: "accepted", at: 1, jobId, queue: "queue-1", rerun: false },
    { t: "phase_started", phase: "provision" },
    { t: "phase_ended", phase: "provision", status: 46 },
    { t: "decided", reason: "recovery_fail" },
  ];
  for (const entry of entries) file.append(entry);
  file.close();
  lab.start();
  await lab.complete(jobId);
  await assertOffline(lab, jobId);
});

Deno.test("an agent that is set online on its host while the job that lost the device cleans up takes the next one", async () => {
  await using lab = await Lab.open({
    config: {
      provision_command: "exit 46",
      cleanup_command: "while [ ! -e ../go ]; do sleep 0.02; done",
      test_command: "true",
    },
  });
  const jobId = lab.submit({ provision_data: { url: "x" } });
  lab.start();
  await lab.until(() => shown(lab)[0] === "cleanup", "state cleanup");
  const [, comment] = lostIn(jobId);
  assertEquals(shown(lab)[1], `Going offline after this job: ${comment}`);
  await Deno.writeTextFile(join(lab.folder, "TESTFLINGER-DEVICE-ONLINE-agent-1"), "");
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.complete(jobId);
  await lab.run({ test_data: { a: 1 } });
});

Deno.test("a job that is handed out again may lose the device again", async () => {
  await using lab = await Lab.open({ config: { provision_command: "exit 46" } });
  const jobId = await lab.run({ provision_data: { url: "x" } });
  await lab.until(() => shown(lab)[0] === "offline", "offline");
  let isHandedOut = false;
  lab.sandbox.intercept((request) => {
    if (isHandedOut || new URL(request.url).pathname !== "/v1/job") return undefined;
    isHandedOut = true;
    return Response.json({ ...lab.sandbox.job(jobId) });
  });
  lab.sandbox.setAgent("agent-1", { state: "waiting", comment: "" });
  await lab.until(() => isHandedOut, "handed out again");
  await lab.complete(jobId);
  await assertOffline(lab, jobId);
});

Deno.test("a word of an administrator from before does not bring back a device that was lost in an outage", async () => {
  await using lab = await Lab.open({ config: { provision_command: "exit 46" } });
  lab.start();
  await lab.until(() => shown(lab)[0] === "waiting", "waiting");
  lab.sandbox.setAgent("agent-1", { state: "waiting", comment: "mended" });
  let isOut = true;
  lab.sandbox.intercept((request) =>
    isOut && request.method === "POST" && request.url.includes("/v1/agents/data/")
      ? new Response("busy", { status: 503 })
      : undefined
  );
  const jobId = await lab.run({ provision_data: { url: "x" } });
  const rounds = lab.sandbox.requestCount;
  await lab.until(() => lab.sandbox.requestCount > rounds + 6, "some rounds");
  isOut = false;
  await assertOffline(lab, jobId);
});
