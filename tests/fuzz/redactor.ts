import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { type Pattern, patternsOf } from "../../lib/process/patterns.ts";
import { compileSecrets } from "../../lib/process/redactor.ts";
import { joined, splitAt } from "../process/support.ts";
import { type FuzzTarget, plainTarget } from "./target.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** What the redactor shall do, done as simply as can be. One character is one byte here. */
function naive(text: string, patterns: readonly Pattern[]): string {
  const known = Map.groupBy(
    patterns.map(({ bytes, mask }) => ({
      text: decoder.decode(bytes),
      mask: decoder.decode(mask),
    })),
    (pattern) => pattern.text[0],
  );
  let result = "";
  for (let at = 0; at < text.length;) {
    let best: { text: string; mask: string } | undefined;
    for (const pattern of known.get(text[at]) ?? []) {
      const longer = best === undefined || pattern.text.length > best.text.length;
      if (longer && text.startsWith(pattern.text, at)) best = pattern;
    }
    result += best?.mask ?? text[at];
    at += best?.text.length ?? 1;
  }
  return result;
}

/** Few letters, so that near misses, overlaps and repetitions are common. */
const ALPHABETS = [
  ["x", "y"],
  ["x", "y", "z", " ", "\n", "\r"],
  ["x", "+", "&", "\n", '"'],
  // Letters of which masks are made.
  ["*", "a", "2", "/", "%"],
];

function texts(alphabet: readonly string[], maxLength: number) {
  return fc.array(fc.constantFrom(...alphabet), { maxLength }).map((letters) => letters.join(""));
}

const cases = fc.constantFrom(...ALPHABETS).chain((alphabet) => {
  const values = fc.array(texts(alphabet, 9), { maxLength: 8 });
  return values.chain((values) => {
    // Letters alone rarely make an encoded form: put them in, whole.
    const forms = patternsOf(values).map(({ bytes }) => decoder.decode(bytes));
    const piece = forms.length === 0
      ? texts(alphabet, 12)
      : fc.oneof(texts(alphabet, 12), fc.constantFrom(...forms));
    return fc.record({
      alphabet: fc.constant(alphabet),
      values: fc.constant(values),
      text: fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join("")),
      cuts: fc.array(fc.nat(120), { maxLength: 12 }),
    });
  });
});

/** However output is cut, it is masked as the naive way does, and no secret is left. */
export const redactor: FuzzTarget = plainTarget(
  "redactor",
  fc.property(cases, ({ alphabet, values, text, cuts }) => {
    const patterns = patternsOf(values);
    const masked = throughStream(values, splitAt(encoder.encode(text), cuts));
    assertEquals(masked, naive(text, patterns));
    // Masks may spell such secrets: see the documentation of Secrets.
    if (alphabet.includes("*")) return;
    for (const { bytes } of patterns) {
      const pattern = decoder.decode(bytes);
      assert(!masked.includes(pattern), `${JSON.stringify(pattern)} in ${JSON.stringify(masked)}`);
    }
  }),
);

function throughStream(secrets: readonly string[], chunks: readonly Uint8Array[]): string {
  const stream = compileSecrets(secrets).stream();
  const parts = chunks.map((chunk) => stream.push(chunk));
  return decoder.decode(joined([...parts, stream.flush()]));
}
