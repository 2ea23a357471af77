/** What many agents in one process cost, and how fast one process takes over from another. */
import { type BenchRun, type Figure, figure } from "./figures.ts";
import { startBenchLab } from "./lab.ts";

/** All of them, one after the other. */
export async function bench(run: BenchRun): Promise<Figure[]> {
  return [
    ...await idleHost(run),
    ...await manyJobs(run),
    await handover(run),
  ];
}

/** Thirty agents that have nothing to do. */
async function idleHost({ quick, program }: BenchRun): Promise<Figure[]> {
  const agents = 30;
  const seconds = quick ? 30 : 180;
  await using lab = await startBenchLab({ program, agents, config: { polling_interval: 10 } });
  const { sandbox } = lab.served;
  await sandbox.waitFor(() => lab.agentIds.every((id) => sandbox.agent(id)?.state === "waiting"));
  // What is done once after the start is no part of idling.
  await new Promise((resolve) => setTimeout(resolve, 20_000));
  const [requests, cpu] = [sandbox.requestCount, await lab.cpuSeconds()];
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const perMinute = (sandbox.requestCount - requests) * 60 / seconds / agents;
  const busy = (await lab.cpuSeconds() - cpu) / seconds * 100;
  return [
    figure({ what: `${agents} idle agents: one core`, unit: "%", target: "1 %" }, [busy]),
    figure({ what: "  memory", unit: "MiB", target: "124" }, [await lab.memory()]),
    figure({ what: "  requests a minute, each", unit: "", target: "14" }, [perMinute]),
  ];
}

/** A job for each of a hundred agents, all at once: from the first being handed out to the last's end. */
async function manyJobs({ quick, program }: BenchRun): Promise<Figure[]> {
  const agents = quick ? 30 : 100;
  const phase = "echo hello; sleep 1";
  await using lab = await startBenchLab({
    program,
    agents,
    config: {
      polling_interval: 2,
      setup_command: "true",
      provision_command: phase,
      test_command: phase,
      cleanup_command: "true",
    },
  });
  const { sandbox } = lab.served;
  await sandbox.waitFor(() => lab.agentIds.every((id) => sandbox.agent(id)?.state === "waiting"));
  const begun = new Map<string, number>();
  const took: number[] = [];
  const jobs = lab.agentIds.map((job_queue) =>
    sandbox.submit({ job_queue, provision_data: { url: "x" }, test_data: { test_cmds: "x" } })
  );
  await sandbox.waitFor(() => {
    for (const jobId of jobs) {
      const state = sandbox.state(jobId);
      if (state !== "waiting" && !begun.has(jobId)) begun.set(jobId, performance.now());
    }
    return begun.size === jobs.length;
  });
  const open = new Set(jobs);
  await sandbox.waitFor(() => {
    for (const jobId of open) {
      if (sandbox.state(jobId) !== "complete") continue;
      open.delete(jobId);
      took.push(performance.now() - (begun.get(jobId) ?? 0));
    }
    return open.size === 0;
  });
  // The two phases that sleep take a second each.
  const overhead = took.map((milliseconds) => milliseconds / 1000 - 2);
  return [
    figure(
      {
        what: `${agents} jobs at once: what each takes beyond its own 2 s`,
        unit: "s",
        target: "1.5 s",
      },
      overhead,
    ),
    figure({ what: "  memory at most", unit: "MiB", target: "381" }, [await lab.peakMemory()]),
  ];
}

/** From the request to hand over until the next process asks for a job. */
async function handover({ quick, program }: BenchRun): Promise<Figure> {
  await using lab = await startBenchLab({ program, config: { polling_interval: 1 } });
  const { sandbox } = lab.served;
  await lab.ready();
  const times: number[] = [];
  for (let i = 0; i < (quick ? 5 : 20); i++) {
    const begun = performance.now();
    await lab.handOver();
    const seen = sandbox.requestCount;
    await sandbox.waitFor(() =>
      sandbox.requestCount > seen &&
      sandbox.requests.slice(seen - sandbox.requestCount).some(({ path }) => path === "/v1/job")
    );
    times.push(performance.now() - begun);
  }
  return figure({ what: "handing over to asking again", unit: "ms", target: "1000 ms" }, times);
}
