/** What an agent leaves that is killed between two of its writes, or finds after a power cut. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { Job } from "../../lib/job/job.ts";
import { JobStore } from "../../lib/job/store.ts";
import { membersOf } from "../support/archive.ts";
import { Lab } from "../support/lab.ts";
import { recordingLog } from "../support/recording_log.ts";
import { TempFolder } from "../support/temp_folder.ts";

function ownFolder(lab: Lab): string {
  return join(lab.config.results_basedir, "agent-agent-1");
}

/** A job that the server takes for running. */
function running(lab: Lab): string {
  return lab.sandbox.submit({ job_queue: "elsewhere" });
}

function accept(lab: Lab, jobId: string) {
  const store = new JobStore(ownFolder(lab), recordingLog());
  return store.accept(new Job({ job_id: jobId, job_queue: "queue-1" }), [], 0);
}

for (const isSent of [true, false]) {
  const what = isSent ? "sent" : "set aside";
  Deno.test(`artifacts that cannot be moved to the agent's folder outlive an agent that is killed right after they were ${what}`, async () => {
    await using lab = await Lab.open();
    const disk = lab.config.execution_basedir;
    const jobId = running(lab);
    {
      using outbox = await accept(lab, jobId);
      const aside = join(disk, `.artifacts-agent-1-${jobId}`);
      await Deno.mkdir(join(aside, "artifacts"), { recursive: true });
      await Deno.writeTextFile(join(aside, "artifacts", "report"), "precious");
      await Deno.writeTextFile(join(aside, "testflinger.json"), "secret");
      if (isSent) outbox.send({ kind: "artifacts", folder: aside });
    }
    const hasEnded = () => lab.logged("info").some((line) => line.includes(`Job ${jobId} ended`));
    lab.sandbox.intercept((request) =>
      request.url.includes(`/v1/result/${jobId}`) && !hasEnded()
        ? new Response("busy", { status: 503 })
        : undefined
    );
    lab.start();
    await lab.complete(jobId);
    assertEquals(await membersOf(lab.sandbox.artifact(jobId)), ["artifacts/", "artifacts/report"]);
    await lab.eventually(() => [...Deno.readDirSync(disk)].length === 0, "the folder is gone");
    assertEquals(lab.logged("error"), []);
  });
}

Deno.test("a job that is being removed is none to the next agent, however little of it is gone", async () => {
  await using folder = new TempFolder();
  const log = recordingLog();
  const store = new JobStore(folder.path, log);
  const jobId = crypto.randomUUID();
  const outbox = await store.accept(new Job({ job_id: jobId, job_queue: "q" }), [], 0);
  const removed = store.remove(outbox);
  assertEquals([...Deno.readDirSync(join(folder.path, "jobs"))], []);
  await removed;
  assertEquals([...Deno.readDirSync(join(folder.path, "partial"))], []);
  assertEquals(log.lines, []);
});

Deno.test("what was being removed when the agent was killed is removed by the next one", async () => {
  await using lab = await Lab.open({ config: { setup_command: "true" } });
  const removed = join(ownFolder(lab), "partial", crypto.randomUUID());
  await Deno.mkdir(join(removed, "artifacts"), { recursive: true });
  lab.start();
  await lab.run({});
  assertEquals(await Deno.stat(removed).then(() => true, () => false), false);
});

for (const generation of ["current", "legacy"] as const) {
  Deno.test(`results of the established agent are taken over by the agent after one that was killed while it took them: ${generation} server`, async () => {
    await using lab = await Lab.open({
      sandbox: { generation },
      config: { cleanup_command: "touch ../cleaned" },
    });
    const jobId = running(lab);
    const claimed = join(ownFolder(lab), `adopted-${jobId}`);
    await Deno.mkdir(join(claimed, "artifacts"), { recursive: true });
    await Deno.writeTextFile(join(claimed, "testflinger.json"), JSON.stringify({ job_id: jobId }));
    await Deno.writeTextFile(
      join(claimed, "testflinger-outcome.json"),
      JSON.stringify({ status: { test: 2 } }),
    );
    lab.start();
    await lab.complete(jobId);
    assertEquals(lab.statuses(jobId), { test: 2 });
    assertEquals(await membersOf(lab.sandbox.artifact(jobId)), ["artifacts/"]);
    await lab.eventually(
      () => Deno.stat(claimed).then(() => false, () => true),
      "what was taken over is removed",
    );
    assertEquals(lab.inExecutionBasedir(), []);
  });
}

Deno.test("a log that a power cut has left shorter than its journal says is delivered as far as it goes", async () => {
  await using lab = await Lab.open({ config: { cleanup_command: "echo cleaned" } });
  const jobId = running(lab);
  {
    using outbox = await accept(lab, jobId);
    outbox.append({ t: "phase_started", phase: "provision" });
    await outbox.appendLog(
      "output",
      "provision",
      new TextEncoder().encode("a".repeat(1000) + "\n"),
    );
    outbox.append({ t: "phase_ended", phase: "provision", status: 0 });
    outbox.append({ t: "phase_started", phase: "test" });
    await outbox.appendLog("output", "test", new TextEncoder().encode("b".repeat(1000) + "\n"));
    outbox.append({ t: "phase_ended", phase: "test", status: 0 });
    await Deno.truncate(join(outbox.folder, "output"), 600);
  }
  lab.start();
  await lab.complete(jobId);
  const log = lab.sandbox.log(jobId, "output");
  assertStringIncludes(log, `${"a".repeat(600)}\nThe agent was interrupted`);
  assertStringIncludes(log, "cleaned\n");
  assertEquals(log.includes("bb"), false);
  assertEquals(lab.logged("error"), []);
});
