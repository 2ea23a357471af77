/** Inputs that several targets share. */
import fc from "fast-check";

/** Bytes without any sense. */
export const anyBytes: fc.Arbitrary<Uint8Array> = fc.uint8Array({ maxLength: 300 });

/** The text with some of its bytes replaced, left out or repeated, or cut off. */
export function mutated(text: string): fc.Arbitrary<Uint8Array> {
  return fc.array(change, { minLength: 1, maxLength: 5 }).map((changes) => {
    let bytes = new TextEncoder().encode(text);
    for (const { at, drop, put } of changes) {
      const from = Math.floor(at * bytes.length);
      bytes = Uint8Array.from([
        ...bytes.subarray(0, from),
        ...put,
        ...bytes.subarray(drop === CUT ? bytes.length : from + drop),
      ]);
    }
    return bytes;
  });
}

const CUT = 20;
const change = fc.record({
  at: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
  drop: fc.nat(CUT),
  put: fc.oneof(
    fc.uint8Array({ maxLength: 3 }),
    fc.constantFrom(...'{}[]",:\\0\n\t-').map((sign) => new TextEncoder().encode(sign)),
  ),
});

/** JSON nested deeper than a call stack, in an object. */
export const deepJson: fc.Arbitrary<string> = fc.tuple(
  fc.constantFrom(
    ["[", "]"] as const,
    ['{"a":', "}"] as const,
    ['[{"job_id":', "}]"] as const,
  ),
  fc.constantFrom(200, 6_000),
).map(([[begin, end], depth]) => begin.repeat(depth) + "1" + end.repeat(depth));

/** Any JSON value, with names and texts that mean something to somebody. */
export function oddJson(words: readonly string[]): fc.Arbitrary<unknown> {
  const word = fc.constantFrom(...words, "__proto__", "constructor", "toString", "");
  const text = fc.oneof(word, fc.string({ unit: "binary", maxLength: 20 }));
  return fc.letrec((tie) => ({
    any: fc.oneof(
      { maxDepth: 4 },
      text,
      fc.constantFrom<unknown>(null, true, false, 0, -1, 1e308, 5e-324, 2 ** 53),
      fc.array(tie("any"), { maxLength: 4 }),
      fc.array(fc.tuple(word, tie("any")), { maxLength: 5 })
        .map((entries) => Object.fromEntries(entries)),
    ),
  })).any;
}

/** Replaces what is in an open file: making a new one for each case takes far longer. */
export function replaceIn(file: Deno.FsFile, bytes: Uint8Array): void {
  file.truncateSync(0);
  file.seekSync(0, Deno.SeekMode.Start);
  for (let written = 0; written < bytes.length;) {
    written += file.writeSync(bytes.subarray(written));
  }
}
