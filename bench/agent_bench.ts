/**
 * How fast the agent is, end to end: the real program as a process, the sandbox on loopback. Prints
 * each figure beside what it should be and what the established agent needs.
 */
import { quantile, report, startBenchLab } from "./support.ts";

const EMPTY_JOBS = 20;
const LINES = 30;
const OUTPUT_BYTES = 100_000_000;
const CANCELLATIONS = 5;
const IDLE_SECONDS = 60;

/** From the server's handing the job out to `complete`. */
async function emptyJob(): Promise<void> {
  await using lab = await startBenchLab({
    polling_interval: 1,
    setup_command: "true",
    provision_command: "true",
    test_command: "true",
    cleanup_command: "true",
  });
  const { sandbox } = lab.served;
  await lab.ready();
  const times: number[] = [];
  for (let i = 0; i < EMPTY_JOBS; i++) {
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
  }
  const shells = await fourShells();
  report(
    "empty job of four phases, median",
    `${quantile(times, 0.5).toFixed(0)} ms`,
    "< 350 ms (33 s)",
  );
  report("  p95", `${quantile(times, 0.95).toFixed(0)} ms`);
  report("  ratio to starting /bin/sh four times", (quantile(times, 0.5) / shells).toFixed(1));
}

/** The peer of an empty job: what its four commands cost without an agent, in milliseconds. */
async function fourShells(): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < EMPTY_JOBS; i++) {
    const begun = performance.now();
    for (let j = 0; j < 4; j++) {
      await new Deno.Command("/bin/sh", { args: ["-c", "true"] }).output();
    }
    times.push(performance.now() - begun);
  }
  return quantile(times, 0.5);
}

/** From a line's being printed to its being readable on the server. */
async function lineLatency(): Promise<void> {
  await using lab = await startBenchLab({
    polling_interval: 1,
    test_command: `i=0; while [ $i -lt ${LINES} ]; do date +%s%N; sleep 1; i=$((i + 1)); done`,
  });
  const { sandbox } = lab.served;
  const jobId = sandbox.submit({ job_queue: "bench", test_data: { test_cmds: "x" } });
  await sandbox.waitFor(() => sandbox.state(jobId) === "complete");
  const delays = sandbox.fragments(jobId, "output").flatMap((fragment) =>
    [...fragment.log_data.matchAll(/^(\d{19})$/gm)]
      .map((found) => fragment.at - Number(found[1]) / 1e6)
  );
  report(
    "a line a second: printed to readable, median",
    `${quantile(delays, 0.5).toFixed(0)} ms`,
    "<= 60 ms (6 s)",
  );
  report("  p95", `${quantile(delays, 0.95).toFixed(0)} ms`, "<= 300 ms (10 s)");
}

/** A test that prints as fast as it can. */
async function flood(): Promise<void> {
  const command =
    `yes 'a line of output as long as lines of output usually are' | head -c ${OUTPUT_BYTES}`;
  await using lab = await startBenchLab({ polling_interval: 1, test_command: command });
  const { sandbox } = lab.served;
  await lab.ready();
  const jobId = sandbox.submit({ job_queue: "bench", test_data: { test_cmds: "x" } });
  const begun = await sandbox.waitFor(() =>
    sandbox.state(jobId) === "test" ? performance.now() : undefined
  );
  await sandbox.waitFor(() => sandbox.state(jobId) === "complete");
  const seconds = (performance.now() - begun) / 1000;
  const arrived = sandbox.fragments(jobId, "output").reduce((n, f) => n + f.log_data.length, 0);
  const peer = performance.now();
  await new Deno.Command("/bin/sh", { args: ["-c", `${command} | cat > /dev/null`] }).output();
  const pipe = (performance.now() - peer) / 1000;
  report(
    "100 MB of output, all of it on the server",
    `${seconds.toFixed(2)} s`,
    "< 10 s (30 KB/s)",
  );
  report("  bytes that arrived", `${arrived}`, `>= ${OUTPUT_BYTES}`);
  report("  fragments", `${sandbox.fragments(jobId, "output").length}`);
  report("  ratio to the same through a pipe", (seconds / pipe).toFixed(1));
  report("  agent's memory at most", `${(await lab.peakMemory()).toFixed(0)} MiB`, "< 150 MB");
}

/** From the cancellation to the end of the last process. */
async function cancellation(): Promise<void> {
  const times: number[] = [];
  for (let i = 0; i < CANCELLATIONS; i++) {
    const marker = `bench-${crypto.randomUUID()}`;
    await using lab = await startBenchLab({
      polling_interval: 1,
      test_command: `sh -c 'sleep 1000; : ${marker}' & (sleep 1000; : ${marker}) & echo ready; ` +
        `sleep 1000; : ${marker}`,
      cleanup_command: "echo cleaned",
    });
    const { sandbox } = lab.served;
    const jobId = sandbox.submit({ job_queue: "bench", test_data: { test_cmds: "x" } });
    await sandbox.waitFor(() => sandbox.log(jobId, "output", "test").includes("ready"));
    sandbox.cancel(jobId);
    const begun = performance.now();
    while (await anyAlive(jobId)) await new Promise((resolve) => setTimeout(resolve, 10));
    times.push(performance.now() - begun);
    await sandbox.waitFor(() => sandbox.state(jobId) === "complete");
    if (!sandbox.log(jobId, "output", "cleanup").includes("cleaned")) {
      throw new Error("the cleanup of a cancelled job did not run");
    }
  }
  report(
    "cancelled to all processes dead, worst of " + CANCELLATIONS,
    `${(Math.max(...times) / 1000).toFixed(2)} s`,
    "<= 2 s (4 to 8 s, orphans)",
  );
}

async function anyAlive(jobId: string): Promise<boolean> {
  const { stdout } = await new Deno.Command("/bin/sh", {
    args: ["-c", `grep -lszxF "TESTFLINGER_JOB_ID=${jobId}" /proc/[0-9]*/environ`],
    stderr: "null",
  }).output();
  return stdout.length > 0;
}

/** Requests of an agent that has nothing to do. */
async function idle(): Promise<void> {
  await using lab = await startBenchLab({ polling_interval: 10 });
  const { sandbox } = lab.served;
  await lab.ready();
  const before = sandbox.requestCount;
  await new Promise((resolve) => setTimeout(resolve, IDLE_SECONDS * 1000));
  const requests = (sandbox.requestCount - before) * 60 / IDLE_SECONDS;
  report("requests a minute when idle", `${requests}`, "<= 14 (42)");
  report("  agent's memory", `${(await lab.memory()).toFixed(0)} MiB`);
}

await emptyJob();
await lineLatency();
await flood();
await cancellation();
await idle();
