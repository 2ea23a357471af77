import { assertEquals } from "@std/assert";
import { DeliveredJobs } from "../../lib/job/delivered_jobs.ts";
import { recordingLog } from "../support/recording_log.ts";
import { TempFolder } from "../support/temp_folder.ts";

Deno.test("of delivered jobs the last 500 are known, also to the next process", async () => {
  await using folder = new TempFolder();
  const log = recordingLog();
  const ids = Array.from({ length: 502 }, () => crypto.randomUUID());
  const jobs = new DeliveredJobs(folder.path, log);
  for (const id of ids) jobs.add(id);
  for (const known of [jobs, new DeliveredJobs(folder.path, log)]) {
    assertEquals(ids.filter((id) => known.has(id)), ids.slice(2));
  }
  assertEquals(log.lines, []);
});

Deno.test("a list of delivered jobs that holds rubbish is as if it were not there", async () => {
  await using folder = new TempFolder();
  const log = recordingLog();
  await Deno.writeTextFile(folder.at("delivered"), "\0no id\n");
  const jobs = new DeliveredJobs(folder.path, log);
  assertEquals(jobs.has("\0no id"), false);
  assertEquals(log.lines, []);
});

Deno.test("a list of delivered jobs that cannot be written is told of once", async () => {
  await using folder = new TempFolder();
  const log = recordingLog();
  await Deno.mkdir(folder.at("delivered"));
  const jobs = new DeliveredJobs(folder.path, log);
  for (const id of [crypto.randomUUID(), crypto.randomUUID()]) {
    jobs.add(id);
    assertEquals(jobs.has(id), true);
  }
  assertEquals(log.lines.map(({ level }) => level), ["warning"]);
});
