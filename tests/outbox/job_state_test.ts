import { assertEquals } from "@std/assert";
import type { Entry } from "../../lib/outbox/entries.ts";
import {
  apply,
  deliveredBefore,
  emptyJobState,
  interruptedPhase,
  type JobState,
  segmentAt,
  statusesOf,
} from "../../lib/outbox/job_state.ts";

function stateOf(...entries: Entry[]): JobState {
  const state = emptyJobState();
  for (const entry of entries) apply(state, entry);
  return state;
}

const region = (phase: "setup" | "test", from: number): Entry => ({
  t: "region",
  log: "output",
  phase,
  from,
});

Deno.test("the phase that started and did not end is the one that was interrupted", () => {
  const state = stateOf(
    { t: "phase_started", phase: "setup" },
    { t: "phase_ended", phase: "setup", status: 0 },
    { t: "phase_started", phase: "test" },
  );
  assertEquals(interruptedPhase(state), "test");
  assertEquals(statusesOf(state), { setup: 0 });
});

Deno.test("that the next piece of a log was announced says that the one before it arrived", () => {
  const state = stateOf(
    region("test", 0),
    { t: "fragment", log: "output", number: 0, phase: "test", from: 0, to: 10 },
    { t: "fragment", log: "output", number: 1, phase: "test", from: 10, to: 15 },
  );
  assertEquals(state.logs.output.settled, 10);
  assertEquals(state.logs.output.next, 2);
  assertEquals(state.logs.output.inFlight?.number, 1);
});

Deno.test("a piece that was announced ahead is in flight once the one before it is settled", () => {
  const pieces = [
    region("test", 0),
    { t: "fragment", log: "output", number: 0, phase: "test", from: 0, to: 10 },
    { t: "fragment_ahead", log: "output", number: 1, phase: "test", from: 10, to: 15 },
  ] as const;
  const before = stateOf(...pieces).logs.output;
  assertEquals([before.settled, before.inFlight?.number, before.next], [0, 0, 2]);
  const { output } = stateOf(
    ...pieces,
    { t: "fragment_settled", log: "output", how: "delivered" },
  ).logs;
  assertEquals([output.settled, output.inFlight?.number, output.ahead], [10, 1, undefined]);
});

Deno.test("bytes that the server refused are not expected to be there", () => {
  const state = stateOf(
    region("test", 0),
    { t: "fragment", log: "output", number: 0, phase: "test", from: 0, to: 10 },
    { t: "fragment_settled", log: "output", how: "refused" },
  );
  assertEquals(state.logs.output.settled, 10);
  assertEquals(deliveredBefore(state.logs.output, "test", 10), 0);
});

Deno.test("a piece of a log never reaches over the end of its phase", () => {
  const { logs } = stateOf(region("setup", 0), region("test", 7));
  assertEquals(segmentAt(logs.output, 3, 20), { phase: "setup", end: 7 });
  assertEquals(segmentAt(logs.output, 7, 20), { phase: "test", end: 20 });
  assertEquals(deliveredBefore(logs.output, "setup", 20), 7);
  assertEquals(deliveredBefore(logs.output, "test", 12), 5);
});

Deno.test("a message is pending until it is settled, and what was sent is remembered", () => {
  const state = stateOf(
    {
      t: "message",
      n: 0,
      message: { kind: "outcome", status: { test: 0 } },
      after: { output: 0, serial: 0 },
    },
    { t: "settled", n: 0, how: "delivered" },
  );
  assertEquals(state.pending, []);
  assertEquals(state.sent.has("outcome"), true);
  assertEquals(state.nextMessage, 1);
});
