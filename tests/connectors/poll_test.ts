import { assert, assertEquals, assertRejects } from "@std/assert";
import { deviceBootId, keyLetsIn, waitForReboot } from "../../connectors/support/wait/boot.ts";
import { pollUntil } from "../../connectors/support/wait/poll.ts";
import { inStage } from "./support/context.ts";
import { Lab } from "./support/lab.ts";

const DEVICE = { host: "10.1.1.1", user: "ubuntu" };

Deno.test("pollUntil() pauses, looks, and says every 30 s what it waits for and what is missing", async () => {
  await using lab = await Lab.open();
  let looks = 0;
  const missing = await inStage(lab, (ctx) =>
    pollUntil(ctx, {
      waitingFor: "the kettle to boil",
      limitMs: 600_000,
      pauseMs: 20_000,
      look: () => Promise.resolve(++looks < 6 ? `${looks} bubbles` : undefined),
    }));
  assertEquals(missing, undefined);
  assertEquals(lab.clock.paused, Array(6).fill(20_000));
  assertEquals(lab.log.filter((line) => line.includes("Waiting")).map(afterMarker), [
    "Waiting for the kettle to boil, 40 s of at most 600 s so far: 2 bubbles",
    "Waiting for the kettle to boil, 80 s of at most 600 s so far: 4 bubbles",
  ]);
});

Deno.test("pollUntil() looks for the last time at the end of its limit, and says what was missing", async () => {
  await using lab = await Lab.open();
  const left: number[] = [];
  const missing = await inStage(lab, (ctx) =>
    pollUntil(ctx, {
      waitingFor: "nothing",
      limitMs: 25_000,
      pauseMs: 10_000,
      lookFirst: true,
      look(leftMs) {
        left.push(leftMs);
        return Promise.resolve(`look ${left.length}`);
      },
    }));
  assertEquals(missing, "look 4");
  assertEquals(left, [25_000, 15_000, 5_000, 0]);
  assertEquals(lab.clock.elapsed, 25_000);
});

Deno.test("pollUntil() ends with what its look throws, and when the connector is stopped", async () => {
  await using lab = await Lab.open();
  const forever = { waitingFor: "nothing", limitMs: 1e9, pauseMs: 1_000 };
  await assertRejects(
    () =>
      inStage(
        lab,
        (ctx) => pollUntil(ctx, { ...forever, look: () => Promise.reject(new Error("broken")) }),
      ),
    Error,
    "broken",
  );
  const stop = new AbortController();
  let looks = 0;
  await assertRejects(
    () =>
      inStage(
        lab,
        (ctx) =>
          pollUntil(ctx, {
            ...forever,
            look() {
              if (++looks === 3) stop.abort(new Error("stopped by the test"));
              return Promise.resolve("more");
            },
          }),
        stop.signal,
      ),
    Error,
    "stopped by the test",
  );
  assertEquals(looks, 3);
});

Deno.test("waitForReboot() does not take the system for rebooted that was told to reboot", async () => {
  await using lab = await Lab.open();
  // Goes on for a while, goes down, comes back.
  await lab.fake("ssh", "case $n in 1|2) echo old;; 3|4) exit 255;; *) echo new;; esac");
  const missing = await inStage(lab, async (ctx) =>
    await waitForReboot(ctx, {
      target: DEVICE,
      before: await deviceBootId(ctx, DEVICE),
      limitMs: 300_000,
      pauseMs: 10_000,
    }));
  assertEquals(missing, undefined);
  assertEquals(lab.clock.elapsed, 40_000);
});

Deno.test("waitForReboot() says whether the device was gone or had not rebooted at all", async () => {
  for (
    const [script, why] of [
      ["echo old", "the old system is still running"],
      ["exit 255", "it does not answer"],
      ["hang", "it does not answer"],
    ] as const
  ) {
    await using lab = await Lab.open();
    await lab.fake("ssh", script);
    const reboot = { target: DEVICE, before: "old", limitMs: 60_000, pauseMs: 10_000 };
    assertEquals(await inStage(lab, (ctx) => waitForReboot(ctx, reboot)), why);
  }
});

Deno.test("keyLetsIn() never asks for a password, and tells a refusal from silence", async () => {
  await using lab = await Lab.open();
  const probe = () => inStage(lab, (ctx) => keyLetsIn(ctx, { ...DEVICE, password: "secret" }));
  assertEquals(await probe(), { ok: true });
  await lab.fake("ssh", 'echo "Permission denied (publickey)." >&2; exit 255');
  const refused = await probe();
  assert(!refused.ok && refused.refused);
  await lab.fake("ssh", 'echo "Connection refused" >&2; exit 255');
  const silent = await probe();
  assert(!silent.ok && !silent.refused && silent.why.includes("Connection refused"));
  assertEquals(await lab.calls("sshpass"), []);
  for (const { args } of await lab.calls("ssh")) assert(args.includes("BatchMode=yes"));
});

function afterMarker(line: string): string {
  return line.slice(line.indexOf("CONNECTOR: ") + 11);
}
