import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { type LockResult, takeLock } from "../../lib/agent/lock.ts";
import { recordingLog } from "../support/recording_log.ts";
import { IS_ROOT, makeFifo, NOBODY, TempFolder } from "../support/temp_folder.ts";

/** A folder for the agent's own lock, and one that is everybody's. */
async function places(): Promise<TempFolder> {
  const places = new TempFolder();
  await Deno.mkdir(places.at("own"));
  await Deno.mkdir(places.at("shared"));
  return places;
}

function take(places: TempFolder, own = "own") {
  const log = recordingLog();
  const result = takeLock({
    agentId: "agent-1",
    folder: places.at(own),
    sharedFolder: places.at("shared"),
    log,
  });
  return { result, warnings: log.lines.map(({ message }) => message) };
}

function held(result: LockResult): LockResult & { held: true } {
  if (!result.held) throw new Error(`${result.owner} holds ${result.path}`);
  return result;
}

function refused(result: LockResult): LockResult & { held: false } {
  if (result.held) throw new Error("the lock was free");
  return result;
}

const SHARED = ["shared", "testflinger-agent-agent-1.lock"] as const;

Deno.test("a lock is held until it is released, and says who has it", async () => {
  await using folders = await places();
  const first = held(take(folders).result);
  const second = refused(take(folders).result);
  assertEquals(second.owner, `process ${Deno.pid}`);
  first.release();
  const third = held(take(folders).result);
  third.release();
});

Deno.test("a copy with other folders is noticed, and leaves its own lock free", async () => {
  await using folders = await places();
  await Deno.mkdir(folders.at("other"));
  const first = held(take(folders).result);
  const second = refused(take(folders, "other").result);
  assertEquals(second.path, folders.at(...SHARED));
  first.release();
  const third = held(take(folders, "other").result);
  third.release();
});

Deno.test("locks are for the agent's user alone", async () => {
  await using folders = await places();
  const { result } = take(folders);
  for (const path of [folders.at("own", "lock"), folders.at(...SHARED)]) {
    assertEquals((Deno.statSync(path).mode ?? 0) & 0o777, 0o600, path);
  }
  held(result).release();
});

const TRAPS: Record<string, (path: string, victim: string) => Promise<void>> = {
  "a link": (path, victim) => Deno.symlink(victim, path),
  "a link to nothing": (path, victim) => Deno.symlink(`${victim}-not-there`, path),
  "a second name of a file of ours": (path, victim) => Deno.link(victim, path),
  "a FIFO": (path) => makeFifo(path),
  "a folder": (path) => Deno.mkdir(path),
};

for (const [what, lay] of Object.entries(TRAPS)) {
  Deno.test(`${what} in the place of the lock in /tmp is reported, and what it leads to is untouched`, async () => {
    await using folders = await places();
    const victim = folders.at("victim");
    await Deno.writeTextFile(victim, "precious");
    await lay(folders.at(...SHARED), victim);
    const { result, warnings } = take(folders);
    assertEquals(warnings.length, 1);
    assertMatch(warnings[0] ?? "", /is ignored: it (is not a regular file|has more than one name)/);
    held(result).release();
    assertEquals(await Deno.readTextFile(victim), "precious");
    assertEquals([...Deno.readDirSync(folders.at("shared"))].length, 1);
  });
}

Deno.test(
  "a lock that another user made in /tmp is reported, and does not keep the agent from starting",
  {
    ignore: !IS_ROOT,
  },
  async () => {
    await using folders = await places();
    const path = folders.at(...SHARED);
    await Deno.writeTextFile(path, "1\n");
    await Deno.chown(path, NOBODY, NOBODY);
    const { result, warnings } = take(folders);
    held(result).release();
    assertStringIncludes(warnings[0] ?? "", `belongs to user ${NOBODY}`);
    assertEquals(await Deno.readTextFile(path), "1\n");
  },
);

Deno.test("the lock in /tmp is gone when the agent has ended", async () => {
  await using folders = await places();
  held(take(folders).result).release();
  assertEquals([...Deno.readDirSync(folders.at("shared"))], []);
});

Deno.test("a lock that was removed and made anew by another one is left alone", async () => {
  await using folders = await places();
  await Deno.mkdir(folders.at("other"));
  const first = held(take(folders).result);
  await Deno.remove(folders.at(...SHARED));
  const second = held(take(folders, "other").result);
  first.release();
  refused(take(folders).result);
  second.release();
});

Deno.test("however many agents take and release a lock at the same time, only one has it", async () => {
  await using folders = await places();
  const takers = await Promise.all(["1", "2", "3", "4"].map(async (name) => {
    await Deno.mkdir(folders.at(name));
    return await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--quiet",
        "--no-prompt",
        "--allow-read",
        "--allow-write",
        "--allow-sys=uid",
        new URL("support/lock_taker.ts", import.meta.url).pathname,
        folders.at("shared"),
        folders.at(name),
        folders.at("inside"),
        "3000",
      ],
    }).output();
  }));
  for (const { success, stdout, stderr } of takers) {
    assertEquals(success, true, new TextDecoder().decode(stderr));
    assertEquals(Number(new TextDecoder().decode(stdout)) > 0, true);
  }
});

Deno.test("a lock that was released can be taken at once, whatever programs are started meanwhile", async () => {
  await using folders = await places();
  // In another thread: in this one nothing happens until a program has been started.
  const source = `for (let n = 0; n < 150; n++) {
    await new Deno.Command("true", { stdin: "null", stdout: "null", stderr: "null" }).output();
  }
  self.postMessage("started");`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  let isOver = false;
  const over = new Promise<void>((resolve) => worker.onmessage = () => resolve())
    .then(() => void (isOver = true));
  while (!isOver) {
    for (let n = 0; n < 50; n++) held(take(folders).result).release();
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  await over;
  worker.terminate();
  URL.revokeObjectURL(url);
});
