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
  using outbox = await store.accept(new Job(RECEIVED), [], 0);
  assertEquals(await holders(folder.path), [join(outbox.folder, "job.json")]);
  // Something that is no journal.
  await Deno.remove(join(outbox.folder, "record"));
  await Deno.mkdir(join(outbox.folder, "record"));
  const [leftover] = await store.leftovers();
  using outOfNothing = leftover?.outbox;
  assertEquals(outOfNothing?.jobId, JOB_ID);
  assertEquals(leftover?.received, undefined);
  assertEquals(await holders(folder.path), []);
  const [aside] = [...Deno.readDirSync(folder.at("damaged"))].map(({ name }) => name);
  assertEquals(aside?.startsWith(JOB_ID), true);
  assertEquals(log.lines.length, 1);
});

Deno.test("a job that had ended has no secrets after the next start, even if a power cut brought them back", async () => {
  await using lab = await Lab.open();
  const own = join(lab.config.results_basedir, "agent-agent-1");
  const store = new JobStore(own, recordingLog());
  using outbox = await store.accept(new Job(RECEIVED), [], 0);
  outbox.send({ kind: "outcome", status: {} });
  outbox.append({ t: "finished", at: 1 });
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
  using outbox = await store.accept(new Job(RECEIVED), [], 0);
  await Deno.writeTextFile(join(outbox.folder, "attachments.tar.gz"), SECRET);
  lab.sandbox.intercept(() => new Response("down", { status: 503 }));
  lab.start();
  await lab.eventually(async () => (await holders(own)).length === 0, "the archive is gone");
});

Deno.test("the log of a job that was given up stays given up when the agent is killed before it is emptied", async () => {
  await using folder = new TempFolder();
  const log = recordingLog();
  {
    using outbox = await new JobStore(folder.path, log).accept(new Job(RECEIVED), [], 0);
    await outbox.appendLog("output", "test", new TextEncoder().encode("too much\n"));
    outbox.append({ t: "given_up", part: "log" });
  }
  const [leftover] = await new JobStore(folder.path, log).leftovers();
  using outbox = leftover?.outbox;
  assertEquals(outbox?.undeliveredBytes, 0);
});

Deno.test("runs of one job are delivered in their order, also when the host's clock was set back in between", async () => {
  await using folder = new TempFolder();
  const log = recordingLog();
  const store = new JobStore(folder.path, log);
  {
    using first = await store.accept(new Job(RECEIVED), [], 5_000);
    using _second = await store.accept(new Job(RECEIVED), [first], 1_000);
  }
  const leftovers = await new JobStore(folder.path, log).leftovers();
  const reruns = leftovers.map(({ outbox }) => outbox.state.accepted?.rerun);
  for (const { outbox } of leftovers) outbox[Symbol.dispose]();
  assertEquals(reruns, [false, true]);
});

Deno.test("a damaged journal of which no copy can be kept does not cost the job", async () => {
  await using folder = new TempFolder();
  const log = recordingLog();
  {
    using outbox = await new JobStore(folder.path, log).accept(new Job(RECEIVED), [], 0);
    await Deno.writeTextFile(join(outbox.folder, "record"), "no entry\n", { append: true });
  }
  // In the way of the folder for copies.
  await Deno.writeTextFile(folder.at("damaged"), "");
  const [leftover] = await new JobStore(folder.path, log).leftovers();
  using outbox = leftover?.outbox;
  assertEquals(outbox?.jobId, JOB_ID);
  assertEquals(log.lines.some(({ message }) => message.startsWith("Cannot keep a copy")), true);
});
