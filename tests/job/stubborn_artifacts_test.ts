/** Artifacts that cannot be moved: a container has left them to another user, or the job itself locked them. */
import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { membersOf } from "../support/archive.ts";
import { Lab } from "../support/lab.ts";
import { IS_ROOT } from "../support/temp_folder.ts";

/**
 * Makes a folder that cannot be renamed into another one: for that, somebody other than root needs
 * the permission to write to it.
 */
const LOCK = IS_ROOT ? "chattr +i artifacts" : "chmod 555 artifacts";

/** Whether this user can make such a folder here. */
async function canLock(): Promise<boolean> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.mkdir(join(folder, "artifacts"));
    const lock = new Deno.Command("sh", { args: ["-c", LOCK], cwd: folder, stderr: "null" });
    return (await lock.output()).success;
  } finally {
    await unlock(folder);
    await Deno.remove(folder, { recursive: true });
  }
}

async function unlock(folder: string): Promise<void> {
  const args = IS_ROOT ? ["-R", "-i", folder] : ["-R", "u+w", folder];
  await new Deno.Command(IS_ROOT ? "chattr" : "chmod", { args, stderr: "null" }).output();
}

Deno.test({
  name: "artifacts that cannot be moved are delivered from where they are, and the agent goes on",
  ignore: !await canLock(),
  async fn() {
    await using lab = await Lab.open({
      config: {
        test_command: `mkdir artifacts; echo precious > artifacts/report; ${LOCK}`,
        cleanup_command: "echo cleaned",
      },
    });
    try {
      const jobId = await lab.run({ test_data: { a: 1 } });
      assertEquals(lab.statuses(jobId), { test: 0, cleanup: 0 });
      assertEquals(await membersOf(lab.sandbox.artifact(jobId)), [
        "artifacts/",
        "artifacts/report",
      ]);
      const next = await lab.run({});
      assertEquals(lab.statuses(next), { cleanup: 0 });
    } finally {
      await unlock(lab.folder);
    }
  },
});
