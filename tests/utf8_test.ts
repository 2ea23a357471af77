import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { cutAtEnd, cutAtStart } from "../lib/utf8.ts";

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

Deno.test("text that is cut anywhere loses nothing but the characters that were cut", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), fc.nat(), fc.nat(), (text, one, other) => {
      const bytes = new TextEncoder().encode(text.toWellFormed());
      const [from, to] = [one % (bytes.length + 1), other % (bytes.length + 1)].sort((a, b) =>
        a - b
      );
      const cut = bytes.subarray(from, to);
      const [start, end] = [cutAtStart(cut), cutAtEnd(cut)];
      const whole = decoder.decode(cut.subarray(start, Math.max(start, cut.length - end)));
      return text.toWellFormed().includes(whole) && start < 4 && end < 4;
    }),
  );
});

Deno.test("text that begins and ends with a whole character is not cut", () => {
  for (const text of ["", "a", "ä", "€", "😀", "ab😀"]) {
    const bytes = new TextEncoder().encode(text);
    assertEquals([cutAtStart(bytes), cutAtEnd(bytes)], [0, 0]);
  }
});
