import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { Job } from "../../lib/job/job.ts";
import { JobStore } from "../../lib/job/store.ts";
import { startProgram } from "../support/agent_process.ts";
import { Lab } from "../support/lab.ts";
import { recordingLog } from "../support/recording_log.ts";

const JOBS = 120;

/** Fewer open files than there are jobs, and enough for the runtime. */
const FEW_FILES = ["/bin/sh", "-c", 'ulimit -n 100 && exec "$@"', "sh"];

Deno.test("more jobs than the agent may open files are all delivered after a start", async () => {
  await using lab = await Lab.open({ config: { agent_id: `many-${crypto.randomUUID()}` } });
  const { agent_id } = lab.config;
  const { results_basedir } = lab.config;
  const own = join(results_basedir, `agent-${agent_id}`);
  const store = new JobStore(own, recordingLog());
  const jobIds: string[] = [];
  for (let i = 0; i < JOBS; i++) {
    const jobId = lab.sandbox.submit({ job_queue: "elsewhere" });
    jobIds.push(jobId);
    using outbox = await store.accept(new Job({ job_id: jobId, job_queue: "q" }), [], i);
    outbox.append({ t: "phase_started", phase: "test" });
    await outbox.appendLog("output", "test", new TextEncoder().encode(`log ${i}\n`));
    outbox.append({ t: "phase_ended", phase: "test", status: 0 });
    outbox.send({ kind: "outcome", status: { test: 0 } });
    outbox.append({ t: "finished", at: i });
  }
  const config = await lab.writeConfig();
  await using agent = startProgram(["-c", config], { through: FEW_FILES });
  for (const [i, jobId] of jobIds.entries()) {
    await lab.complete(jobId);
    assertEquals(lab.sandbox.log(jobId, "output"), `log ${i}\n`);
  }
  await lab.eventually(
    () => [...Deno.readDirSync(join(own, "jobs"))].length === 0,
    "nothing is left",
  );
  agent.kill("SIGTERM");
  assertEquals(await agent.exited, 0, agent.output());
  assertEquals(agent.output().includes("ERROR"), false, agent.output());
});
