import { assertEquals } from "@std/assert";
import { removeProbes, troubleWith } from "../../lib/agent/host_check.ts";
import { JobStore } from "../../lib/job/store.ts";
import { recordingLog } from "../support/recording_log.ts";
import { TempFolder } from "../support/temp_folder.ts";

Deno.test("what an agent leaves that is killed while it looks whether it can write does no harm, and is removed", async () => {
  await using folder = new TempFolder();
  const log = recordingLog();
  const { jobsFolder } = new JobStore(folder.path, log);
  const options = { leastFree: 0, agentId: "rack/4" };
  await Deno.writeTextFile(`${jobsFolder}/.probe-rack%2F4`, "half");
  assertEquals(await new JobStore(folder.path, log).leftovers(), []);
  assertEquals(log.lines, []);
  assertEquals(await troubleWith([jobsFolder], options), undefined);
  assertEquals([...Deno.readDirSync(jobsFolder)], []);
});

Deno.test("a start removes it too, whether or not jobs are asked for then", async () => {
  await using folder = new TempFolder();
  await Deno.writeTextFile(folder.at(".probe-rack%2F4"), "half");
  await Deno.writeTextFile(folder.at(".probe-another"), "half");
  await removeProbes([folder.path, folder.at("gone")], "rack/4");
  assertEquals([...Deno.readDirSync(folder.path)].map(({ name }) => name), [".probe-another"]);
});

Deno.test("a link in the way of the file is removed, and what it leads to stays", async () => {
  await using folder = new TempFolder();
  await Deno.writeTextFile(folder.at("precious"), "kept");
  await Deno.symlink(folder.at("precious"), folder.at(".probe-a"));
  assertEquals(await troubleWith([folder.path], { leastFree: 0, agentId: "a" }), undefined);
  assertEquals(await Deno.readTextFile(folder.at("precious")), "kept");
});
