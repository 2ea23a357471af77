import { assertEquals } from "@std/assert";
import { size } from "../../lib/observe/words.ts";

Deno.test("a size is shown in the unit that it is counted in, and not rounded down", () => {
  assertEquals(
    [0, 512, 1536, 5_000_000, 5 * 1024 ** 2, 5 * 1024 ** 3 - 1].map(size),
    ["0 bytes", "512 bytes", "1.5 KiB", "4.8 MiB", "5.0 MiB", "5.0 GiB"],
  );
});
