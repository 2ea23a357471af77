import { assertEquals } from "@std/assert";
import { parseSize } from "../../lib/config/sizes.ts";

Deno.test("parseSize() reads sizes in decimal and binary units, and plain bytes", () => {
  assertEquals(
    ["0", "1048576", "1 B", "500 MB", "500MB", "1 kb", "1 KiB", "1.5 GiB", " 2 TiB ", "10 GB"]
      .map(parseSize),
    [0, 1048576, 1, 500_000_000, 500_000_000, 1000, 1024, 1610612736, 2199023255552, 1e10],
  );
});

Deno.test("parseSize() refuses what it could only guess", () => {
  for (
    const text of [
      "",
      "1 G",
      "1K",
      "-1 GB",
      "1e3",
      "1,5 GB",
      "GiB",
      "1 GiB free",
      "9999999 TiB",
      "1 constructor",
    ]
  ) {
    assertEquals(parseSize(text), undefined, text);
  }
});
