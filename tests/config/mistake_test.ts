import { assertEquals } from "@std/assert";
import { didYouMean, formatMistake, formatPath } from "../../lib/config/mistake.ts";

Deno.test("formatMistake() leaves out what does not apply", () => {
  const message = "is wrong";
  assertEquals(
    formatMistake({ file: "a.conf", line: 3, column: 5, path: "x.y", message }),
    "a.conf:3:5: x.y: is wrong",
  );
  assertEquals(
    formatMistake({ file: "a.conf", line: 3, column: 5, path: "", message }),
    "a.conf:3:5: is wrong",
  );
  assertEquals(
    formatMistake({ file: "a.conf", line: 0, column: 0, path: "", message }),
    "a.conf: is wrong",
  );
});

Deno.test("formatPath() quotes names that would be taken for something else", () => {
  assertEquals(formatPath([]), "");
  assertEquals(formatPath(["a", "b-c", 0, "d.e", "f g", ""]), "a.b-c[0]['d.e']['f g']['']");
});

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
