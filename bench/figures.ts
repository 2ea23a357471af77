/** Figures: what a benchmark measures, how they are printed, kept, and compared with the last ones. */
import * as z from "zod";

/** What was measured, as it is kept in `bench/results/`. */
export const Figure = z.object({
  /** Stable: the figures of two runs are matched by it. */
  what: z.string(),
  unit: z.string(),
  median: z.number(),
  p95: z.number().optional(),
  /** How many measurements. */
  n: z.int(),
  /** The same work done without the agent, in the same minute and unit. */
  peer: z.object({ what: z.string(), median: z.number() }).optional(),
  /** What the figure is to reach. */
  target: z.string().optional(),
  /** What the established agent needs, quoted from its users and not measured here. */
  established: z.string().optional(),
});
export type Figure = z.infer<typeof Figure>;

/** One run of the benchmarks. */
export const Results = z.object({
  date: z.string(),
  version: z.string(),
  commit: z.string(),
  machine: z.object({ cpu: z.string(), cores: z.int(), memoryGb: z.number(), kernel: z.string() }),
  figures: z.array(Figure),
});
export type Results = z.infer<typeof Results>;

/** What a benchmark is told. */
export interface BenchRun {
  /** Fewer repetitions and smaller inputs: all benchmarks together in two minutes. */
  readonly quick: boolean;
  /** The command line that starts the agent: the packaged program. */
  readonly program: readonly string[];
}

/** A file of benchmarks exports one of these as `bench`. */
export type Bench = (run: BenchRun) => Promise<Figure[]>;

/** What {@linkcode figure} takes besides the measurements. */
export type FigureParts = Omit<Figure, "median" | "p95" | "n" | "peer"> & {
  /** Its measurements are summed up as the figure's own are: by their median. */
  peer?: { what: string; values: readonly number[] };
};

/** From this many measurements on the 95th percentile says something. */
const ENOUGH_FOR_P95 = 10;

/** Makes a figure of its measurements, of which there is at least one. */
export function figure({ peer, ...parts }: FigureParts, values: readonly number[]): Figure {
  return {
    ...parts,
    median: quantile(values, 0.5),
    ...(values.length >= ENOUGH_FOR_P95 && { p95: quantile(values, 0.95) }),
    n: values.length,
    ...(peer !== undefined && { peer: { what: peer.what, median: quantile(peer.values, 0.5) } }),
  };
}

/** The value below which `share` of `values` lie. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}

const COLUMNS = ["what", "median", "p95", "n", "peer", "ratio", "last", "target"] as const;
type Row = Record<typeof COLUMNS[number], string>;

/** One table of all figures, with those of `last` beside them. */
export function table(figures: readonly Figure[], last?: Results): string {
  const rows: Row[] = figures.map((own) => {
    const before = last?.figures.find(({ what }) => what === own.what);
    return {
      what: own.what,
      median: amount(own.median, own.unit),
      p95: own.p95 === undefined ? "" : amount(own.p95, own.unit),
      n: String(own.n),
      peer: own.peer === undefined ? "" : `${amount(own.peer.median, own.unit)} ${own.peer.what}`,
      ratio: own.peer === undefined ? "" : (own.median / own.peer.median).toFixed(2),
      last: before === undefined ? "" : change(own.median, before.median),
      target: [own.target, own.established === undefined ? "" : `(${own.established})`]
        .filter((text) => text !== undefined && text !== "").join(" "),
    };
  });
  const header = Object.fromEntries(COLUMNS.map((name) => [name, name])) as Row;
  const width = (column: typeof COLUMNS[number]) =>
    Math.max(...[header, ...rows].map((row) => row[column].length));
  return [header, ...rows].map((row) =>
    COLUMNS.map((column) =>
      ["median", "p95", "n", "ratio", "last"].includes(column)
        ? row[column].padStart(width(column))
        : row[column].padEnd(width(column))
    ).join("  ").trimEnd()
  ).join("\n");
}

/** `12.3 ms`: three digits that mean something. */
function amount(value: number, unit: string): string {
  const size = Math.abs(value);
  const digits = size >= 100 || Number.isInteger(value) ? 0 : size >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${unit}`.trimEnd();
}

function change(now: number, before: number): string {
  if (before === 0) return "";
  const percent = Math.round((now / before - 1) * 100);
  return `${percent >= 0 ? "+" : ""}${percent} %`;
}
