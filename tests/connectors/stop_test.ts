/** What SIGTERM, SIGINT and SIGHUP do, seen from outside the process. */
import { isRunning } from "../support/processes.ts";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { defineConnector } from "../../connectors/define.ts";
import { runStage } from "../../connectors/run_stage.ts";
import { Stopped } from "../../connectors/support/errors.ts";
import { startEntry } from "./support/entry_process.ts";
import { Lab } from "./support/lab.ts";
import { until } from "./support/stubs.ts";

for (const [name, code] of [["SIGTERM", 143], ["SIGINT", 130], ["SIGHUP", 129]] as const) {
  Deno.test(`${name} during a test ends its whole process group, and leaves no error file`, async () => {
    await using lab = await Lab.open();
    await lab.config({ agent_name: "a1" });
    await lab.job({
      test_data: { test_cmds: "sleep 1000 & echo $! > pids; echo $$ >> pids; echo up; wait" },
    });
    const run = startEntry(lab, ["fake_connector", "runtest", "-c", "c.yaml", "testflinger.json"]);
    await until(() => run.stdout() === "up\n");
    run.child.kill(name);
    const end = await run.end();
    assertEquals(end.code, code);
    assertStringIncludes(end.stderr, `stopped by ${name}`);
    for (const pid of (await lab.read("pids")).trim().split("\n")) {
      assert(!await isRunning(Number(pid)), `process ${pid} is still there`);
    }
    assert(!await lab.has("device-connector-error.json"));
  });
}

Deno.test("SIGTERM ends a reservation at once, with status 0", async () => {
  await using lab = await Lab.open();
  await lab.config({ agent_name: "a1", device_ip: "10.1.1.1" });
  await lab.job({});
  const run = startEntry(lab, ["noprovision", "reserve", "-c", "c.yaml", "testflinger.json"]);
  await until(() => run.stdout().includes("testflinger-cli cancel"));
  run.child.kill("SIGTERM");
  assertEquals((await run.end()).code, 0);
});

Deno.test("TFDC_TIME_SCALE shortens pauses, and deadlines count them in full", async () => {
  await using lab = await Lab.open();
  await lab.config({ agent_name: "a1", device_ip: "10.1.1.1", reboot_script: ["true"] });
  await lab.job({});
  await lab.fake("ssh", "exit 255");
  const run = startEntry(lab, ["noprovision", "provision", "-c", "c.yaml", "testflinger.json"], {
    TFDC_TIME_SCALE: "0.0001",
  });
  assertEquals((await run.end()).code, 1);
  // Real programs take a little of the 300 s each, so it may be one or two rounds less.
  const probes = (await lab.calls("ssh")).length;
  assert(probes >= 25 && probes <= 31, `${probes} probes`);
});

Deno.test("what a stage has taken apart is put back when it is stopped, last first", async () => {
  await using lab = await Lab.open();
  await lab.config({});
  await lab.job({});
  await lab.fake("mux", 'echo "$*" >> order; [ "$1" != flash ] || hang');
  const stop = new AbortController();
  const connector = defineConnector({
    name: "muxed",
    summary: "for this test",
    config: {},
    provisionData: {},
    async provision(ctx) {
      await ctx.runner.run(["mux", "take"], { timeoutMs: 1_000 });
      await using _mux = ctx.putBack("storage", async (own) => {
        await own.runner.run(["mux", "give", "back"], { timeoutMs: 1_000 });
      });
      ctx.putBack("forgotten", async (own) => {
        await own.runner.run(["mux", "remember"], { timeoutMs: 1_000 });
        throw new Error("and this fails");
      });
      await ctx.runner.run(["mux", "flash"], { timeoutMs: 60_000 });
    },
  });
  let stderr = "";
  const run = runStage(
    { connector, stage: "provision", configFile: "c.yaml", jobFile: "testflinger.json" },
    {
      cwd: lab.cwd,
      env: lab.env(),
      clock: lab.clock.pauses,
      // Limits do not come into it: the program hangs until it is stopped.
      limits: { now: Date.now, monotonic: () => 0, sleep: (_ms, signal) => forever(signal) },
      signal: stop.signal,
      forceStop: new AbortController().signal,
      stdout: () => Promise.resolve(),
      stderr: (text) => stderr += text,
    },
  );
  await until(async () => (await lab.read("order").catch(() => "")).includes("flash"));
  stop.abort(new Stopped("SIGTERM"));
  assertEquals(await run, 143);
  assertEquals(await lab.read("order"), "take\nflash\ngive back\nremember\n");
  assertStringIncludes(stderr, "Cannot put back forgotten: and this fails");
});

function forever(signal?: AbortSignal): Promise<void> {
  return new Promise((_, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
