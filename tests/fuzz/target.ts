/**
 * What is fed with inputs that nobody thought of. The test suite tries each target some thousand
 * times; `deno task fuzz` goes on for as long as it is told.
 */
import fc from "fast-check";

/** Something that takes input from outside, and what must hold whatever comes. */
export interface FuzzTarget {
  /** A few words for a table. */
  name: string;
  /** Makes what the property needs: folders, a server. */
  open(): Promise<OpenTarget> | OpenTarget;
}

/** A target that is ready. */
export interface OpenTarget extends AsyncDisposable {
  property: fc.IRawProperty<unknown>;
  /** Throws when the cases so far were such that nothing would be learned from them. */
  checkVariety?(): void;
}

/** A target that needs nothing. */
export function plainTarget(name: string, property: fc.IRawProperty<unknown>): FuzzTarget {
  return { name, open: () => ({ property, [Symbol.asyncDispose]: () => Promise.resolve() }) };
}

/** Tries a target in the test suite: `cases` times, or as often as FUZZ_CASES says. */
export async function tryTarget(target: FuzzTarget, cases: number): Promise<void> {
  await using open = await target.open();
  await fc.assert(open.property, { numRuns: Number(Deno.env.get("FUZZ_CASES") ?? cases) });
  open.checkVariety?.();
}
