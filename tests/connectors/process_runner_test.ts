import { assertEquals } from "@std/assert";
import { processRunner } from "../../connectors/support/process/process_runner.ts";
import { exists } from "../../lib/path.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { until } from "./support/stubs.ts";

/** Runs a script that leaves a process behind, which says `late` when the file `go` is there. */
async function runLeaving(
  test: (run: {
    readonly clock: FakeClock;
    readonly output: () => string;
    readonly status: Promise<number>;
    readonly go: () => Promise<void>;
  }) => Promise<void>,
): Promise<void> {
  const cwd = await Deno.makeTempDir();
  const clock = new FakeClock();
  const never = new AbortController().signal;
  const env = { PATH: "/usr/bin:/bin" };
  const runner = processRunner({ cwd, env, clock, signal: never, forceStop: never });
  let output = "";
  const script = "(until [ -e go ]; do sleep 0.01; done; : >gone; echo late) & echo early; exit 3";
  const status = runner.runForeground(["/bin/sh", "-c", script], {
    env,
    onOutput: (bytes) => {
      output += new TextDecoder().decode(bytes);
      return Promise.resolve();
    },
  });
  const go = () => Deno.writeTextFile(`${cwd}/go`, "");
  try {
    await until(() => output === "early\n" && clock.nextDue !== undefined);
    await test({ clock, output: () => output, status, go });
  } finally {
    await go();
    await status;
    // Otherwise it would never find the file, and never end.
    await until(() => exists(`${cwd}/gone`));
    await Deno.remove(cwd, { recursive: true });
  }
}

Deno.test("00-common 11.4: what a test prints after its script's end is waited for, up to 10 s", () =>
  runLeaving(async ({ clock, output, status, go }) => {
    await clock.advance(9_900);
    await go();
    assertEquals(await status, 3);
    assertEquals(output(), "early\nlate\n");
  }));

Deno.test("00-common 11.4: a test that leaves a silent process behind is over after 10 s", () =>
  runLeaving(async ({ clock, output, status }) => {
    await clock.advance(10_000);
    assertEquals(await status, 3);
    assertEquals(output(), "early\n");
  }));

Deno.test("the limit of a program stands still while nothing comes for it, not while it takes nothing", async () => {
  const clock = new FakeClock();
  const never = new AbortController().signal;
  const env = { PATH: "/usr/bin:/bin" };
  const runner = processRunner({ cwd: "/", env, clock, signal: never, forceStop: never });
  const timeoutMs = 1_800_000;
  let pieces = 0;
  const input = new ReadableStream<Uint8Array>({
    async pull(controller) {
      await clock.advance(2 * timeoutMs);
      // More than fits into a pipe.
      controller.enqueue(new Uint8Array(1024 * 1024));
      pieces++;
    },
  }, { highWaterMark: 0 });
  let isOver = false;
  const running = runner.run(["sleep", "1000"], { timeoutMs, input }).finally(() => isOver = true);
  await until(() => pieces === 1 && clock.nextDue === timeoutMs);
  await clock.advance(timeoutMs - 1);
  assertEquals(isOver, false);
  await clock.advance(1);
  assertEquals(await running, { ended: "timeout", timeoutMs, stdout: "", stderr: "" });
});
