import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { jsonWithText } from "../../lib/server/json_text.ts";

function roundTrip(text: string): unknown {
  const json = jsonWithText({ a: 1 }, "text", new TextEncoder().encode(text));
  return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json));
}

Deno.test("any text comes out of the JSON as it went in", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      assertEquals(roundTrip(text.toWellFormed()), { a: 1, text: text.toWellFormed() });
    }),
    { numRuns: 2000 },
  );
});

Deno.test("control characters, quotes and backslashes are escaped", () => {
  const text = Array.from({ length: 128 }, (_, code) => String.fromCharCode(code)).join("");
  assertEquals(roundTrip(text), { a: 1, text });
  assertEquals(roundTrip(""), { a: 1, text: "" });
});
