import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { agentFolder } from "../../lib/job/store.ts";
import { Lab } from "../support/lab.ts";

for (const generation of ["current", "legacy"] as const) {
  Deno.test(`a job of which the disk takes no journal is ended as failed on a server of the ${generation} generation`, async () => {
    await using lab = await Lab.open({
      sandbox: { generation },
      config: { test_command: "echo never" },
    });
    lab.start();
    const isAsked = () => lab.sandbox.requests.some(({ path }) => path.startsWith("/v1/job"));
    await lab.until(isAsked, "the agent asks for jobs");
    const jobId = crypto.randomUUID();
    // Something that cannot be made into the job's folder.
    const jobs = join(agentFolder(lab.config.results_basedir, "agent-1"), "jobs");
    await Deno.writeTextFile(join(jobs, jobId), "in the way");
    lab.submit({ job_id: jobId, test_data: { a: 1 } });
    await lab.complete(jobId);
    assertEquals(lab.statuses(jobId), { setup: 1 });
    assertStringIncludes(lab.logged("error").join("\n"), `Cannot keep a journal of job ${jobId}`);
    // The agent goes on.
    const next = await lab.run({ test_data: { a: 1 } });
    assertEquals(lab.statuses(next), { test: 0 });
  });
}
