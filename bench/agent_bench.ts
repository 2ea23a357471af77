/**
 * How fast a job is, end to end: the program as a process, the sandbox on loopback. What is quoted
 * of the established agent is what its users report; it is not measured here.
 */
import { type BenchRun, type Figure, figure } from "./figures.ts";
import { type BenchLab, startBenchLab } from "./lab.ts";
import { milliseconds, output, shell } from "./program.ts";

const MEGABYTE = 1e6;

/** All of them, one after the other. */
export async function bench(run: BenchRun): Promise<Figure[]> {
  const figures: Figure[] = [];
  const answers = run.quick ? ANSWERS_MS.filter((ms) => ms !== 20) : ANSWERS_MS;
  for (const answerMs of answers) figures.push(await emptyJob(run, answerMs));
  figures.push(roundTrips(figures));
  figures.push(await lineLatency(run));
  for (const megabytes of run.quick ? [100] : [100, 1000]) {
    figures.push(...await flood(run, megabytes));
  }
  figures.push(await cancellation(run));
  return figures;
}

/** What the server takes for each answer to an empty job. */
const ANSWERS_MS = [0, 20, 100];

const FOUR_PHASES = {
  setup_command: "true",
  provision_command: "true",
  test_command: "true",
  cleanup_command: "true",
};

const EMPTY_JOB_TARGETS: Record<number, string> = { 0: "80 ms", 100: "500 ms" };

/** From the server's handing the job out to `complete`. */
async function emptyJob({ quick, program }: BenchRun, answerMs: number): Promise<Figure> {
  await using lab = await startBenchLab({
    program,
    config: { polling_interval: 1, ...FOUR_PHASES },
    answerMs,
  });
  const { sandbox } = lab.served;
  await lab.ready();
  const times: number[] = [];
  const shells: number[] = [];
  const count = quick ? 10 : 30;
  for (let i = 0; i < count; i++) {
    const jobId = sandbox.submit({
      job_queue: "bench",
      provision_data: { url: "x" },
      test_data: { test_cmds: "x" },
    });
    const begun = await sandbox.waitFor(() =>
      sandbox.state(jobId) !== "waiting" ? performance.now() : undefined
    );
    await sandbox.waitFor(() => sandbox.state(jobId) === "complete");
    times.push(performance.now() - begun);
    shells.push(await milliseconds(() => shell("sh -c true; sh -c true; sh -c true; sh -c true")));
  }
  const target = EMPTY_JOB_TARGETS[answerMs];
  return figure({
    what: `empty job of four phases, ${answerMs} ms an answer`,
    unit: "ms",
    ...(answerMs === 0 && {
      peer: { what: "four shells", values: shells },
      established: "16 to 33 s",
    }),
    ...(target !== undefined && { target }),
  }, times);
}

/** How often an empty job waits for the server: what its answers add to a job, by what each takes. */
function roundTrips(jobs: readonly Figure[]): Figure {
  const added = (jobs.at(-1)?.median ?? NaN) - (jobs[0]?.median ?? NaN);
  const answerMs = ANSWERS_MS.at(-1) ?? NaN;
  return figure({ what: "  round trips of an empty job", unit: "", target: "5" }, [
    added / answerMs,
  ]);
}

/** From a line's being printed to its being readable on the server. */
async function lineLatency({ quick, program }: BenchRun): Promise<Figure> {
  const lines = quick ? 5 : 30;
  await using lab = await startBenchLab({
    program,
    config: {
      polling_interval: 1,
      test_command: `i=0; while [ $i -lt ${lines} ]; do date +%s%N; sleep 1; i=$((i + 1)); done`,
    },
  });
  const { sandbox } = lab.served;
  const jobId = sandbox.submit({ job_queue: "bench", test_data: { test_cmds: "x" } });
  await sandbox.waitFor(() => sandbox.state(jobId) === "complete");
  const delays = sandbox.fragments(jobId, "output").flatMap((fragment) =>
    [...fragment.log_data.matchAll(/^(\d{19})$/gm)]
      .map((found) => fragment.at - Number(found[1]) / 1e6)
  );
  return figure({
    what: "a line a second, printed to readable",
    unit: "ms",
    target: "10 ms",
    established: "6 s",
  }, delays);
}

/** A test that prints as fast as it can, beside a loop that posts the same fragments. */
async function flood({ program }: BenchRun, megabytes: number): Promise<Figure[]> {
  const bytes = megabytes * MEGABYTE;
  const command =
    `yes 'a line of output as long as lines of output usually are' | head -c ${bytes}`;
  await using lab = await startBenchLab({
    program,
    config: { polling_interval: 1, test_command: command },
  });
  const { sandbox } = lab.served;
  await lab.ready();
  const jobId = sandbox.submit({ job_queue: "bench", test_data: { test_cmds: "x" } });
  const begun = await sandbox.waitFor(() =>
    sandbox.state(jobId) === "test" ? performance.now() : undefined
  );
  await sandbox.waitFor(() => sandbox.state(jobId) === "complete");
  const seconds = (performance.now() - begun) / 1000;
  const fragments = sandbox.fragments(jobId, "output");
  const arrived = fragments.reduce((sum, { log_data }) => sum + log_data.length, 0);
  if (arrived < bytes) throw new Error(`${arrived} of ${bytes} bytes arrived`);
  const posted = await milliseconds(() => postAgain(lab, fragments)) / 1000;
  return [
    figure({
      what: `${megabytes} MB of output, all of it on the server`,
      unit: "s",
      peer: { what: "a loop that posts the same", values: [posted] },
      target: "ratio 1.5",
      established: "612 s for 7 MB",
    }, [seconds]),
    figure({
      what: `  memory of the agent at most, ${megabytes} MB`,
      unit: "MiB",
      target: "150",
    }, [await lab.peakMemory()]),
  ];
}

/** Posts what another job printed, piece by piece, as a loop of a few lines would. */
async function postAgain(
  lab: BenchLab,
  fragments: readonly { log_data: string; phase?: string }[],
): Promise<void> {
  const jobId = lab.served.sandbox.submit({ job_queue: "nobody", test_data: { test_cmds: "x" } });
  for (const [number, { log_data, phase = "test" }] of fragments.entries()) {
    const response = await fetch(`${lab.served.url}/v1/result/${jobId}/log/output`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        fragment_number: number,
        timestamp: new Date().toISOString().replace("Z", "+00:00"),
        phase,
        log_data,
      }),
    });
    if (!response.ok) throw new Error(await response.text());
    await response.body?.cancel();
  }
}

/**
 * From the cancellation to the end of the last process that the job had then, at moments that are spread
 * over the second in which the agent asks once: people cancel at any time.
 */
async function cancellation({ quick, program }: BenchRun): Promise<Figure> {
  const times: number[] = [];
  const count = quick ? 5 : 20;
  await using lab = await startBenchLab({
    program,
    config: {
      polling_interval: 1,
      test_command: "sh -c 'sleep 1000; :' & (sleep 1000; :) & echo ready; sleep 1000; :",
      cleanup_command: "echo cleaned",
    },
  });
  const { sandbox } = lab.served;
  await lab.ready();
  for (let i = 0; i < count; i++) {
    const jobId = sandbox.submit({ job_queue: "bench", test_data: { test_cmds: "x" } });
    await sandbox.waitFor(() => sandbox.log(jobId, "output", "test").includes("ready"));
    await new Promise((resolve) => setTimeout(resolve, (i + 0.5) / count * 1000));
    const all = await environments(jobId, "/proc/[0-9]*/environ");
    if (all.length < 5) throw new Error(`only ${all.length} processes of the job were found`);
    sandbox.cancel(jobId);
    const begun = performance.now();
    while ((await environments(jobId, all.join(" "))).length > 0) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    times.push(performance.now() - begun);
    await sandbox.waitFor(() => sandbox.log(jobId, "output", "cleanup").includes("cleaned"));
  }
  return figure({
    what: "cancelled to all processes dead",
    unit: "ms",
    target: "600 ms",
    established: "4 to 8 s, orphans left",
  }, times);
}

/** Those of the files that are environments of the job's processes, its keepers included. */
async function environments(jobId: string, files: string): Promise<string[]> {
  const found = await output("sh", "-c", `grep -lszxF "TESTFLINGER_JOB_ID=${jobId}" ${files}`);
  return found.split("\n").filter((file) => file !== "");
}
