import { assert } from "@std/assert";
import fc from "fast-check";
import { JsonFault, ObjectScanner } from "../../lib/server/json_scan.ts";
import { splitAt } from "../process/support.ts";
import { anyBytes, deepJson, mutated, oddJson } from "./inputs.ts";
import { type FuzzTarget, plainTarget } from "./target.ts";

const WORDS = ["job_state", "test_output", "cleanup_serial", "\ud800", "a\u0000b"];
const VALID = '{"job_state": "test", "test_output": "a\\u00e4\\ud83d\\ude00", "x": [1.5e-3, {}]}';

const result = fc.oneof(
  { weight: 4, arbitrary: anyBytes },
  { weight: 8, arbitrary: mutated(VALID) },
  { weight: 8, arbitrary: oddJson(WORDS).map((value) => JSON.stringify(value)) },
  { weight: 1, arbitrary: deepJson },
);

/** A result that arrives in any pieces is read, or is a `JsonFault`; what is valid is read whole. */
export const jsonScanner: FuzzTarget = plainTarget(
  "reader of results",
  fc.property(result, fc.array(fc.nat(200), { maxLength: 5 }), (content, cuts) => {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    let texts = 0;
    const scanner = new ObjectScanner({
      want: (key) => key === "job_state" ? "text" : "length",
      found: ({ text, bytes }) => {
        texts++;
        assert(bytes >= 0 && (text === undefined || text.length <= bytes));
      },
    });
    let complete = false;
    try {
      for (const piece of splitAt(bytes, cuts)) scanner.push(piece);
      complete = scanner.complete;
    } catch (error) {
      assert(error instanceof JsonFault, String(error));
    }
    const valid = objectOf(bytes);
    if (valid === undefined || deeper(bytes)) return;
    assert(complete, "a valid object was refused");
    const strings = Object.values(valid).filter((value) => typeof value === "string");
    assert(texts >= strings.length, `${texts} of ${strings.length} texts`);
  }),
);

function objectOf(bytes: Uint8Array): object | undefined {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** The scanner's own limit is far above what anybody means. */
function deeper(bytes: Uint8Array): boolean {
  return bytes.length > 10_000;
}
