/**
 * `deno task bench [--quick] [--source] [NAME...]`: measures the packaged program, prints one table,
 * writes it to `bench/results/<date>.json` and compares it with the last one there.
 *
 * `--quick` measures less, and `--source` the program of the checkout; what they measure is not
 * written. NAME is that of a file without `_bench.ts`.
 */
import { join } from "node:path";
import { parseArgs } from "@std/cli/parse-args";
import { VERSION } from "../lib/version.ts";
import { type Bench, type BenchRun, type Figure, Results, table } from "./figures.ts";
import { buildProgram, output, sourceProgram } from "./program.ts";

const FOLDER = import.meta.dirname ?? "";
const RESULTS = join(FOLDER, "results");

const args = parseArgs(Deno.args, { boolean: ["quick", "source"] });
const names: string[] = args._.map(String);

/** All files of benchmarks, or the ones that the command line names. */
function benchFiles(): string[] {
  const files = [...Deno.readDirSync(FOLDER)].map(({ name }) => name)
    .filter((name) => name.endsWith("_bench.ts")).sort();
  const unknown = names.filter((name) => !files.includes(`${name}_bench.ts`));
  if (unknown.length > 0) {
    const known = files.map((file) => file.slice(0, -"_bench.ts".length)).join(", ");
    console.error(`bench: there is no ${unknown.join(", ")}; there are ${known}`);
    Deno.exit(2);
  }
  return names.length === 0 ? files : names.map((name) => `${name}_bench.ts`);
}

/** The newest results but for today's, which a second run of the day replaces. */
function lastResults(today: string): Results | undefined {
  const newest = [...Deno.readDirSync(RESULTS)].map(({ name }) => name)
    .filter((name) => name.endsWith(".json") && name !== `${today}.json`).sort().at(-1);
  if (newest === undefined) return undefined;
  return Results.parse(JSON.parse(Deno.readTextFileSync(join(RESULTS, newest))));
}

async function machine(): Promise<Results["machine"]> {
  const cpus = await output("grep", "model name", "/proc/cpuinfo");
  return {
    cpu: cpus.split("\n")[0]?.split(":")[1]?.trim() ?? Deno.build.arch,
    cores: navigator.hardwareConcurrency,
    memoryGb: Math.round(Deno.systemMemoryInfo().total / 1e9),
    kernel: Deno.osRelease(),
  };
}

const files = benchFiles();
await Deno.mkdir(RESULTS, { recursive: true });
const today = new Date().toISOString().slice(0, 10);
const last = lastResults(today);
const folder = await Deno.makeTempDir({ prefix: "testflinger-bench-" });
try {
  const program = args.source ? sourceProgram() : [await buildProgram(join(folder, "dist"))];
  // What is unpacked at the first start goes with the rest.
  Deno.env.set("TESTFLINGER_AGENT_CACHE", join(folder, "cache"));
  const run: BenchRun = { quick: args.quick, program };
  const figures: Figure[] = [];
  for (const file of files) {
    console.error(`${file} ...`);
    const { bench } = await import(join(FOLDER, file)) as { bench: Bench };
    figures.push(...await bench(run));
  }
  const results: Results = {
    date: new Date().toISOString(),
    version: VERSION,
    commit: (await output("git", "-C", FOLDER, "rev-parse", "--short", "HEAD")).trim(),
    machine: await machine(),
    figures,
  };
  const { cpu, cores, memoryGb, kernel } = results.machine;
  console.log(`\n${cpu}, ${cores} cores, ${memoryGb} GB, Linux ${kernel}, ${results.date}\n`);
  console.log(table(figures, last));
  if (!args.quick && !args.source && names.length === 0) {
    const path = join(RESULTS, `${today}.json`);
    await Deno.writeTextFile(path, `${JSON.stringify(results, null, 2)}\n`);
    console.log(`\nWritten to bench/results/${today}.json`);
  }
} finally {
  await Deno.remove(folder, { recursive: true });
}
