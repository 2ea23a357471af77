import { assertEquals } from "@std/assert";
import { parseDuration } from "../../connectors/support/wait/duration.ts";

Deno.test("durations are numbers of seconds, digits, or counts with units", () => {
  for (
    const [value, seconds] of [
      [0, 0],
      [90, 90],
      ["90", 90],
      ["30s", 30],
      ["30sec", 30],
      ["30m", 1_800],
      ["30min", 1_800],
      ["5h", 18_000],
      ["5hour", 18_000],
      ["4d", 345_600],
      ["4day", 345_600],
      ["1d5h30m", 106_200],
      ["1h 30min", 5_400],
    ] as const
  ) assertEquals(parseDuration(value), seconds, String(value));
});

Deno.test("what is no duration is refused", () => {
  for (const value of [-1, NaN, Infinity, "", "-5", "soon", "5x", "h", "1.5h", [], {}, true]) {
    assertEquals(parseDuration(value), undefined, JSON.stringify(value));
  }
});
