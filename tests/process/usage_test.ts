import { assertEquals } from "@std/assert";
import { ControlGroup } from "../../lib/process/cgroup.ts";
import { usageInAll } from "../../lib/process/exit.ts";
import { TempFolder } from "../support/temp_folder.ts";

/** Files as the kernel makes them for a group with all controllers. */
const FILES = {
  "cpu.stat": "usage_usec 2500000\nuser_usec 1\nsystem_usec 2\n",
  "memory.peak": "5000000000\n",
  "memory.events": "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n",
  "io.stat":
    "8:0 rbytes=3000000000 wbytes=4096 rios=1 wios=2\n8:16 rbytes=1 wbytes=0 rios=1 wios=0\n",
};

Deno.test("what a command has used so far is what its group says, with the controllers that there are", async () => {
  await using temp = new TempFolder();
  const group = new ControlGroup(temp.path, { path: "", controllers: [] });
  const command = { name: "test", isLimited: false };
  assertEquals(await group.usage(command), { killed: 0 });
  await Deno.mkdir(group.folderOf(command));
  const write = (name: keyof typeof FILES) =>
    Deno.writeTextFile(`${group.folderOf(command)}/${name}`, FILES[name]);
  await write("cpu.stat");
  assertEquals(await group.usage(command), { cpuMs: 2500, killed: 0 });
  for (const name of ["memory.peak", "memory.events", "io.stat"] as const) await write(name);
  assertEquals(await group.usage(command), {
    cpuMs: 2500,
    memoryPeak: 5_000_000_000,
    read: 3_000_000_001,
    written: 4096,
    killed: 2,
  });
});

Deno.test("what is counted anew after a handover is put together with what was counted before", () => {
  const before = { cpuMs: 10, memoryPeak: 300, read: 1, written: 2, killed: 1 };
  assertEquals(usageInAll(undefined, before), before);
  assertEquals(
    usageInAll(before, { cpuMs: 25, memoryPeak: 200, read: 10, written: 20, killed: 1 }),
    { cpuMs: 25, memoryPeak: 300, read: 11, written: 22, killed: 2 },
  );
  // Below another service, or without its controllers, the group says less.
  assertEquals(usageInAll(before, { cpuMs: 25, killed: 0 }), { ...before, cpuMs: 25 });
  assertEquals(usageInAll({ cpuMs: 1, killed: 0 }, { cpuMs: 2, killed: 0 }), {
    cpuMs: 2,
    killed: 0,
  });
});
