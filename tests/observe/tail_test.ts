import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { createTail } from "../../lib/observe/tail.ts";

const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

Deno.test("a tail keeps everything until it is full, and then the end", () => {
  const tail = createTail(8);
  tail.push(encode("abcd"));
  assertEquals(decode(tail.bytes()), "abcd");
  tail.push(encode("efgh"));
  assertEquals(decode(tail.bytes()), "abcdefgh");
  tail.push(encode("ij"));
  assertEquals(decode(tail.bytes()), "cdefghij");
  tail.push(encode("0123456789"));
  assertEquals(decode(tail.bytes()), "23456789");
  tail.clear();
  assertEquals(decode(tail.bytes()), "");
});

Deno.test("a tail does not begin within a character", () => {
  const tail = createTail(8);
  tail.push(encode("🛠🛠🛠x"));
  assertEquals(decode(tail.bytes()), "🛠x");
});

Deno.test("a tail is the end of what was pushed, however it was cut into pieces", () => {
  fc.assert(fc.property(
    fc.array(fc.uint8Array({ max: 127, maxLength: 40 }), { maxLength: 20 }),
    fc.integer({ min: 1, max: 30 }),
    (pieces, size) => {
      const tail = createTail(size);
      for (const piece of pieces) tail.push(piece);
      const all = pieces.flatMap((piece) => [...piece]);
      assertEquals([...tail.bytes()], all.slice(-size));
    },
  ));
});

Deno.test("what was handed out does not change with what comes later", () => {
  const tail = createTail(4);
  tail.push(encode("ab"));
  const before = tail.bytes();
  tail.push(encode("cdef"));
  assertEquals(decode(before), "ab");
});
