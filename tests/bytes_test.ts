import { assertEquals, assertStrictEquals } from "@std/assert";
import fc from "fast-check";
import { cutAtEnd, cutAtStart, utf8Cleaner } from "../lib/bytes.ts";
import { fuzzCases, joined, splitAt } from "./process/support.ts";

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

const encoder = new TextEncoder();

function cleaned(chunks: readonly Uint8Array[]): Uint8Array {
  const cleaner = utf8Cleaner();
  const parts = chunks.map((chunk) => cleaner.push(chunk));
  return joined([...parts, cleaner.flush()]);
}

Deno.test("a character that is split between two reads is not broken", () => {
  const bytes = encoder.encode("grün 🦎 ok");
  for (let at = 0; at <= bytes.length; at++) {
    assertEquals(cleaned(splitAt(bytes, [at])), bytes);
  }
});

Deno.test("bytes that are not UTF-8 become U+FFFD", () => {
  const bytes = Uint8Array.of(0x61, 0xff, 0x62, 0xc3);
  assertEquals(new TextDecoder().decode(cleaned([bytes])), "a\ufffdb\ufffd");
});

Deno.test("a byte order mark stays where it is", () => {
  const bytes = Uint8Array.of(0xef, 0xbb, 0xbf, 0x61, 0xff);
  assertEquals(cleaned([bytes]), Uint8Array.of(0xef, 0xbb, 0xbf, 0x61, 0xef, 0xbf, 0xbd));
});

Deno.test("valid output is handed on without a copy", () => {
  const bytes = encoder.encode("all is well: grün");
  assertStrictEquals(utf8Cleaner().push(bytes).buffer, bytes.buffer);
});

Deno.test("at most three bytes are held back", () => {
  const cleaner = utf8Cleaner();
  const bytes = encoder.encode("abc🦎");
  assertEquals(cleaner.push(bytes.subarray(0, 6)), encoder.encode("abc"));
  assertEquals(cleaner.push(bytes.subarray(6)), encoder.encode("🦎"));
  assertEquals(cleaner.flush().length, 0);
});

Deno.test("however the output is cut, it reads as the decoder reads all of it", () => {
  // Bytes at which the decoder does something special, more often than by chance.
  const special = fc.constantFrom(
    ...[0x00, 0x61, 0x7f, 0x80, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xdf, 0xe0, 0xed, 0xef],
    ...[0xbb, 0xf0, 0x8f, 0x90, 0xf4, 0xf5, 0xff],
  );
  const someBytes = fc.array(fc.oneof(special, fc.integer({ min: 0, max: 255 })), {
    maxLength: 40,
  });
  fc.assert(
    fc.property(someBytes, fc.array(fc.nat(40), { maxLength: 8 }), (numbers, cuts) => {
      const bytes = Uint8Array.from(numbers);
      const whole = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
      assertEquals(cleaned(splitAt(bytes, cuts)), encoder.encode(whole));
    }),
    { numRuns: fuzzCases() },
  );
});
