import { assertEquals } from "@std/assert";
import { formatMistake, formatPath } from "../../lib/config/mistake.ts";

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
