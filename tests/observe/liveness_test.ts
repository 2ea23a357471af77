import { assertEquals, assertStringIncludes } from "@std/assert";
import { emitterOf } from "../../lib/observe/events.ts";
import { createLiveness } from "../../lib/observe/liveness.ts";
import { FakeClock } from "../support/fake_clock.ts";

function make() {
  const clock = new FakeClock();
  const liveness = createLiveness({ clock, silenceLimitMs: 60_000 });
  return { clock, liveness, emit: emitterOf("agent-1", { clock, sink: liveness.sink }) };
}

Deno.test("a loop that turns is well, however long it does so", async () => {
  const { clock, liveness } = make();
  for (let n = 0; n < 10; n++) {
    await clock.advance(60_000);
    assertEquals(liveness.trouble(), undefined);
    liveness.beat();
  }
});

Deno.test("a loop that has not turned for longer than the limit hangs, and recovers with a beat", async () => {
  const { clock, liveness } = make();
  await clock.advance(61_000);
  assertEquals(liveness.trouble(), "the agent's loop has not turned for 61 s");
  liveness.beat();
  assertEquals(liveness.trouble(), undefined);
});

Deno.test("a phase may take as long as its limit, and not longer", async () => {
  const { clock, liveness } = make();
  {
    using _phase = liveness.hold("phase test", 3_600_000);
    await clock.advance(3_600_000);
    assertEquals(liveness.trouble(), undefined);
    await clock.advance(1_000);
    assertStringIncludes(
      liveness.trouble() ?? "",
      "phase test has not ended in 3601 s although its limit is 3600 s",
    );
  }
  assertEquals(liveness.trouble(), undefined);
});

Deno.test("a phase without a limit may take for ever", async () => {
  const { clock, liveness } = make();
  using _phase = liveness.hold("phase reserve");
  await clock.advance(30 * 24 * 3_600_000);
  assertEquals(liveness.trouble(), undefined);
});

Deno.test("as long as one of two things keeps to its limit nothing hangs", async () => {
  const { clock, liveness } = make();
  const job = liveness.hold("delivery");
  using _phase = liveness.hold("phase test", 1_000);
  await clock.advance(100_000);
  assertEquals(liveness.trouble(), undefined);
  job[Symbol.dispose]();
  assertEquals(liveness.trouble(), undefined);
  await clock.advance(61_000);
  assertStringIncludes(liveness.trouble() ?? "", "phase test");
});

Deno.test("a job may take for ever, and when it has ended the loop must turn again", async () => {
  const { clock, emit, liveness } = make();
  emit({ type: "job_began", job: "j", queue: "q" });
  await clock.advance(24 * 3_600_000);
  assertEquals(liveness.trouble(), undefined);
  emit({ type: "job_ended", job: "j", reason: "normal_exit" });
  await clock.advance(60_000);
  assertEquals(liveness.trouble(), undefined);
  await clock.advance(1_000);
  assertEquals(liveness.trouble(), "the agent's loop has not turned for 61 s");
});

Deno.test("ending a job of an earlier process may take as long as its cleanup", async () => {
  const { clock, emit, liveness } = make();
  emit({ type: "recovery_began", job: "j" });
  await clock.advance(3_600_000);
  assertEquals(liveness.trouble(), undefined);
  emit({ type: "recovery_ended", job: "j" });
  await clock.advance(61_000);
  assertStringIncludes(liveness.trouble() ?? "", "has not turned for 61 s");
});
