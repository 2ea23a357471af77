import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { jsonWithText, Outgoing } from "../../lib/server/request_body.ts";

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

Deno.test("a connection that is lost while the source is being read is no fault of the source", async () => {
  const gate = Promise.withResolvers<void>();
  const source = new ReadableStream<Uint8Array>({
    async pull(controller) {
      await gate.promise;
      try {
        controller.enqueue(new Uint8Array(1));
      } catch {
        // Nobody takes it any more.
      }
    },
  });
  const outgoing = new Outgoing(source, () => {});
  const reader = outgoing.stream.getReader();
  const read = reader.read();
  const cancelled = reader.cancel();
  gate.resolve();
  await Promise.all([read, cancelled]);
  await outgoing.cancel();
  assertEquals(outgoing.fault, undefined);
  assertEquals(outgoing.sent, 0);
});
