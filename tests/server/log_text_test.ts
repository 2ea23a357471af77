import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { LogText, textMemory } from "../../lib/server/log_text.ts";

function roundTrip(text: string): unknown {
  const json = new LogText(new TextEncoder().encode(text)).jsonWith({ a: 1 }, "text");
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

Deno.test("a text can be had again, with another head and without touching what was had before", () => {
  const text = new LogText(new TextEncoder().encode("Grüße\n"));
  text.prepareJson();
  const bodies = [1, 22].map((n) => text.jsonWith({ n }, "text"));
  assertEquals(bodies.map((body) => JSON.parse(new TextDecoder().decode(body))), [
    { n: 1, text: "Grüße\n" },
    { n: 22, text: "Grüße\n" },
  ]);
});

Deno.test("texts that share memory one after the other are each as they were, however much is escaped", () => {
  const memory = textMemory(1000);
  for (const text of ["Grüße\n".repeat(100), "\x01".repeat(1000), "short"]) {
    const { written } = new TextEncoder().encodeInto(text, memory.utf8);
    const piece = new LogText(memory.utf8.subarray(0, written), memory);
    const [first, again] = [1, 2].map((n) => piece.jsonWith({ n }, "text"));
    for (const [n, body] of [[1, first], [2, again]] as const) {
      assertEquals(JSON.parse(new TextDecoder().decode(body)), { n, text });
    }
  }
});

Deno.test("a text of many steps is cut nowhere that can be seen", () => {
  for (const shift of [0, 1, 2, 3]) {
    const text = "x".repeat(shift) + "𝄞☃ü\n".repeat(50_000);
    const json = new LogText(new TextEncoder().encode(text)).jsonWith({ a: 1 }, "text");
    assertEquals(JSON.parse(new TextDecoder().decode(json)).text === text, true);
  }
});
