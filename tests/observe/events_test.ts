import { assertEquals } from "@std/assert";
import { type AgentEvent, combineSinks, emitterOf, sinkOf } from "../../lib/observe/events.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { recordingLog } from "../support/recording_log.ts";

const START = Date.UTC(2026, 10, 22, 12);

Deno.test("what an agent tells has its name and the time, and every sink hears it, in order", () => {
  const clock = new FakeClock(START);
  const [one, two]: AgentEvent[][] = [[], []];
  const sink = combineSinks(
    [(event) => one?.push(event), (event) => two?.push(event)],
    recordingLog(),
  );
  const emit = emitterOf("agent-1", { clock, sink });
  emit({ type: "job_began", job: "j", queue: "q" });
  emit({ type: "polled" });
  assertEquals(one, [
    { type: "job_began", job: "j", queue: "q", agent: "agent-1", at: START },
    { type: "polled", agent: "agent-1", at: START },
  ]);
  assertEquals(two, one);
});

Deno.test("a sink that fails disturbs neither the others nor the agent, and is reported once", () => {
  const log = recordingLog();
  const heard: string[] = [];
  const bad = sinkOf({
    polled() {
      throw new Error("broken gauge");
    },
    retried() {
      throw new Error("broken again");
    },
  });
  const sink = combineSinks([bad, ({ type }) => heard.push(type)], log);
  const emit = emitterOf("agent-1", { clock: new FakeClock(), sink });
  emit({ type: "polled" });
  emit({ type: "retried" });
  emit({ type: "turned" });
  assertEquals(heard, ["polled", "retried", "turned"]);
  assertEquals(log.lines.map(({ level }) => level), ["error"]);
  assertEquals(String(log.lines[0]?.fields.error).includes("broken gauge"), true);
});
