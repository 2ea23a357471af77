/**
 * `deno task fuzz [--minutes N] [--seed N] [--target WORD]`: feeds everything that takes input from
 * outside for N minutes, shared among the targets, and prints how many cases each had and how many
 * a second. Ends with status 1 when a property did not hold; the seed and the path that are printed
 * then lead to the same case again.
 */
import { parseArgs } from "@std/cli/parse-args";
import fc from "fast-check";
import type { FuzzTarget } from "./target.ts";
import { TARGETS } from "./targets.ts";

const DEFAULT_MINUTES = 1;
/** Cases between two looks at the clock. */
const BATCH = 200;

interface Result {
  cases: number;
  seconds: number;
  failure?: string;
}

const args = parseArgs(Deno.args, { string: ["minutes", "seed", "target"] });
const minutes = Number(args.minutes ?? DEFAULT_MINUTES);
const firstSeed = Number(args.seed ?? Date.now() % 2 ** 31);
const targets = TARGETS.filter(({ name }) => name.includes(String(args.target ?? "")));
if (!(minutes > 0) || !Number.isInteger(firstSeed) || targets.length === 0) {
  console.error("--minutes must be above 0, --seed an integer, and --target a part of one of:");
  console.error(TARGETS.map(({ name }) => `  ${name}`).join("\n"));
  Deno.exit(2);
}

console.log(`${minutes} minutes, ${targets.length} targets, seed ${firstSeed}`);
let failed = 0;
for (const target of targets) {
  const { cases, seconds, failure } = await fuzz(target, minutes * 60 / targets.length);
  const rate = Math.round(cases / seconds);
  console.log(
    `${target.name.padEnd(28)} ${`${cases}`.padStart(9)} cases ${`${rate}`.padStart(7)} a second` +
      (failure === undefined ? "" : "   FAILED"),
  );
  if (failure === undefined) continue;
  failed++;
  console.log(failure);
}
console.log(`${targets.length - failed} held, ${failed} failed`);
Deno.exit(failed === 0 ? 0 : 1);

/** Tries one target for so many seconds, or until it fails. */
async function fuzz(target: FuzzTarget, seconds: number): Promise<Result> {
  await using open = await target.open();
  const started = performance.now();
  const elapsed = () => (performance.now() - started) / 1000;
  let cases = 0;
  for (let seed = firstSeed; elapsed() < seconds; seed++) {
    const details = await fc.check(open.property, { numRuns: BATCH, seed });
    cases += details.numRuns;
    if (details.failed) {
      const failure = fc.defaultReportMessage(details) ?? "it failed without a word";
      return { cases, seconds: elapsed(), failure };
    }
  }
  return { cases, seconds: elapsed() };
}
