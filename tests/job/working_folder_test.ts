/** Agents of one host that share an `execution_basedir`, and get jobs of the same id. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { AgentConfig } from "../../lib/config/agent_config.ts";
import { Job } from "../../lib/job/job.ts";
import { WorkingFolder } from "../../lib/job/working_folder.ts";
import { recordingLog } from "../support/recording_log.ts";
import { TempFolder } from "../support/temp_folder.ts";

const JOB_ID = "11111111-2222-4333-8444-555555555555";

/** The folder of an agent's job, not made yet. */
function folderOf(agentId: string, base: string, log = recordingLog()): WorkingFolder {
  const config = AgentConfig.parse({
    agent_id: agentId,
    server_address: "http://127.0.0.1:9",
    job_queues: ["queue"],
    execution_basedir: base,
  });
  return new WorkingFolder(new Job({ job_id: JOB_ID, job_queue: "queue" }), config, log);
}

function namesIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}

Deno.test("two agents that get the same job work beside one another, and the second is told", async () => {
  await using temp = new TempFolder();
  const base = temp.path;
  const log = recordingLog();
  const first = folderOf("one", base);
  await first.make();
  const second = folderOf("two", base, log);
  await second.make();
  assertEquals(first.path, join(base, JOB_ID));
  assertEquals(second.path, join(base, `${JOB_ID}~two`));
  assertStringIncludes(
    log.lines.map(({ message }) => message).join(),
    "its own execution_basedir",
  );
  await first.remove();
  await second.remove();
  assertEquals(namesIn(base).filter((name) => name !== ".trash"), []);
});

Deno.test("an agent that was killed while it took a job's folder leaves nothing behind that no agent removes", async () => {
  await using temp = new TempFolder();
  const base = temp.path;
  await folderOf("one", base).make();
  // Whichever moment it is killed at: the folder is gone or there, the claim is whole or not there.
  for (const gone of [[], [JOB_ID]]) {
    for (const name of gone) await Deno.remove(join(base, name), { recursive: true });
    const claims = namesIn(base).filter((name) => name.startsWith(".agent-of-"));
    assertEquals(claims.map((name) => Deno.readLinkSync(join(base, name))), ["one"]);
  }
  const again = folderOf("one", base);
  await again.make();
  assertEquals(again.path, join(base, JOB_ID));
  await again.remove();
  assertEquals(namesIn(base).filter((name) => name !== ".trash"), []);
});

Deno.test("what an agent had moved out of the way when it was killed goes with the job's folder", async () => {
  await using temp = new TempFolder();
  const folder = folderOf("one", temp.path);
  await folder.make();
  await Deno.mkdir(join(temp.path, `${JOB_ID}.leftover-1`, "artifacts"), { recursive: true });
  await folder.remove();
  assertEquals(namesIn(temp.path).filter((name) => name !== ".trash"), []);
});

Deno.test("a claim that another user has put there is not this agent's own", async () => {
  await using temp = new TempFolder();
  const base = temp.path;
  await Deno.writeTextFile(join(base, `.agent-of-${JOB_ID}`), "one");
  const folder = folderOf("one", base);
  await folder.make();
  assertEquals(folder.path, join(base, `${JOB_ID}~one`));
});
