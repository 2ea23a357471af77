import { assertEquals, assertStrictEquals } from "@std/assert";
import fc from "fast-check";
import { utf8Cleaner } from "../../lib/process/utf8_cleaner.ts";
import { fuzzCases, joined, splitAt } from "./support.ts";

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
