/** What agents cost that do nothing or much, and how fast one process takes over from another. */
import { shellCommand } from "../lib/shell.ts";
import { type BenchRun, type Figure, figure } from "./figures.ts";
import { startBenchLab } from "./lab.ts";

/** All of them, one after the other. */
export async function bench(run: BenchRun): Promise<Figure[]> {
  // Both do next to nothing, and take long.
  const idle = await Promise.all([idleAgent(run), idleHost(run)]);
  return [
    ...idle.flat(),
    ...run.quick ? [] : await manyJobs(run, AT_ONCE),
    ...await manyJobs(run, ALL_NOW),
    ...await chattyJobs(run),
    await handover(run),
  ];
}

/**
 * What is done once is no part of idling: what a start brings, and compiling what turns out to run often. Agents idle for
 * hours; in their first minute they take a third more.
 */
const SETTLE_MS = 180_000;
const SETTLE_QUICK_MS = 5_000;

function idleSeconds({ quick }: BenchRun): number {
  return quick ? 10 : 120;
}

/** An agent that has nothing to do. */
async function idleAgent(run: BenchRun): Promise<Figure[]> {
  const { program } = run;
  await using lab = await startBenchLab({ program, config: { polling_interval: 10 } });
  const { sandbox } = lab.served;
  await lab.ready();
  await sleep(run.quick ? SETTLE_QUICK_MS : SETTLE_MS);
  const before = sandbox.requestCount;
  await sleep(idleSeconds(run) * 1000);
  const perMinute = (sandbox.requestCount - before) * 60 / idleSeconds(run);
  return [
    figure({
      what: "requests a minute when idle",
      unit: "",
      target: "12",
      established: "36 to 42",
    }, [perMinute]),
    figure({ what: "  memory when idle", unit: "MiB" }, [await lab.memory()]),
  ];
}

/** Thirty agents that have nothing to do. */
async function idleHost(run: BenchRun): Promise<Figure[]> {
  const { program } = run;
  const agents = 30;
  const seconds = idleSeconds(run);
  await using lab = await startBenchLab({ program, agents, config: { polling_interval: 10 } });
  const { sandbox } = lab.served;
  await sandbox.waitFor(() => lab.agentIds.every((id) => sandbox.agent(id)?.state === "waiting"));
  await sleep(run.quick ? SETTLE_QUICK_MS : SETTLE_MS);
  const [requests, cpu] = [sandbox.requestCount, await lab.cpuSeconds()];
  await sleep(seconds * 1000);
  const perMinute = (sandbox.requestCount - requests) * 60 / seconds / agents;
  const busy = (await lab.cpuSeconds() - cpu) / seconds * 100;
  return [
    figure({ what: `${agents} idle agents: one core`, unit: "%", target: "1 %" }, [busy]),
    figure({ what: "  memory", unit: "MiB", target: "124" }, [await lab.memory()]),
    figure({ what: "  requests a minute, each", unit: "", target: "14" }, [perMinute]),
  ];
}

/** When the jobs of a hundred agents begin, and how long each takes by itself. */
interface Rush {
  /** Seconds. */
  pollingInterval: number;
  phaseSeconds: number;
  what: string;
}

/** Until all agents have begun their second round. */
const SPREAD_SECONDS = 3;

/** A lab as it is configured by default: each agent asks every ten seconds. */
const AT_ONCE: Rush = { pollingInterval: 10, phaseSeconds: 8, what: "jobs at once" };

/** The worst: all that they cost comes at once, too. */
const ALL_NOW: Rush = { pollingInterval: 2, phaseSeconds: 1, what: "jobs handed out within 2 s" };

/** A job for each of a hundred agents, which all run at once: from handed out to its end. */
async function manyJobs(
  { quick, program }: BenchRun,
  { pollingInterval, phaseSeconds, what }: Rush,
): Promise<Figure[]> {
  const agents = quick ? 30 : 100;
  const phase = `echo hello; sleep ${phaseSeconds}`;
  await using lab = await startBenchLab({
    program,
    agents,
    config: {
      polling_interval: pollingInterval,
      setup_command: "true",
      provision_command: phase,
      test_command: phase,
      cleanup_command: "true",
    },
  });
  const { sandbox } = lab.served;
  await sandbox.waitFor(() => lab.agentIds.every((id) => sandbox.agent(id)?.state === "waiting"));
  // All have just asked for their first job at once; from the second round on they are spread over the interval.
  await sleep((pollingInterval + SPREAD_SECONDS) * 1000);
  const begun = new Map<string, number>();
  const took: number[] = [];
  const jobs = lab.agentIds.map((job_queue) =>
    sandbox.submit({ job_queue, provision_data: { url: "x" }, test_data: { test_cmds: "x" } })
  );
  const open = new Set(jobs);
  let mostAtOnce = 0;
  await sandbox.waitFor(() => {
    for (const jobId of open) {
      const state = sandbox.state(jobId);
      if (state !== "waiting" && !begun.has(jobId)) begun.set(jobId, performance.now());
      if (state !== "complete") continue;
      open.delete(jobId);
      took.push(performance.now() - (begun.get(jobId) ?? 0));
    }
    mostAtOnce = Math.max(mostAtOnce, begun.size - took.length);
    return open.size === 0;
  });
  // Two phases sleep.
  const ownSeconds = 2 * phaseSeconds;
  const overhead = took.map((milliseconds) => milliseconds / 1000 - ownSeconds);
  return [
    figure(
      {
        what: `${agents} ${what}: what each takes beyond its own ${ownSeconds} s`,
        unit: "s",
        target: "1.5 s",
      },
      overhead,
    ),
    figure({ what: "  of them at once", unit: "" }, [mostAtOnce]),
    figure({ what: "  memory at most", unit: "MiB", target: "381" }, [await lab.peakMemory()]),
  ];
}

/** Bytes that a chatty job prints in a second, and how often. */
const CHATTY_BYTES = 1e6;
const CHATTY_LINES = 10;

/**
 * Thirty jobs at once that each print 1 MB/s in ten pieces a second, each of which ends with the time.
 * The server takes everything and keeps nothing.
 */
async function chattyJobs({ quick, program }: BenchRun): Promise<Figure[]> {
  const agents = 30;
  const seconds = quick ? 8 : 300;
  // bash has both the time and a way to wait without starting a program, of which there would be 600 a second.
  const print = `exec 9<> <(:)
    piece=$(yes 'a line of output as long as lines of output usually are' | head -c ${
    CHATTY_BYTES / CHATTY_LINES - 20
  })
    for ((i = 0; i < ${seconds * CHATTY_LINES}; i++)); do
      printf '%s\\n%s\\n' "$piece" "$EPOCHREALTIME"
      read -rt ${1 / CHATTY_LINES} -u 9
    done`;
  await using lab = await startBenchLab({
    program,
    agents,
    config: { polling_interval: 2, test_command: shellCommand(["bash", "-c", print]) },
  });
  const { sandbox } = lab.served;
  const delays: number[] = [];
  let bytes = 0;
  sandbox.intercept(async (request) => {
    if (!/\/log\/output$/.test(request.url)) return undefined;
    const text = await request.text();
    const now = Date.now();
    bytes += text.length;
    for (const [, stamp] of text.matchAll(/\\n(\d{10}[.,]\d{6})\\n/g)) {
      delays.push(now - Number(stamp?.replace(",", ".")) * 1000);
    }
    return new Response("OK");
  });
  await sandbox.waitFor(() => lab.agentIds.every((id) => sandbox.agent(id)?.state === "waiting"));
  const cpu = await lab.cpuSeconds();
  const begun = performance.now();
  const jobs = lab.agentIds.map((job_queue) =>
    sandbox.submit({ job_queue, test_data: { test_cmds: "x" } })
  );
  await sandbox.waitFor(() => jobs.every((jobId) => sandbox.state(jobId) === "complete"));
  const took = (performance.now() - begun) / 1000;
  const busy = (await lab.cpuSeconds() - cpu) / took * 100;
  const printed = agents * seconds * CHATTY_BYTES;
  if (bytes < 0.99 * printed) throw new Error(`${bytes} of ${printed} bytes arrived`);
  return [
    figure(
      { what: `${agents} jobs that print 1 MB/s: a line, printed to readable`, unit: "ms" },
      delays,
    ),
    figure({ what: "  from all of them", unit: "MB/s" }, [bytes / 1e6 / took]),
    figure({ what: "  memory at most", unit: "MiB", target: "381" }, [await lab.peakMemory()]),
    figure({ what: "  one core", unit: "%" }, [busy]),
  ];
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
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
