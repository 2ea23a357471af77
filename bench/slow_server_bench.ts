/** A command that prints much, while the server takes little of it, or is not there. */
import { join } from "node:path";
import { type BenchRun, type Figure, figure } from "./figures.ts";
import { type BenchLab, startBenchLab } from "./lab.ts";
import { milliseconds, shell } from "./program.ts";

/** What the slow server takes in a second, in bytes. */
const BYTES_PER_SECOND = 1e6;

/** Both of them. */
export async function bench({ quick, program }: BenchRun): Promise<Figure[]> {
  const megabytes = quick ? 100 : 1000;
  const folder = await Deno.makeTempDir({ prefix: "bench-" });
  try {
    const figures: Figure[] = [];
    for (const server of ["takes 1 MB/s", "is not there"] as const) {
      const print =
        `yes 'a line of output as long as lines of output usually are' | head -c ${megabytes}000000`;
      const peer = await milliseconds(() => shell(`${print} | cat > ${join(folder, "peer")}`));
      const printed = join(folder, "printed");
      await Deno.remove(printed).catch(() => {});
      await using lab = await startBenchLab({
        program,
        config: {
          polling_interval: 1,
          test_command: `date +%s%N >${printed}.begun; ${print}; date +%s%N >${printed}.end; ` +
            `mv ${printed}.end ${printed}`,
          cleanup_command: "true",
        },
      });
      await lab.ready();
      const jobId = lab.served.sandbox.submit({
        job_queue: "bench",
        test_data: { test_cmds: "x" },
      });
      if (server === "takes 1 MB/s") slowDown(lab);
      await lab.served.sandbox.waitFor(() => lab.served.sandbox.state(jobId) === "test");
      if (server === "is not there") await lab.served.close();
      const { seconds, endedAt } = await printingTime(printed);
      figures.push(
        figure({
          what: `${megabytes} MB printed while the server ${server}`,
          unit: "s",
          peer: { what: "| cat > file", values: [peer / 1000] },
          target: "ratio 3",
        }, [seconds]),
      );
      if (server === "takes 1 MB/s") {
        const { sandbox } = lab.served;
        await sandbox.waitFor(() => sandbox.state(jobId) === "cleanup");
        const what = "  its end to the state of the next phase";
        figures.push(figure({ what, unit: "ms" }, [Date.now() - endedAt]));
      }
      figures.push(
        figure({ what: "  memory at most", unit: "MiB", target: "143" }, [await lab.peakMemory()]),
      );
      // Delivering all of it would take a quarter of an hour.
      await lab.kill();
    }
    return figures;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** From now on each post of a log takes as long as its bytes. */
function slowDown({ served: { sandbox } }: BenchLab): void {
  let free = performance.now();
  sandbox.intercept(async (request) => {
    if (request.method !== "POST" || !request.url.includes("/log/")) return undefined;
    const { byteLength } = await request.clone().arrayBuffer();
    free = Math.max(free, performance.now()) + byteLength / BYTES_PER_SECOND * 1000;
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, free - performance.now())));
    return undefined;
  });
}

/** What lies between the command's two notes of the time, and the second of them; waits for it. */
async function printingTime(printed: string): Promise<{ seconds: number; endedAt: number }> {
  while (!await Deno.stat(printed).then(() => true, () => false)) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const [begun, ended] = await Promise.all(
    [`${printed}.begun`, printed].map((file) => Deno.readTextFile(file)),
  );
  return { seconds: (Number(ended) - Number(begun)) / 1e9, endedAt: Number(ended) / 1e6 };
}
