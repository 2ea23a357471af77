/** One run: a process of one agent or of several, a server, a way between them that fails, and somebody who pulls the plug. */
import { join } from "node:path";
import { exists } from "../../lib/path.ts";
import { createSandbox, type Sandbox } from "../../lib/sandbox/sandbox.ts";
import { type AgentProcess, startProgram } from "../support/agent_process.ts";
import { type ChaosJob, jobBody, phaseCommands, randomJob } from "./chaos_jobs.ts";
import { damage } from "./disk_faults.ts";
import { type Fault, startFaultyProxy } from "./faulty_proxy.ts";
import { violations } from "./invariants.ts";
import { processesOf } from "./processes.ts";
import { Random } from "./random.ts";

/** How many times faster than the wall's the agent's clock runs. */
const CLOCK_FACTOR = 20;
/** How long pulling plugs goes on, at most; milliseconds. */
const LONGEST_UNREST_MS = 6_000;
/** Handing over takes 2 s at most; a machine under load may be slow. */
const LONGEST_HANDOVER_S = 10;
/** A machine under load may be slow to let the agent write its first note. */
const LONGEST_NOTE_MS = 10_000;
/** As long may a start take, or a way to the server be closed. */
const LONGEST_START_MS = 5_000;
/** After that everything must have come to its end by then. */
const CALM_MS = 150_000;

/** So often an agent that has gone finds its files not as it left them. */
const DAMAGE_RATE = 0.15;

/** What a job does not notice. */
const HARMLESS = ["SIGKILL", "SIGKILL", "SIGHUP", "SIGSTOP", undefined] as const;
/** What ends it, besides. */
export const HARMFUL = [...HARMLESS, "SIGTERM", "reboot"] as const;

/** What a server does to an agent, and how often. */
export const SERVER_FAULTS = {
  "expired tokens": 0.05,
  "spoiled tokens": 0.05,
  "forgotten agent": 0.05,
  "forgotten job": 0.04,
  "job handed out again": 0.5,
} as const;

/** What has happened to a job that was just submitted. */
const UNTOUCHED = { cancelled: false, damaged: false, forgotten: false, cutOff: false, runs: 1 };

/** What became of a run. */
export interface SeedResult {
  seed: number;
  generation: "current" | "legacy";
  agents: number;
  /** What does not hold; empty when all is well. */
  violations: string[];
  jobs: number;
  faults: Record<Fault, number>;
  kills: Record<"SIGKILL" | "SIGHUP" | "SIGTERM" | "SIGSTOP" | "reboot", number>;
  cancelled: number;
  /** Jobs that the server has forgotten. */
  forgotten: number;
  /** How often the server handed out a job again that it had all of. */
  handedOutAgain: number;
  /** How often the agent's files were damaged. */
  damages: number;
  /** Jobs that the server handed to an agent which had stopped listening: not promised. */
  handedToNobody: number;
  /** What the agents said, for a run that failed. */
  output: string;
}

/** A job that was submitted. */
export interface Submitted {
  jobId: string;
  job: ChaosJob;
  cancelled: boolean;
  /** A part of what the agent knew of it was destroyed. */
  damaged: boolean;
  /** The server knows nothing of it any more. */
  forgotten: boolean;
  /** The server's answer with it did not arrive as a whole: it fails in setup. */
  cutOff: boolean;
  /** How often it was submitted: more than once, it was so each time after it had been delivered. */
  runs: number;
}

/** Runs one seed in a folder of its own. */
export async function runSeed(seed: number, attachments: Uint8Array): Promise<SeedResult> {
  const random = new Random(seed);
  const folder = await Deno.makeTempDir({ prefix: `chaos-${seed}-` });
  const agentIds = Array.from(
    { length: random.chance(0.5) ? 1 : random.int(2, 3) },
    (_, index) => `chaos-${seed}-${crypto.randomUUID().slice(0, 8)}-${index}`,
  ) as [string, ...string[]];
  const isHost = agentIds.length > 1;
  const usesTokens = random.chance(0.5);
  const generation: SeedResult["generation"] = random.chance(0.25) ? "legacy" : "current";
  const hasStatus = random.chance(0.5);
  const sandbox = createSandbox({ tokens: usesTokens, generation, hasStatus });
  const proxy = await startFaultyProxy(sandbox, random);
  const truth = join(folder, "truth");
  await Deno.mkdir(truth);
  const tokenFile = join(folder, "token");
  if (usesTokens) {
    sandbox.addRefreshToken("refresh");
    await Deno.writeTextFile(tokenFile, `{"refresh_token": "refresh"}`);
  }
  const configs = join(folder, "agents");
  await Deno.mkdir(configs);
  for (const agentId of agentIds) {
    const config = {
      agent_id: agentId,
      server_address: proxy.url,
      job_queues: ["chaos"],
      polling_interval: 2,
      cancel_grace: 4,
      min_free_space: 0,
      max_spool: 4_000_000,
      logging_level: "DEBUG",
      execution_basedir: join(folder, "run"),
      logging_basedir: join(folder, "logs"),
      results_basedir: join(folder, "results"),
      ...(isHost && usesTokens && { token_file: tokenFile }),
      ...phaseCommands(truth),
    };
    await Deno.writeTextFile(join(configs, `${agentId}.conf`), JSON.stringify(config));
  }

  const submitted: Submitted[] = [];
  const jobs = random.int(1, 4);
  for (let i = 0; i < jobs; i++) {
    const job = randomJob(random);
    const jobId = sandbox.submit(jobBody(job, "chaos"), job.attachment ? attachments : undefined);
    submitted.push({ jobId, job, ...UNTOUCHED });
  }

  const happenings = random.chance(0.5) ? HARMLESS : HARMFUL;
  const kills = { SIGKILL: 0, SIGHUP: 0, SIGTERM: 0, SIGSTOP: 0, reboot: 0 };
  const jobsOf = (id: string) => join(folder, "results", `agent-${id}`, "jobs");
  const isOnDisk = (jobId: string) => agentIds.some((id) => exists(join(jobsOf(id), jobId)));
  // The journal is begun when the job itself is on the disk.
  const hasJournal = (jobId: string) =>
    agentIds.some((id) => exists(join(jobsOf(id), jobId, "record")));
  let damages = 0;
  let output = "";
  const command = isHost
    ? ["run", "--config-dir", configs]
    : ["-c", join(configs, `${agentIds[0]}.conf`), "--token-file", tokenFile];
  const start = () =>
    startProgram(command, {
      host: { clockFactor: CLOCK_FACTOR, bootId: `boot ${kills.reboot}` },
    });
  let agent = start();
  let heard = 0;
  const restart = async () => {
    await agent.exited;
    await proxy.forgetAgent();
    output += agent.output();
    const done = random.chance(DAMAGE_RATE)
      ? await damage({ jobs: jobsOf(random.pick(agentIds)), run: join(folder, "run") }, random)
      : undefined;
    if (done !== undefined) {
      damages++;
      output += `\n--- the simulation: ${done.fault}, jobs ${done.jobIds.join(" ")}\n`;
      // The agents share the folder in which all working folders are.
      const isHit = ({ jobId }: Submitted) =>
        done.fault === "removed working folders" ? isOnDisk(jobId) : done.jobIds.includes(jobId);
      for (const each of submitted) each.damaged ||= isHit(each);
    }
    heard = sandbox.requestCount;
    agent = start();
  };
  const found: string[] = [];
  const isDone = () =>
    submitted.every(({ jobId, forgotten }) =>
      sandbox.state(jobId) === "complete" || isNobodys(jobId) ||
      forgotten && !isOnDisk(jobId)
    );
  // On a machine under load the answer may come when an agent has stopped waiting for it, and says so.
  const cameTooLate = (jobId: string) => {
    const said = output + agent.output();
    return !said.includes(jobId) && /the agent never saw it: .*: nothing moved for/.test(said);
  };
  // A job that is cancelled while it waits is handed out to nobody.
  const isNobodys = (jobId: string) =>
    proxy.handedToNobody.has(jobId) ||
    sandbox.state(jobId) === "cancelled" && !proxy.handedOut.has(jobId) ||
    sandbox.state(jobId) !== "complete" && proxy.handedOut.has(jobId) && cameTooLate(jobId);
  // What a job printed for another agent, this one does not know.
  const canRepeat = generation === "current" && !isHost;
  const handOutAgain = (): boolean => {
    const delivered = submitted.find(({ jobId, cancelled, forgotten }) =>
      sandbox.state(jobId) === "complete" && !cancelled && !forgotten && !isOnDisk(jobId)
    );
    const isChosen = random.chance(SERVER_FAULTS["job handed out again"]);
    if (!canRepeat || delivered === undefined || !isChosen) return false;
    delivered.runs++;
    const { job, jobId } = delivered;
    sandbox.submit(
      { ...jobBody(job, "chaos"), job_id: jobId },
      job.attachment ? attachments : undefined,
    );
    return true;
  };
  try {
    // 1. Unrest: signals and cancellations at moments that the seed chooses.
    let until = performance.now() + random.int(1000, LONGEST_UNREST_MS);
    while (performance.now() < until && (handOutAgain() || !isDone())) {
      // On a machine under load each agent would be killed before it has done anything.
      if (random.chance(0.8)) {
        const begun = performance.now();
        const signal = AbortSignal.timeout(LONGEST_START_MS);
        await sandbox.waitFor(() => sandbox.requestCount > heard, { signal }).catch(() => {});
        until += performance.now() - begun;
      }
      await new Promise((resolve) => setTimeout(resolve, random.int(20, 700)));
      const what = random.pick(happenings);
      const target = random.pick(submitted as [Submitted, ...Submitted[]]);
      // One that is cancelled before it is handed out again would be handed to nobody.
      if (random.chance(0.12) && target.runs === 1) {
        target.cancelled = sandbox.cancel(target.jobId) || target.cancelled;
      }
      if (random.chance(SERVER_FAULTS["expired tokens"])) sandbox.expireAccessTokens();
      if (random.chance(SERVER_FAULTS["spoiled tokens"])) sandbox.spoilAccessTokens();
      if (random.chance(SERVER_FAULTS["forgotten agent"])) {
        sandbox.forgetAgent(random.pick(agentIds));
      }
      if (random.chance(SERVER_FAULTS["forgotten job"]) && generation === "current") {
        target.forgotten = true;
        sandbox.forgetJob(target.jobId);
      }
      if (what === undefined) continue;
      // Between the server's handing out a job and the agent's first note of it nobody can help: see
      // docs/reliability.md.
      if (what === "SIGKILL" || what === "SIGHUP" || what === "reboot") {
        await proxy.holdJobs();
        const ids = submitted.filter(({ forgotten }) => !forgotten)
          .map(({ jobId }) => jobId).filter((id) => !isNobodys(id));
        await noted(ids, sandbox, hasJournal);
      }
      kills[what]++;
      const hangUps = hangUpsOf(agent);
      agent.kill(what === "reboot" ? "SIGKILL" : what);
      if (what === "SIGSTOP") {
        await new Promise((resolve) => setTimeout(resolve, random.int(50, 1500)));
        agent.kill("SIGCONT");
        continue;
      }
      const killed = performance.now();
      // A process of several agents reads their configurations again; one that has just started ends.
      if (what === "SIGHUP" && isHost && !await endsAtHangUp(agent, hangUps)) {
        proxy.handOutJobs();
        continue;
      }
      const status = await agent.exited;
      if (what === "SIGHUP") {
        const seconds = (performance.now() - killed) / 1000;
        // 129: it had not come to listening to signals.
        if (status !== 1 && status !== 129) found.push(`handing over ends with status ${status}`);
        if (seconds > LONGEST_HANDOVER_S) found.push(`an agent hands over in ${seconds} s`);
      }
      if (what === "reboot") await killProcessesOf(submitted.map(({ jobId }) => jobId));
      await restart();
    }
    // 2. Calm: no more faults, and everything must come to its end.
    proxy.calmDown();
    await settled(sandbox, isDone);
    await idle(sandbox, agentIds);
    if (handOutAgain()) {
      await settled(sandbox, isDone);
      await idle(sandbox, agentIds);
    }
    agent.kill("SIGTERM");
    const status = await agent.exited;
    output += agent.output();
    for (const each of submitted) each.cutOff = proxy.cutOff.has(each.jobId);
    const ours = submitted.filter(({ jobId }) => !isNobodys(jobId));
    const scene = { sandbox, generation, submitted: ours, folder, truth, agentIds, kills };
    found.push(...await violations(scene));
    if (status !== 0) found.push(`the agent's last exit status is ${status}, not 0`);
    if (found.length > 0) output += whatTheServerSaw(sandbox, ours);
    return {
      seed,
      generation,
      agents: agentIds.length,
      violations: found,
      jobs,
      faults: proxy.injected,
      kills,
      cancelled: submitted.filter((job) => job.cancelled).length,
      forgotten: submitted.filter((job) => job.forgotten).length,
      handedOutAgain: submitted.reduce((sum, { runs }) => sum + runs - 1, 0),
      damages,
      handedToNobody: submitted.filter(({ jobId }) =>
        proxy.handedOut.has(jobId) && isNobodys(jobId)
      ).length,
      output,
    };
  } finally {
    await agent[Symbol.asyncDispose]();
    await proxy.close();
    await Deno.remove(folder, { recursive: true }).catch(() => {});
  }
}

/** How often a process of several agents has said that it heard SIGHUP. */
function hangUpsOf(agent: AgentProcess): number {
  return agent.output().split("SIGHUP: the configurations are read again").length;
}

/** Whether the process ends at a SIGHUP, rather than saying that it has heard one more. */
async function endsAtHangUp(agent: AgentProcess, heardBefore: number): Promise<boolean> {
  let hasEnded = false;
  agent.exited.then(() => hasEnded = true);
  while (!hasEnded && hangUpsOf(agent) === heardBefore) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return hasEnded;
}

/** What a reboot does to the processes of jobs. */
async function killProcessesOf(jobIds: readonly string[]): Promise<void> {
  for (let isQuiet = false; !isQuiet;) {
    const alive = await processesOf(jobIds);
    isQuiet = alive.length === 0;
    for (const pid of alive) {
      try {
        Deno.kill(pid, "SIGKILL");
      } catch {
        // It has ended.
      }
    }
  }
}

/** For finding out what went wrong: the requests in their order, and the pieces of the logs. */
function whatTheServerSaw(sandbox: Sandbox, submitted: readonly Submitted[]): string {
  const requests = sandbox.requests.map(({ at, method, path, query, status }) =>
    `${new Date(at).toISOString()} ${method} ${path}${query} ${status}`
  );
  const pieces = submitted.flatMap(({ jobId }) =>
    sandbox.fragments(jobId, "output").map((piece) =>
      `${jobId} ${piece.fragment_number} ${piece.phase} ${piece.timestamp} ` +
      JSON.stringify(piece.log_data.slice(0, 200))
    )
  );
  return `\n--- what the server saw\n${[...requests, ...pieces].join("\n")}\n`;
}

/** Waits until all jobs are complete; what is not by then is found by the invariants. */
async function settled(sandbox: Sandbox, isDone: () => boolean): Promise<void> {
  await sandbox.waitFor(isDone, { signal: AbortSignal.timeout(CALM_MS) }).catch(() => {});
}

/**
 * Waits until all agents say that they wait for jobs: SIGTERM then finds them ready to stop in order. One that
 * the server has forgotten registers again when it looks at its record the next time.
 */
async function idle(sandbox: Sandbox, agentIds: readonly string[]): Promise<void> {
  const requests = sandbox.requestCount;
  const isIdle = () =>
    agentIds.map((id) => sandbox.agent(id)).every((record) =>
      record?.state === "waiting" && record.queues !== undefined
    ) &&
    sandbox.requestCount > requests + 2;
  await sandbox.waitFor(isIdle, { signal: AbortSignal.timeout(CALM_MS) }).catch(() => {});
}

/** Waits until the agent has taken note of each job that was handed out and is not complete. */
async function noted(
  jobIds: readonly string[],
  sandbox: Sandbox,
  hasJournal: (jobId: string) => boolean,
): Promise<void> {
  const isNoted = (jobId: string) => {
    const state = sandbox.state(jobId);
    return state === "waiting" || state === "complete" || hasJournal(jobId);
  };
  const signal = AbortSignal.timeout(LONGEST_NOTE_MS);
  while (!signal.aborted && !jobIds.every(isNoted)) {
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
