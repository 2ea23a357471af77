import { assert, assertEquals } from "@std/assert";
import { lookAtDisk, sharedDisks } from "../../lib/agent/disks.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { TempFolder } from "../support/temp_folder.ts";

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
