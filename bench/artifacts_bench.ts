/**
 * Artifacts: from the end of the job's last command to their being on the server, beside
 * `tar | gzip -6` and `curl` of the same folder to the same server.
 */
import { join } from "node:path";
import { type BenchRun, type Figure, figure } from "./figures.ts";
import { startBenchLab } from "./lab.ts";
import { milliseconds, shell } from "./program.ts";

const MEGABYTE = 1_000_000;
const SMALL_FILES = 10_000;
const SMALL_BYTES = 1000;
/** What `crypto.getRandomValues()` gives at once. */
const MOST_RANDOM_BYTES = 65_536;

/** One large file that cannot be compressed, and many small ones. */
export async function bench(run: BenchRun): Promise<Figure[]> {
  const folder = await Deno.makeTempDir({ prefix: "artifacts-bench-" });
  try {
    const large = join(folder, "large");
    const small = join(folder, "small");
    await Deno.mkdir(join(large, "artifacts"), { recursive: true });
    await Deno.mkdir(join(small, "artifacts"), { recursive: true });
    const megabytes = run.quick ? 100 : 500;
    await writeNoise(join(large, "artifacts", "noise"), megabytes);
    for (let i = 0; i < SMALL_FILES; i++) {
      const bytes = crypto.getRandomValues(new Uint8Array(SMALL_BYTES));
      await Deno.writeFile(join(small, "artifacts", `file-${i}`), bytes);
    }
    return [
      ...await compare(run, {
        what: `artifacts, ${megabytes} MB of noise`,
        folder: large,
        most: 1.1,
      }),
      ...await compare(run, {
        what: `artifacts, ${SMALL_FILES} files of 1 kB`,
        folder: small,
        most: 1.2,
      }),
    ];
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function writeNoise(path: string, megabytes: number): Promise<void> {
  const piece = new Uint8Array(MEGABYTE);
  for (let i = 0; i < megabytes; i++) {
    for (let start = 0; start < piece.length; start += MOST_RANDOM_BYTES) {
      crypto.getRandomValues(piece.subarray(start, start + MOST_RANDOM_BYTES));
    }
    await Deno.writeFile(path, piece, { append: true });
  }
}

/** What is sent, and how often tar's time it may take. */
interface Sent {
  what: string;
  /** Holds the folder `artifacts`. */
  folder: string;
  most: number;
}

async function compare(
  { quick, program }: BenchRun,
  { what, folder, most }: Sent,
): Promise<Figure[]> {
  const times: number[] = [];
  const peers: number[] = [];
  await using lab = await startBenchLab({
    program,
    config: {
      polling_interval: 1,
      test_command: `cp -r ${folder}/artifacts .`,
      cleanup_command: "date +%s%N",
    },
  });
  const { sandbox, url } = lab.served;
  await lab.ready();
  for (let i = 0; i < (quick ? 1 : 3); i++) {
    const jobId = sandbox.submit({ job_queue: "bench", test_data: { test_cmds: "x" } });
    const arrived = await sandbox.waitFor(() =>
      sandbox.artifact(jobId) === undefined ? undefined : Date.now()
    );
    await sandbox.waitFor(() => sandbox.state(jobId) === "complete");
    const ended = /^(\d{19})$/m.exec(sandbox.log(jobId, "output", "cleanup"))?.[1];
    times.push(arrived - Number(ended) / 1e6);
    const other = sandbox.submit({ job_queue: "nobody", test_data: { test_cmds: "x" } });
    peers.push(
      await milliseconds(() =>
        shell(
          `tar -C ${folder} -c artifacts | gzip -6 | curl -fsS -o /dev/null ` +
            `-F 'file=@-;filename=file;type=application/x-gzip' ${url}/v1/result/${other}/artifact`,
        )
      ),
    );
  }
  return [
    figure({
      what,
      unit: "ms",
      peer: { what: "tar | gzip -6 | curl", values: peers },
      target: `ratio ${most}`,
    }, times),
    figure(
      { what: `  memory of the agent at most, ${what}`, unit: "MiB", target: "120" },
      [await lab.peakMemory()],
    ),
  ];
}
