import { assert, assertEquals } from "@std/assert";
import { identityOf, isAlive } from "../../lib/process/identity.ts";
import { startGroup } from "../../lib/process/group.ts";
import { ENV, groupOf } from "./support.ts";

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
