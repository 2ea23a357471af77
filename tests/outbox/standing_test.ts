import { assertEquals } from "@std/assert";
import type { Entry } from "../../lib/outbox/entries.ts";
import {
  deliveredBefore,
  emptyStanding,
  fold,
  interruptedPhase,
  regionAt,
  type Standing,
  statusesOf,
} from "../../lib/outbox/standing.ts";

function standingOf(...entries: Entry[]): Standing {
  const standing = emptyStanding();
  for (const entry of entries) fold(standing, entry);
  return standing;
}

const region = (phase: "setup" | "test", from: number): Entry => ({
  t: "region",
  log: "output",
  phase,
  from,
});

Deno.test("the phase that started and did not end is the one that was interrupted", () => {
  const standing = standingOf(
    { t: "phase_started", phase: "setup" },
    { t: "phase_ended", phase: "setup", status: 0 },
    { t: "phase_started", phase: "test" },
  );
  assertEquals(interruptedPhase(standing), "test");
  assertEquals(statusesOf(standing), { setup: 0 });
});

Deno.test("that the next piece of a log was announced says that the one before it arrived", () => {
  const standing = standingOf(
    region("test", 0),
    { t: "fragment", log: "output", number: 0, phase: "test", from: 0, to: 10 },
    { t: "fragment", log: "output", number: 1, phase: "test", from: 10, to: 15 },
  );
  assertEquals(standing.logs.output.settled, 10);
  assertEquals(standing.logs.output.next, 2);
  assertEquals(standing.logs.output.underWay?.number, 1);
});

Deno.test("bytes that the server refused are not expected to be there", () => {
  const standing = standingOf(
    region("test", 0),
    { t: "fragment", log: "output", number: 0, phase: "test", from: 0, to: 10 },
    { t: "fragment_settled", log: "output", how: "refused" },
  );
  assertEquals(standing.logs.output.settled, 10);
  assertEquals(deliveredBefore(standing.logs.output, "test", 10), 0);
});

Deno.test("a piece of a log never reaches over the end of its phase", () => {
  const { logs } = standingOf(region("setup", 0), region("test", 7));
  assertEquals(regionAt(logs.output, 3, 20), { phase: "setup", end: 7 });
  assertEquals(regionAt(logs.output, 7, 20), { phase: "test", end: 20 });
  assertEquals(deliveredBefore(logs.output, "setup", 20), 7);
  assertEquals(deliveredBefore(logs.output, "test", 12), 5);
});

Deno.test("a message is pending until it is settled, and what was sent is remembered", () => {
  const standing = standingOf(
    {
      t: "message",
      n: 0,
      message: { kind: "outcome", status: { test: 0 } },
      after: { output: 0, serial: 0 },
    },
    { t: "settled", n: 0, how: "delivered" },
  );
  assertEquals(standing.pending, []);
  assertEquals(standing.sent.has("outcome"), true);
  assertEquals(standing.nextMessage, 1);
});
