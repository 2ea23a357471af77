import { assertEquals } from "@std/assert";
import type { SignalListener } from "../../lib/host/signals.ts";
import { withLastResort } from "../../lib/host/last_resort.ts";
import { emitterOf } from "../../lib/observe/events.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { recordingLog } from "../support/recording_log.ts";

/** An agent that is told to stop, and hangs. */
function hanging() {
  const clock = new FakeClock();
  const log = recordingLog();
  const exits: number[] = [];
  const told: string[] = [];
  let toProcess: SignalListener | undefined;
  const { signals, sink, over, leave } = withLastResort({
    signals: { listen: (listener) => void (toProcess = listener) },
    clock,
    log,
    exit: (status) => exits.push(status),
  });
  signals.listen({
    restart: () => told.push("restart"),
    stop: (signal, again) => told.push(`${signal}${again ? " again" : ""}`),
  });
  const stop = (again = false) => toProcess?.stop("SIGTERM", again);
  const emit = emitterOf("agent-1", { clock, sink });
  const restart = () => toProcess?.restart();
  return { clock, emit, exits, log, over, restart, leave: () => leave(75), stop, told };
}

Deno.test("a process that is told to hand over and hangs ends within 2 s, to be started again", async () => {
  const { clock, exits, log, leave } = hanging();
  leave();
  await clock.advance(2_000);
  assertEquals(exits, [75]);
  assertEquals(log.lines, []);
});

Deno.test("a process that is told to stop and hangs ends after 60 s, and says so", async () => {
  const { clock, exits, log, restart, stop, told } = hanging();
  restart();
  stop();
  stop(true);
  assertEquals(told, ["restart", "SIGTERM", "SIGTERM again"]);
  await clock.advance(59_999);
  assertEquals(exits, []);
  await clock.advance(1);
  assertEquals(exits, [1]);
  assertEquals(log.lines.map(({ level }) => level), ["error"]);
});

Deno.test("a job that is being ended has until 85 s, which is before systemd kills", async () => {
  const { clock, emit, exits, stop } = hanging();
  emit({ type: "job_began", job: "1", queue: "q" });
  stop();
  await clock.advance(84_999);
  assertEquals(exits, []);
  await clock.advance(1);
  assertEquals(exits, [1]);
});

Deno.test("a job that has ended leaves no more time than there is without one", async () => {
  const { clock, emit, exits, stop } = hanging();
  emit({ type: "recovery_began", job: "1" });
  stop();
  await clock.advance(30_000);
  emit({ type: "recovery_ended", job: "j" });
  await clock.advance(30_000);
  assertEquals(exits, [1]);
});

Deno.test("an agent that has ended in time is left alone", async () => {
  const { clock, exits, over, stop } = hanging();
  stop();
  await clock.advance(59_000);
  over();
  await clock.advance(60_000);
  assertEquals(exits, []);
});

Deno.test("an agent that is not stopped runs on", async () => {
  const { clock, exits, restart } = hanging();
  restart();
  await clock.advance(10_000_000);
  assertEquals(exits, []);
});
