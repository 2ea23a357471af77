import { assert, assertEquals, assertRejects } from "@std/assert";
import { startGroup } from "../../lib/process/group.ts";
import {
  identityOf,
  isAlive,
  parseStat,
  parseStats,
  processesWith,
  searchProcesses,
} from "../../lib/process/proc.ts";
import { ENV, groupOf } from "./support.ts";

/** A line of /proc/<pid>/stat, with the fields behind the name given from field 3 on. */
function stat(pid: number, name: string, state = "S", threads = 1): string {
  const before = `${state} 11 22 33 0 -1 4194304 98 0 1 0 0 0 0 0 20 0 ${threads} 0 174419`;
  return `${pid} (${name}) ${before} ${Array(30).fill("0").join(" ")}\n`;
}

Deno.test("a process is read from /proc whatever its name", () => {
  for (const name of ["sh", "tmux: server", "a) S 1 2 (b", ") Z 1 1 1", "two\nlines", ""]) {
    assertEquals(parseStat(stat(7, name)), {
      pid: 7,
      name,
      parent: 11,
      group: 22,
      session: 33,
      dead: false,
      startTime: 174419,
    });
  }
});

Deno.test("no name of a process hides it or another one in the list", () => {
  const names = ["sh", "a\nb", "1 (x) S 1", "\n\n", ") R 1\n2 (c", "last"];
  const found = parseStats(names.map((name, i) => stat(100 + i, name)).join(""));
  assertEquals(found.map(({ name }) => name), names);
});

Deno.test("a zombie is dead, unless other threads of it live on", () => {
  assertEquals(parseStat(stat(7, "sh", "Z"))?.dead, true);
  assertEquals(parseStat(stat(7, "sh", "X"))?.dead, true);
  assertEquals(parseStat(stat(7, "sh", "Z", 2))?.dead, false);
  assertEquals(parseStat(stat(7, "sh", "T"))?.dead, false);
});

Deno.test("what is no line of /proc is no process", () => {
  for (const text of ["", "7 (sh", "7 (sh) S 1 2", "x (sh) S 1", "7 (sh) S 1 2 nonsense"]) {
    assertEquals(parseStat(text), undefined);
  }
  assertEquals(parseStat(stat(7, "sh").replace("174419", "soon")), undefined);
});

Deno.test("an environment entry is found only if it is exactly this one", async () => {
  const value = crypto.randomUUID();
  const child = new Deno.Command("/bin/sleep", {
    args: ["1000"],
    clearEnv: true,
    env: { BEFORE: "x", MARK: `${value}.*`, AFTER: "x" },
  }).spawn();
  try {
    assertEquals(await processesWith(`MARK=${value}.*`), [child.pid]);
    for (const entry of [`MARK=${value}`, `MARK=${value}.x`, `ARK=${value}.*`, `mark=${value}.*`]) {
      assertEquals(await processesWith(entry), []);
    }
  } finally {
    child.kill("SIGKILL");
    await child.status;
  }
});

Deno.test("the name of a process is not taken for something that was found", async () => {
  const script = '$0 = "\\n/proc/1/limits"; $| = 1; print "named\\n"; sleep 1000';
  await using group = groupOf(
    await startGroup(["perl", "-e", script], { env: ENV, stderr: "null" }),
  );
  await group.output.getReader().read();
  const found = await searchProcesses({ entry: "A=b", limit: "^no such limit" });
  assertEquals(found.withLimit, []);
  assert(found.processes.some(({ pid }) => pid === group.identity.pid));
});

Deno.test("an environment entry of two lines is refused", async () => {
  const error = await assertRejects(() => processesWith("MARK=a\nb"), Error);
  assert(error.message.includes("two lines"));
});

Deno.test("a process is alive until it has ended, and never another one of its number", async () => {
  await using group = groupOf(await startGroup(["sleep", "1000"], { env: ENV, stderr: "null" }));
  const { identity } = group;
  assertEquals(await identityOf(identity.pid), identity, "what it said of itself is true");
  assert(await isAlive(identity));
  assert(!await isAlive({ ...identity, startTime: identity.startTime + 1 }));
  assert(!await isAlive({ ...identity, bootId: crypto.randomUUID() }));

  Deno.kill(identity.pid, "SIGKILL");
  assertEquals(await group.exit, { kind: "signal", signal: 9 });
  assert(!await isAlive(identity));
});

Deno.test("a process that has ended and waits for its parent is not alive", async () => {
  // The parent becomes a program that never waits for a child.
  await using group = groupOf(
    await startGroup(["sh", "-c", "sleep 1000 & echo $!; exec sleep 1000"], {
      env: ENV,
      stderr: "null",
    }),
  );
  const reader = group.output.pipeThrough(new TextDecoderStream()).getReader();
  const zombie = Number((await reader.read()).value);
  assert(zombie > 0);
  while (await nameOf(group.identity.pid) !== "sleep") await shortly();
  assert(await identityOf(zombie) !== undefined);
  Deno.kill(zombie, "SIGKILL");
  while (await identityOf(zombie) !== undefined) await shortly();
  // Still there for kill(2), or the test would say nothing.
  Deno.kill(zombie, "SIGCONT");
});

async function nameOf(pid: number): Promise<string> {
  const { stdout } = await new Deno.Command("cat", { args: [`/proc/${pid}/comm`] }).output();
  return new TextDecoder().decode(stdout).trim();
}

function shortly(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 5));
}
