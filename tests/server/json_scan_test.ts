import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { JsonFault, ObjectScanner } from "../../lib/server/json_scan.ts";

const CASES = 3_000;

function scan(bytes: Uint8Array, cuts: number[] = [], stopAt?: string) {
  // Maps, because any key may come, __proto__ too.
  const lengths = new Map<string, number>();
  const texts = new Map<string, string>();
  const scanner = new ObjectScanner({
    want: (key) => key.startsWith("t") ? "text" : key.startsWith("skip") ? undefined : "length",
    found: ({ key, bytes, text }) => {
      lengths.set(key, bytes);
      if (text !== undefined) texts.set(key, text);
      return key === stopAt;
    },
  });
  const ends = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  let from = 0;
  for (const end of [...ends, bytes.length]) {
    scanner.push(bytes.subarray(from, end));
    from = end;
  }
  return { lengths, texts, scanner };
}

const encode = (text: string) => new TextEncoder().encode(text);

Deno.test("string lengths and texts are those of JSON.parse, however the bytes are cut", () => {
  const key = fc.oneof(fc.string({ unit: "binary" }), fc.constantFrom("t", "test_output", "skip1"));
  // Lone halves of pairs included: JSON writes them as escapes.
  const text = fc.string({ unit: fc.nat(0xffff).map((unit) => String.fromCharCode(unit)) });
  const value = fc.oneof(text, fc.string({ unit: "binary" }), fc.jsonValue());
  const object = fc.dictionary(key, value);
  const indent = fc.constantFrom(undefined, 1, "\t\r\n ".slice(0, 1));
  fc.assert(
    fc.property(
      object,
      fc.array(fc.nat(10_000)),
      indent,
      fc.boolean(),
      (value, cuts, gap, ascii) => {
        let json = JSON.stringify(value, null, gap);
        if (ascii) {
          json = json.replace(
            /[\u007f-\uffff]/g,
            (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
          );
        }
        const { lengths, texts, scanner } = scan(encode(json), cuts);
        assert(scanner.complete);
        const strings = Object.entries(JSON.parse(json)).filter((
          entry,
        ): entry is [string, string] =>
          typeof entry[1] === "string" && !entry[0].startsWith("skip")
        );
        assertEquals(
          lengths,
          new Map(strings.map(([key, text]) => [key, encode(text).length])),
        );
        assertEquals(
          texts,
          new Map(strings.filter(([key]) => key.startsWith("t"))),
        );
      },
    ),
    { numRuns: CASES },
  );
});

Deno.test("what JSON.parse refuses is refused or found incomplete, and nothing else is", () => {
  const piece = fc.constantFrom(
    ...'{}[],:"\\ \n09-+.eEtfnu/x',
    "true",
    "null",
    "false",
    '"a"',
    '"a":',
    "1.5e-3",
    "\\u00e4",
    "\\ud83d",
    "\t",
    '"\u0001"',
  );
  const text = fc.array(piece, { maxLength: 14 }).map((pieces) => `{${pieces.join("")}`);
  const closed = fc.tuple(text, fc.constantFrom("", "}", "]}")).map((parts) => parts.join(""));
  fc.assert(
    fc.property(closed, fc.array(fc.nat(50)), (json, cuts) => {
      let valid = true;
      try {
        JSON.parse(json);
      } catch {
        valid = false;
      }
      let accepted: boolean;
      try {
        accepted = scan(encode(json), cuts).scanner.complete;
      } catch (error) {
        assert(error instanceof JsonFault, String(error));
        accepted = false;
      }
      assertEquals(accepted, valid, json);
    }),
    { numRuns: 20_000 },
  );
});

Deno.test("every beginning of an object is incomplete, never complete and never wrong", () => {
  const bytes = encode('{"a": "x\\u00e4\\n", "b": [1.5e3, {"c": null}], "d": -0, "e": true}');
  for (let length = 0; length < bytes.length; length++) {
    assertEquals(scan(bytes.subarray(0, length)).scanner.complete, false);
  }
  assert(scan(bytes).scanner.complete);
});

Deno.test("random bytes make a JsonFault or nothing", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        scan(bytes);
      } catch (error) {
        assert(error instanceof JsonFault, String(error));
      }
    }),
    { numRuns: 10_000 },
  );
});

Deno.test("reading stops at the value that was asked for, whatever follows it", () => {
  const { texts, scanner } = scan(
    encode('{"a": 1, "tstate": "test", this is not JSON'),
    [],
    "tstate",
  );
  assertEquals(Object.fromEntries(texts), { tstate: "test" });
  assert(scanner.stopped);
});

Deno.test("a byte order mark in a text or a key is part of it", () => {
  const json = '{"t": "\ufeff", "t\ufeff": "x"}';
  assertEquals(Object.fromEntries(scan(encode(json)).texts), { t: "\ufeff", "t\ufeff": "x" });
});

Deno.test("a key of the same name further down is not meant", () => {
  const { texts } = scan(
    encode('{"device_info": {"t": "inner", "x": [{"t": "deep"}]}, "t": "outer"}'),
  );
  assertEquals(Object.fromEntries(texts), { t: "outer" });
});

Deno.test("a page, a list and a bare text are not taken for an object", () => {
  for (const text of ["<html>", "[]", '"x"', "null", "true", "12"]) {
    assertThrows(() => scan(encode(text)), JsonFault);
  }
});

Deno.test("endless nesting and endless keys do not fill the memory", () => {
  assertThrows(() => scan(encode('{"a":' + "[".repeat(20_000))), JsonFault, "nested too deeply");
  const { lengths } = scan(encode(`{"${"k".repeat(100_000)}": "x", "b": "yy"}`));
  assertEquals(lengths.get("b"), 2);
});

Deno.test("numbers that are wanted are those of the top-level object, however the bytes are cut", () => {
  const text = '{"n": 46, "x": {"n": 1}, "y": [2], "m":-1.5e3,"long": ' + "1".repeat(100) +
    ', "n2": "7", "n3": null, "last": 0}';
  for (let cut = 0; cut <= text.length; cut++) {
    const found: Record<string, string | undefined> = {};
    const scanner = new ObjectScanner({
      want: () => "number",
      found: ({ key, text }) => void (found[key] = text),
    });
    scanner.push(encode(text.slice(0, cut)));
    scanner.push(encode(text.slice(cut)));
    assertEquals(found, { n: "46", m: "-1.5e3", last: "0" });
    assert(scanner.complete);
  }
});
