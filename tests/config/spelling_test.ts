import { assertEquals } from "@std/assert";
import { didYouMean } from "../../lib/config/spelling.ts";

const KEYS = ["agent_id", "job_queues", "logging_level", "location", "connector"];

Deno.test("didYouMean() finds the name behind a slip of the finger", () => {
  for (
    const [written, meant] of [
      ["agentid", "agent_id"],
      ["agent-id", "agent_id"],
      ["AGENT_ID", "agent_id"],
      ["agnet_id", "agent_id"],
      ["job_queue", "job_queues"],
      ["loging_levl", "logging_level"],
      ["locaton", "location"],
      ["conector", "connector"],
    ] as const
  ) {
    assertEquals(didYouMean(written, KEYS), meant);
  }
});

Deno.test("didYouMean() makes no wild guesses", () => {
  for (const written of ["", "x", "queues", "server", "constructor_name", "a".repeat(100_000)]) {
    assertEquals(didYouMean(written, KEYS), undefined, written.slice(0, 20));
  }
});

Deno.test("didYouMean() takes the nearest of several", () => {
  assertEquals(didYouMean("testing", ["tasting1", "testings", "resting11"]), "testings");
});
