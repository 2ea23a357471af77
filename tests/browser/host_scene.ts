/**
 * A host's endpoint as it is in real life, with as many agents as one likes in whatever state: they are told
 * what happens by events.
 */
import { defaultConfig } from "../../lib/config/agent_config.ts";
import { combineSinks, type Emit, emitterOf, type Happening } from "../../lib/observe/events.ts";
import { serveHealth } from "../../lib/observe/health.ts";
import type { AgentView } from "../../lib/observe/host_view.ts";
import { createLiveness } from "../../lib/observe/liveness.ts";
import { createMetrics } from "../../lib/observe/metrics.ts";
import { createStatus } from "../../lib/observe/status.ts";
import type { Phase } from "../../lib/phases.ts";
import { type Clock, systemClock } from "../../lib/clock.ts";
import { recordingLog } from "../support/recording_log.ts";
import { PROVISION_OUTPUT, TEST_OUTPUT } from "./outputs.ts";

const MINUTE = 60_000;
const GIB = 1024 ** 3;

/** The clock on the wall, of some time before: what has happened by now is told as if it had taken its time. */
class SceneClock implements Clock {
  /** How long before now it stands; milliseconds. */
  before = 3 * 24 * 60 * MINUTE;

  now(): number {
    return systemClock.now() - this.before;
  }

  monotonic(): number {
    return systemClock.monotonic() - this.before;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return systemClock.sleep(ms, signal);
  }
}

/** A host that is served. */
export interface HostScene extends AsyncDisposable {
  /** Without a slash at the end. */
  readonly url: string;
  readonly clock: SceneClock;
  /** A new agent; what happens to it is told to the result. */
  add(agentId: string, options?: AgentOptions): Promise<Emit>;
}

/** What an agent is, besides its name. */
interface AgentOptions {
  queues?: string[];
  /** Why it does not run. */
  trouble?: string;
}

/** Serves a host without agents. */
async function serveHost(): Promise<HostScene> {
  const folder = await Deno.makeTempDir();
  const clock = new SceneClock();
  const log = recordingLog();
  const metrics = await createMetrics({ version: "1.4.0", clock });
  const agents: AgentView[] = [];
  const health = serveHealth({
    host: "127.0.0.1",
    port: 0,
    view: {
      version: "1.4.0",
      startedAt: clock.now(),
      agents: () => agents,
      agent: (id) => agents.find(({ agentId }) => agentId === id),
      broken: () => [],
      reloads: () => 0,
    },
    metrics,
    clock,
    log,
  });
  return {
    url: (health.url ?? "").replace(/\/$/, ""),
    clock,
    async add(agentId, { queues = ["rpi4"], trouble } = {}) {
      const own = `${folder}/${encodeURIComponent(agentId)}`;
      await Deno.mkdir(own);
      const board = trouble !== undefined ? undefined : await createStatus({
        agentId,
        version: "1.4.0",
        serverAddress: "https://testflinger.example.com",
        configurationFile: `/etc/testflinger-agent/${agentId}/testflinger-agent.conf`,
        folder: own,
        clock,
        log,
        liveness: createLiveness({ clock, silenceLimitMs: Infinity }),
      });
      const configuration = {
        ...defaultConfig(),
        agent_id: agentId,
        server_address: "https://testflinger.example.com",
        job_queues: queues,
        connector: "muxpi",
        output_timeout: 1800,
      };
      const defaults = { ...defaultConfig() };
      agents.push({
        agentId,
        file: `/etc/${agentId}`,
        configuration,
        defaults,
        board,
        trouble,
        jobPage: (jobId) => `https://testflinger.example.com/jobs/${jobId}`,
      });
      metrics.add(agentId, "", "");
      const sink = combineSinks([...(board === undefined ? [] : [board.sink]), metrics.sink], log);
      return emitterOf(agentId, { clock, sink });
    },
    async [Symbol.asyncDispose]() {
      await health.close();
      await Promise.all(agents.map(({ board }) => board?.close()));
      await Deno.remove(folder, { recursive: true });
    },
  };
}

const text = (words: string) => new TextEncoder().encode(words);

/** What happens to agents, each thing so many minutes before now. */
class Plan {
  readonly #steps: { before: number; emit: Emit; event: Happening }[] = [];

  at(before: number, emit: Emit, ...events: Happening[]): void {
    for (const event of events) this.#steps.push({ before, emit, event });
  }

  /** Lets it happen; the clock then stands at now. */
  run({ clock }: HostScene): void {
    for (const { before, emit, event } of this.#steps.toSorted((a, b) => b.before - a.before)) {
      clock.before = before * MINUTE;
      emit(event);
    }
    clock.before = 0;
  }
}

/** An agent that waits for jobs and is in contact. */
function waits(freeGib = 212): Happening[] {
  return [
    { type: "mode", state: "waiting", comment: "" },
    { type: "connectivity", ok: true },
    { type: "polled" },
    { type: "free_space", bytes: freeGib * GIB },
  ];
}

interface PlannedJob {
  id: string;
  name?: string;
  queue?: string;
}

function begins({ id, name, queue = "rpi4" }: PlannedJob): Happening[] {
  const named = name === undefined ? {} : { name };
  return [
    { type: "job_began", job: id, queue, ...named },
    { type: "phase_skipped", job: id, phase: "setup", reason: "no command" },
  ];
}

/** A job that has passed, failed or was cancelled, and began so many minutes ago. */
function pastJob(
  plan: Plan,
  emit: Emit,
  { before, fails, reason = "normal_exit", ...job }: PlannedJob & {
    before: number;
    fails?: Phase;
    reason?: string;
  },
): void {
  plan.at(before, emit, ...begins(job));
  let left = before;
  for (const [phase, minutes] of [["provision", 9], ["test", 14], ["cleanup", 1]] as const) {
    const isFailing = fails === phase;
    const took = isFailing ? minutes * 1.5 : minutes;
    plan.at(left, emit, { type: "mode", state: phase, comment: "" });
    plan.at(left, emit, { type: "phase_began", job: job.id, phase, limits: {} });
    left -= took;
    plan.at(left, emit, {
      ...{ type: "phase_ended", job: job.id, phase, seconds: took * 60, release: "24.04" },
      ...(isFailing ? { status: 3, event: `${phase}_fail` } : { status: 0, event: "normal_exit" }),
    });
    if (fails === "provision") break;
  }
  plan.at(left, emit, { type: "job_ended", job: job.id, reason }, ...waits());
}

/** A job that runs: provisioned for nine minutes, and in its test since then. */
function running(
  plan: Plan,
  emit: Emit,
  { minutes = 31, silentFor = 1, ...job }: PlannedJob & { minutes?: number; silentFor?: number },
): void {
  const ended = { status: 0, event: "normal_exit", seconds: 540, release: "24.04" };
  plan.at(minutes, emit, ...begins(job));
  plan.at(minutes, emit, { type: "mode", state: "provision", comment: "" });
  plan.at(minutes, emit, { type: "phase_began", job: job.id, phase: "provision", limits: {} });
  plan.at(minutes - 1, emit, { type: "output", job: job.id, bytes: text(PROVISION_OUTPUT) });
  plan.at(
    minutes - 9,
    emit,
    { type: "phase_ended", job: job.id, phase: "provision", ...ended },
    { type: "phase_skipped", job: job.id, phase: "firmware_update", reason: "not asked for" },
    { type: "mode", state: "test", comment: "" },
    {
      type: "phase_began",
      job: job.id,
      phase: "test",
      limits: { totalMs: 60 * MINUTE, silenceMs: 15 * MINUTE },
    },
  );
  plan.at(silentFor, emit, { type: "output", job: job.id, bytes: text(TEST_OUTPUT) });
}

const SERIAL_OUTPUT = Array.from(
  { length: 30 },
  (_, n) => `[${(n * 0.173).toFixed(6).padStart(12)}] usb 1-1.${n}: new high-speed USB device\r\n`,
).join("");

const JOBS = ["kernel-sru-6.8", "checkbox-smoke", "nightly-image", "usb-hotplug", "ota-upgrade"];

/** A lab of thirty agents in every state that there is. The first one runs a job, and has had others. */
export async function serveLab(): Promise<HostScene> {
  const scene = await serveHost();
  const plan = new Plan();
  const named = (count: number, prefix: string, queue: string) =>
    Array.from({ length: count }, (_, n) => ({
      name: `${prefix}-${String(n + 1).padStart(3, "0")}`,
      queue,
    }));
  const agents = [
    ...named(12, "rpi4", "rpi4"),
    ...named(8, "cm3", "cm3"),
    ...named(10, "dell-xps", "xps"),
  ];
  for (const [n, { name, queue }] of agents.entries()) {
    if (n === 29) {
      await scene.add(name, { queues: [queue], trouble: "Cannot make the folder /srv/results" });
      continue;
    }
    const emit = await scene.add(name, { queues: [queue] });
    const job = (n: number) => ({ id: jobIdOf(n), name: JOBS[n % JOBS.length] ?? "", queue });
    plan.at(400 - n, emit, ...waits(40 + n * 7));
    if (n === 0) {
      pastJob(plan, emit, { before: 300, ...job(1) });
      pastJob(plan, emit, { before: 250, ...job(2), fails: "test" });
      pastJob(plan, emit, { before: 200, id: jobIdOf(3), reason: "cancelled" });
      pastJob(plan, emit, { before: 150, ...job(4), fails: "provision", reason: "provision_fail" });
      pastJob(plan, emit, { before: 100, ...job(5) });
    } else if (n % 3 === 1) {
      pastJob(plan, emit, { before: 30 + n * 5, ...job(n), ...(n === 16 && { fails: "test" }) });
    }
    if (n % 5 === 0 || n % 7 === 2) {
      const minutes = n === 10 ? 66 : 12 + (n * 17) % 40;
      running(plan, emit, { ...job(n), minutes, silentFor: n === 20 ? 10 : 0.5 });
      plan.at(0.1, emit, { type: "free_space", bytes: (41 + n * 6.3) * GIB });
    }
    if (n === 0) plan.at(3, emit, { type: "serial", job: "j", bytes: text(SERIAL_OUTPUT) });
    if (n === 6) {
      plan.at(200, emit, {
        type: "mode",
        state: "offline",
        comment: "new SD card, back on Monday",
      });
    }
    if (n === 13) {
      plan.at(2900, emit, { type: "mode", state: "maintenance", comment: "moved to rack 4" });
    }
    if (n === 17) {
      plan.at(45, emit, { type: "access", problem: "its token has expired (401)" });
    }
    plan.at(0.1 + n / 300, emit, { type: "connectivity", ok: true });
    if (n === 21) {
      const message = "GET /v1/agents: connection refused";
      plan.at(0.05, emit, { type: "connectivity", ok: false, message });
      plan.at(0.05, emit, { type: "undelivered", bytes: 3.4e6, fragments: 40, jobs: 1 });
    }
    if (n === 22) plan.at(1, emit, { type: "undelivered", bytes: 91e3, fragments: 2, jobs: 0 });
  }
  plan.run(scene);
  return scene;
}

/** One that looks like the server's. */
function jobIdOf(n: number): string {
  return `7c9e6679-7425-40de-944b-e07fc1f9${String(n).padStart(4, "0")}`;
}
