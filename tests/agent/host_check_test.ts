import { assert, assertEquals } from "@std/assert";
import { lookAtDisk, removeProbes, sharedDisks, troubleWith } from "../../lib/agent/host_check.ts";
import { systemClock } from "../../lib/clock.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { TempFolder } from "../support/temp_folder.ts";

Deno.test("what is left of a file that an agent was writing when it was killed does no harm", async () => {
  await using folder = new TempFolder();
  const probe = folder.at(".probe-rack%2F4");
  const options = { leastFree: 0, agentId: "rack/4", clock: systemClock };
  await Deno.writeTextFile(probe, "half");
  assertEquals(await troubleWith([folder.path], options), undefined);
  assertEquals((await Deno.stat(probe)).size > 4, true);
});

Deno.test("a start removes the file of the last one, whether or not jobs are asked for then", async () => {
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
  const options = { leastFree: 0, agentId: "a", clock: systemClock };
  assertEquals(await troubleWith([folder.path], options), undefined);
  assertEquals(await Deno.readTextFile(folder.at("precious")), "kept");
});

Deno.test("a folder that took a file is not written to again for a minute", async () => {
  await using folder = new TempFolder();
  const probe = folder.at(".probe-a");
  const isWritten = async (now: number) => {
    const before = (await Deno.lstat(probe).catch(() => undefined))?.ino;
    const clock = { now: () => now };
    assertEquals(
      await troubleWith([folder.path], { leastFree: 0, agentId: "a", clock }),
      undefined,
    );
    // Another one in its place would have the same number if it were removed before.
    await Deno.link(probe, folder.at(`kept-${crypto.randomUUID()}`));
    return (await Deno.lstat(probe)).ino !== before;
  };
  const at = (ms: number) => Date.now() + ms;
  assertEquals(await isWritten(at(0)), true);
  assertEquals(await isWritten(at(30_000)), false);
  assertEquals(await isWritten(at(90_000)), true);
  assertEquals(await isWritten(at(-90_000)), true, "the clock of the host was set back");
  await Deno.truncate(probe, 100);
  assertEquals(await isWritten(at(0)), true, "it is not whole");
});

Deno.test("a FIFO or a folder in place of the probe file is noticed", async () => {
  await using folder = new TempFolder();
  const probe = folder.at(".probe-a");
  const options = { leastFree: 0, agentId: "a", clock: systemClock };
  assertEquals(await troubleWith([folder.path], options), undefined);
  await Deno.remove(probe);
  await new Deno.Command("mkfifo", { args: [probe] }).output();
  assertEquals(await troubleWith([folder.path], options), undefined);
  assertEquals((await Deno.lstat(probe)).isFile, true);
  await Deno.remove(probe);
  await Deno.mkdir(`${probe}/full`, { recursive: true });
  const trouble = await troubleWith([folder.path], options);
  assertEquals(trouble?.cause, `write ${folder.path}`);
});

Deno.test("the first look of a start finds of a disk what later ones find", async () => {
  await using folder = new TempFolder();
  const odd = folder.at("with a\nnewline");
  await Deno.mkdir(odd);
  const lookAt = sharedDisks([folder.path, folder.at("gone"), odd], new FakeClock());
  const now = await lookAtDisk(folder.path);
  const first = await lookAt(folder.path);
  assertEquals(first?.inodes, now?.inodes);
  // Others write there, too.
  assert(Math.abs((first?.freeBytes ?? 0) / (now?.freeBytes ?? 0) - 1) < 0.5);
  assertEquals(await lookAt(folder.at("gone")), undefined);
  assertEquals((await lookAt(odd))?.inodes, now?.inodes);
});

Deno.test("shortly after the start a disk is examined again", async () => {
  await using folder = new TempFolder();
  await Deno.mkdir(folder.at("shelf"));
  const clock = new FakeClock();
  const lookAt = sharedDisks([folder.at("shelf")], clock);
  assert(await lookAt(folder.at("shelf")) !== undefined);
  await Deno.remove(folder.at("shelf"));
  assert(await lookAt(folder.at("shelf")) !== undefined);
  await clock.advance(2_000);
  assertEquals(await lookAt(folder.at("shelf")), undefined);
});

Deno.test("agents that ask for the same folder in the same two seconds share a look at it", async () => {
  await using folder = new TempFolder();
  const clock = new FakeClock();
  const lookAt = sharedDisks([], clock);
  await clock.advance(1_000);
  assert(await lookAt(folder.path) !== undefined);
  assert(lookAt(folder.path) === lookAt(folder.path));
  const before = lookAt(folder.path);
  await clock.advance(2_000);
  assert(lookAt(folder.path) !== before);
});
