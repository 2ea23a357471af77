import { assertEquals } from "@std/assert";
import { watchFreeSpace } from "../../lib/host/free_space.ts";
import type { Happening } from "../../lib/observe/events.ts";
import { FakeClock } from "../support/fake_clock.ts";

/** Waits for what the file system says, which no clock of ours tells. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 1));
}

Deno.test("free space is told at once and every 30 s, of the disks that are there, until the end", async () => {
  const clock = new FakeClock();
  const told: Happening[] = [];
  const over = new AbortController();
  const watching = watchFreeSpace(["/nowhere/at/all", Deno.cwd()], {
    clock,
    emit: (event) => void told.push(event),
    signal: over.signal,
  });
  await until(() => clock.sleepers === 1);
  assertEquals(told.length, 1);
  const [first] = told;
  assertEquals(first?.type === "free_space" && first.bytes > 0, true);
  await clock.advance(30_000);
  await until(() => told.length === 2 && clock.sleepers === 1);
  over.abort();
  await watching;
  assertEquals(told.length, 2);
});
