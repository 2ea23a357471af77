import { assertEquals } from "@std/assert";
import { Lines, readFailure } from "../../lib/config/source_text.ts";

Deno.test("Lines.place() finds line and column in any order of asking", () => {
  const lines = new Lines("ab\ncd🙂e\n\nf");
  const offsets = [0, 1, 2, 3, 7, 4, 8, 9, 10, 0, 11];
  assertEquals(offsets.map((offset) => Object.values(lines.place(offset)).join(":")), [
    "1:1",
    "1:2",
    "1:3",
    "2:1",
    "2:4",
    "2:2",
    "2:5",
    "3:1",
    "4:1",
    "1:1",
    "4:2",
  ]);
});

Deno.test("readFailure() says in plain words why a file cannot be read", () => {
  assertEquals(readFailure(new Deno.errors.PermissionDenied("EACCES")), "permission denied");
  assertEquals(readFailure(new Error("one\ntwo")), "one two");
});
