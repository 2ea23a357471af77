import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { wholeCharacters } from "../../lib/outbox/whole_characters.ts";

Deno.test("text that is cut anywhere loses nothing but the character that was cut", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), fc.nat(), (text, seed) => {
      const bytes = new TextEncoder().encode(text.toWellFormed());
      const cut = bytes.subarray(0, seed % (bytes.length + 1));
      const whole = wholeCharacters(cut);
      const decoded = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
        .decode(bytes.subarray(0, whole));
      return text.toWellFormed().startsWith(decoded) && cut.length - whole < 4;
    }),
  );
});

Deno.test("text that ends with a whole character is not cut", () => {
  for (const text of ["", "a", "ä", "€", "😀", "ab😀"]) {
    const bytes = new TextEncoder().encode(text);
    assertEquals(wholeCharacters(bytes), bytes.length);
  }
});
