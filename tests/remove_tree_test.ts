import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { removeTree } from "../lib/remove_tree.ts";
import { Lab } from "./support/lab.ts";
import { TempFolder } from "./support/temp_folder.ts";

/** Far more than the runtime can go down by calling itself, and than a path has room for. */
const DEPTH = 12_000;

/** Makes folders in one another, in the working directory; the last one is closed. */
const NEST = `for (1..${DEPTH}) { mkdir "d" or die; chdir "d" or die } mkdir "closed", 0 or die`;

async function nest(folder: string): Promise<void> {
  const { success, stderr } = await new Deno.Command("perl", { args: ["-e", NEST], cwd: folder })
    .output();
  assert(success, new TextDecoder().decode(stderr));
}

async function isThere(path: string): Promise<boolean> {
  return await Deno.lstat(path).then(() => true, () => false);
}

Deno.test(`${DEPTH} folders in one another are removed`, async () => {
  await using folder = new TempFolder();
  const top = join(folder.path, "top");
  await Deno.mkdir(top);
  await nest(top);
  assertEquals(await removeTree(top), undefined);
  assertEquals(await isThere(top), false);
});

Deno.test("a folder whose name is not UTF-8 is removed, with what is nested in it", async () => {
  await using folder = new TempFolder();
  const script = `mkdir "$(printf 'd\\377')" && cd "$(printf 'd\\377')" && exec perl -e '${NEST}'`;
  const top = join(folder.path, "top");
  await Deno.mkdir(top);
  const { success } = await new Deno.Command("sh", { args: ["-c", script], cwd: top }).output();
  assert(success);
  assertEquals(await removeTree(top), undefined);
  assertEquals(await isThere(top), false);
});

Deno.test("what is mounted below many folders is not removed with them", {
  ignore: Deno.uid() !== 0,
}, async () => {
  await using folder = new TempFolder();
  const top = join(folder.path, "top");
  const below = join(top, ...Array(200).fill("d"), "mnt");
  await Deno.mkdir(below, { recursive: true });
  const precious = join(folder.path, "precious");
  await Deno.mkdir(precious);
  await Deno.writeTextFile(join(precious, "file"), "kept");
  const mount = await new Deno.Command("mount", { args: ["--bind", precious, below] }).output();
  if (!mount.success) return; // A container that allows none.
  try {
    assertStringIncludes(await removeTree(top) ?? "", "a file system is mounted at");
    assertEquals(await Deno.readTextFile(join(precious, "file")), "kept");
  } finally {
    await new Deno.Command("umount", { args: [below] }).output();
  }
});

Deno.test(`a job that leaves ${DEPTH} folders in one another takes nothing down, now or at the next start`, async () => {
  await using lab = await Lab.open({
    config: {
      test_command: "grep -q nested testflinger.json || exit 0; " +
        `perl -e '${NEST}'; mkdir artifacts; cd artifacts; perl -e '${NEST}'`,
    },
  });
  const jobId = await lab.run({ name: "nested", test_data: { a: 1 } });
  assertEquals(lab.statuses(jobId), { test: 0 });
  const kept = join(lab.config.results_basedir, "agent-agent-1", "jobs", jobId);
  await lab.eventually(async () => !await isThere(kept), "what was kept of the job is removed");
  assertEquals(lab.inExecutionBasedir(), []);
  await lab.stop();
  // What an agent was removing when it was killed, and a folder in the place of a job's.
  const partial = join(lab.config.results_basedir, "agent-agent-1", "partial");
  await Deno.mkdir(partial, { recursive: true });
  await nest(partial);
  lab.start();
  const next = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.statuses(next), { test: 0 });
  assertEquals(lab.logged("error"), []);
});
