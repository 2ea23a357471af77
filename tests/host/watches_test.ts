import { assertEquals, assertStringIncludes } from "@std/assert";
import { watchFreeSpace } from "../../lib/host/watches.ts";
import type { Happening } from "../../lib/observe/events.ts";
import { AgentStatus } from "../../lib/observe/status_schema.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { run } from "../cli/support.ts";
import { HostLab } from "./support/host_lab.ts";

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

Deno.test("what is asked of an agent is shown while its job runs, with comment and where it was asked", async () => {
  await using lab = await HostLab.open();
  await lab.configure("a");
  lab.start();
  await lab.waiting("a");
  const job = lab.submit("a");
  await lab.until(() => lab.sandbox.log(job, "output").includes("begun"), "the job runs");
  await Deno.writeTextFile(`/tmp/TESTFLINGER-DEVICE-OFFLINE-${lab.id("a")}`, "new card\n");
  await Deno.writeTextFile(`/tmp/TESTFLINGER-DEVICE-RESTART-${lab.id("a")}`, "");
  const requests = async () =>
    AgentStatus.parse(JSON.parse((await lab.get(`/v1/agents/${lab.id("a")}`)).text)).requests;
  await lab.until(async () => {
    const now = await requests();
    return now?.offline !== undefined && now.restart !== undefined;
  }, "both are shown");
  assertEquals(await requests(), {
    offline: { comment: "new card", by: "on this host" },
    restart: { comment: "", by: "on this host" },
  });
  const page = (await lab.get(`/agents/${lab.id("a")}`)).text;
  assertStringIncludes(page, "After its job it goes offline: new card (asked on this host).");
  assertStringIncludes(page, "After its job it restarts (asked on this host).");
  await Deno.remove(`/tmp/TESTFLINGER-DEVICE-RESTART-${lab.id("a")}`);
  await lab.go("a");
  await lab.until(() => `${lab.shown("a")}` === "offline,new card", "a offline");
  // It is so now, and waits no more.
  await lab.until(async () => (await requests()) === undefined, "nothing waits");
  // Offline comes first: what is asked then waits, and is shown.
  const on = ["-c", `${lab.configs}/a.conf`];
  assertStringIncludes((await run("restart", ...on)).stdout, "restarts when it is online again");
  await lab.until(
    async () =>
      / {2}Once online +restarts \(asked on this host\)/.test((await run("status", ...on)).stdout),
    "the restart is shown",
  );
});
