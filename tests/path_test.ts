import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { posix } from "node:path";
import * as path from "../lib/path.ts";

const PARTS = ["", ".", "..", "a", ".b", "c.conf", "..d", "e f", "/", "//"];

/** Paths of all kinds, most of them odd. */
const anyPath = fc.array(fc.constantFrom(...PARTS), { maxLength: 6 })
  .chain((parts) => fc.constantFrom(parts.join("/"), parts.join("")));

Deno.test("paths come to what node:path makes of them", () => {
  fc.assert(
    fc.property(anyPath, fc.array(anyPath, { maxLength: 3 }), (one, others) => {
      assertEquals(path.normalize(one), posix.normalize(one));
      assertEquals(path.isAbsolute(one), posix.isAbsolute(one));
      assertEquals(path.join(one, ...others), posix.join(one, ...others));
      assertEquals(path.resolve(one, ...others), posix.resolve(one, ...others));
      assertEquals(path.basename(one), posix.basename(one));
      // Of nothing but slashes that one leaves all of them.
      if (/[^/]/.test(one)) {
        assertEquals(path.basename(one, ".conf"), posix.basename(one, ".conf"));
      }
      // That one leaves slashes at the end of it.
      assertEquals(path.dirname(one), posix.dirname(one).replace(/\/+$/, "") || "/");
    }),
    { numRuns: 2000 },
  );
});
