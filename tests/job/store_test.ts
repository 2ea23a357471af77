import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { Job } from "../../lib/job/job.ts";
import { JobStore } from "../../lib/job/store.ts";
import { Lab } from "../support/lab.ts";
import { recordingLog } from "../support/recording_log.ts";
import { TempFolder } from "../support/temp_folder.ts";

const JOB_ID = "11111111-2222-4333-8444-555555555555";
const SECRET = "sesame-open-the-door";
const RECEIVED = { job_id: JOB_ID, job_queue: "q", test_data: { secrets: { KEY: SECRET } } };

/** Paths of the files below a folder that hold the secret. */
async function holders(folder: string): Promise<string[]> {
  const { stdout } = await new Deno.Command("grep", { args: ["-rlF", SECRET, folder] }).output();
  return new TextDecoder().decode(stdout).split("\n").filter((line) => line !== "");
}

Deno.test("a job that cannot be read is put aside without its secrets", async () => {
  await using folder = new TempFolder();
  const log = recordingLog();
  const store = new JobStore(folder.path, log);
  using spool = await store.accept(new Job(RECEIVED), [], 0);
  assertEquals(await holders(folder.path), [join(spool.folder, "job.json")]);
  // Something that is no record.
  await Deno.remove(join(spool.folder, "record"));
  await Deno.mkdir(join(spool.folder, "record"));
  assertEquals(await store.leftovers(), []);
  assertEquals(await holders(folder.path), []);
  const [aside] = [...Deno.readDirSync(folder.at("damaged"))].map(({ name }) => name);
  assertEquals(aside?.startsWith(JOB_ID), true);
  assertEquals(log.lines.length, 1);
});

Deno.test("a job that had ended has no secrets after the next start, even if a power cut brought them back", async () => {
  await using lab = await Lab.open();
  const own = join(lab.config.results_basedir, "agent-agent-1");
  const store = new JobStore(own, recordingLog());
  using spool = await store.accept(new Job(RECEIVED), [], 0);
  spool.send({ kind: "outcome", status: {} });
  spool.append({ t: "finished", at: 1 });
  lab.sandbox.intercept(() => new Response("down", { status: 503 }));
  lab.start();
  await lab.eventually(async () => (await holders(own)).length === 0, "the secrets are gone");
  // The rest of it waits for the server.
  assertEquals([...Deno.readDirSync(join(own, "jobs"))].map(({ name }) => name), [JOB_ID]);
});

Deno.test("an archive of attachments that an earlier process left is removed when the job is ended", async () => {
  await using lab = await Lab.open();
  const own = join(lab.config.results_basedir, "agent-agent-1");
  const store = new JobStore(own, recordingLog());
  using spool = await store.accept(new Job(RECEIVED), [], 0);
  await Deno.writeTextFile(join(spool.folder, "attachments.tar.gz"), SECRET);
  lab.sandbox.intercept(() => new Response("down", { status: 503 }));
  lab.start();
  await lab.eventually(async () => (await holders(own)).length === 0, "the archive is gone");
});
