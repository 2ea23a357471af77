/**
 * `deno task chaos [--seeds N] [--from K] [--jobs N]`: runs seeds K to K+N-1 and says which of them
 * broke a promise. A seed that failed is run again with `--from SEED --seeds 1`.
 */
import { parseArgs } from "@std/cli/parse-args";
import { packTar } from "modern-tar";
import { runSeed, type SeedResult } from "./seed.ts";

const DEFAULT_SEEDS = 20;
const DEFAULT_PARALLEL = 4;
/** A run takes 10 s, and some minutes when a job does not come to its end; milliseconds. */
const LONGEST_RUN_MS = 400_000;

const args = parseArgs(Deno.args, { string: ["seeds", "from", "jobs"] });
const seeds = Number(args.seeds ?? DEFAULT_SEEDS);
const from = Number(args.from ?? 1);
const parallel = Number(args.jobs ?? DEFAULT_PARALLEL);

const tar = await packTar([{ header: { name: "test/file.txt", size: 5 }, body: "hello" }]);
const attachments = new Uint8Array(
  await new Response(
    new Blob([new Uint8Array(tar)]).stream().pipeThrough(new CompressionStream("gzip")),
  ).arrayBuffer(),
);

const results: SeedResult[] = [];
const stuck: number[] = [];
let next = from;
async function work(): Promise<void> {
  while (next < from + seeds) {
    const seed = next++;
    const result = await endOf(runSeed(seed, attachments));
    if (result === undefined) {
      stuck.push(seed);
      console.log(`seed ${seed} FAILED:\n  it has not ended after ${LONGEST_RUN_MS / 1000} s`);
      continue;
    }
    results.push(result);
    if (result.violations.length > 0) {
      console.log(`seed ${seed} FAILED:\n  ${result.violations.join("\n  ")}`);
      const file = await Deno.makeTempFile({ prefix: `chaos-seed-${seed}-`, suffix: ".log" });
      await Deno.writeTextFile(file, result.output);
      console.log(`  what its agents said is in ${file}`);
    } else if (results.length % 20 === 0) {
      console.log(`${results.length} of ${seeds} seeds done`);
    }
  }
}
/** What a run ends with, unless it takes too long; undefined then. */
async function endOf(run: Promise<SeedResult>): Promise<SeedResult | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const tooLong = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), LONGEST_RUN_MS);
  });
  return await Promise.race([run, tooLong]).finally(() => clearTimeout(timer));
}

await Promise.all(Array.from({ length: parallel }, work));

const sum = (of: (result: SeedResult) => number) => results.reduce((n, r) => n + of(r), 0);
const total = (counts: Record<string, number>) => Object.values(counts).reduce((a, b) => a + b, 0);
const broken = results.filter((result) => result.violations.length > 0).map(({ seed }) => seed);
const failed = [...broken, ...stuck];
console.log(
  `seeds ${from} to ${from + seeds - 1}, ${
    sum((r) => r.generation === "legacy" ? 1 : 0)
  } of them with a server of the older generation, ${
    sum((r) => r.agents > 1 ? 1 : 0)
  } with several agents in the process: ${sum((r) => r.jobs)} jobs (${
    sum((r) => r.cancelled)
  } cancelled, ${sum((r) => r.forgotten)} forgotten by the server, ${
    sum((r) => r.handedOutAgain)
  } handed out again, ${
    sum((r) => r.handedToNobody)
  } handed to an agent that had stopped listening), ${
    sum((r) => total(r.faults))
  } faults injected, agents killed ${sum((r) => r.kills.SIGKILL)} times, told to hand over ${
    sum((r) => r.kills.SIGHUP)
  } times, stopped ${sum((r) => r.kills.SIGTERM)} times, their host rebooted ${
    sum((r) => r.kills.reboot)
  } times, frozen ${sum((r) => r.kills.SIGSTOP)} times, their files damaged ${
    sum((r) => r.damages)
  } times`,
);
if (failed.length > 0) console.log(`failed seeds: ${failed.join(" ")}`);
console.log(`${results.length - broken.length} passed, ${failed.length} failed`);
Deno.exit(failed.length === 0 ? 0 : 1);
