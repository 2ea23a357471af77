/** What the benchmarks share: a lab on loopback with the real agent as a process of its own. */
import { join } from "node:path";
import { type ServedSandbox, serveSandbox } from "../lib/sandbox/serve.ts";
import { output } from "./program.ts";

/** A sandbox and a process of agents that work for it. */
export interface BenchLab extends AsyncDisposable {
  readonly served: ServedSandbox;
  readonly agentIds: readonly string[];
  /** Resolves when the agent has begun to ask for jobs. */
  ready(): Promise<void>;
  /** The most memory that the agent has held so far, in MiB. */
  peakMemory(): Promise<number>;
  /** What it holds now, in MiB. */
  memory(): Promise<number>;
  /** The time that it has spent on a processor so far, in seconds. */
  cpuSeconds(): Promise<number>;
  /** Has the process hand over, and starts the next one when it has ended, as a supervisor does. */
  handOver(): Promise<void>;
  /** Kills the process: what it has not delivered is not waited for. */
  kill(): Promise<void>;
}

/** What {@linkcode startBenchLab} can be given. */
export interface BenchLabOptions {
  /** The command line that starts the agent. */
  program: readonly string[];
  /** Keys of the agent's configuration. */
  config: Record<string, unknown>;
  /** Milliseconds that the server takes for each answer. @default 0 */
  answerMs?: number;
  /** How many agents the process has; each has a queue of its own id, besides `bench`. @default 1 */
  agents?: number;
}

/**
 * Becomes the program `$@` with nothing open but the three standard streams: what the runtime of the
 * benchmarks has open would be handed on, and the agent would have to close it before each command.
 */
const WITHOUT_INHERITED =
  'for fd in /proc/$$/fd/*; do fd=${fd##*/}; [ "$fd" -le 2 ] || eval "exec $fd>&-"; done; exec "$@"';

/** Of a second of a processor, as the kernel counts it for people. */
const TICKS_PER_SECOND = 100;

/** Starts a lab. */
export async function startBenchLab(
  { program, config, answerMs = 0, agents = 1 }: BenchLabOptions,
): Promise<BenchLab> {
  const folder = await Deno.makeTempDir({ prefix: "bench-" });
  const served = serveSandbox();
  if (answerMs > 0) {
    served.sandbox.intercept(async () => {
      await new Promise((resolve) => setTimeout(resolve, answerMs));
      return undefined;
    });
  }
  const configs = join(folder, "agents");
  await Deno.mkdir(configs);
  const run = crypto.randomUUID().slice(0, 8);
  const agentIds = Array.from({ length: agents }, (_, index) => `bench-${run}-${index}`);
  for (const agentId of agentIds) {
    await Deno.writeTextFile(
      join(configs, `${agentId}.conf`),
      JSON.stringify({
        agent_id: agentId,
        server_address: served.url,
        job_queues: ["bench", agentId],
        execution_basedir: join(folder, "run", agentId),
        logging_basedir: join(folder, "logs", agentId),
        results_basedir: join(folder, "results", agentId),
        min_free_space: 0,
        ...config,
      }),
    );
  }
  const which = agents === 1
    ? ["-c", join(configs, `${agentIds[0]}.conf`)]
    : ["run", "--config-dir", configs];
  const start = () =>
    new Deno.Command("/bin/bash", {
      args: ["-c", WITHOUT_INHERITED, "bash", ...program, ...which],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  let child = start();
  let isKilled = false;
  const status = async (field: string) => {
    const text = await output("cat", `/proc/${child.pid}/status`);
    return Number(new RegExp(`^${field}:\\s*(\\d+)`, "m").exec(text)?.[1] ?? 0) / 1024;
  };
  return {
    served,
    agentIds,
    async ready() {
      await served.sandbox.waitFor(() =>
        served.sandbox.requests.some((request) => request.path === "/v1/job")
      );
    },
    peakMemory: () => status("VmHWM"),
    memory: () => status("VmRSS"),
    async cpuSeconds() {
      const stat = await output("cat", `/proc/${child.pid}/stat`);
      // Behind the name, which may hold anything; the 12th and 13th there.
      const [user, system] = stat.slice(stat.lastIndexOf(")") + 2).split(" ").slice(11, 13);
      return (Number(user) + Number(system)) / TICKS_PER_SECOND;
    },
    async handOver() {
      child.kill("SIGHUP");
      await child.status;
      child = start();
    },
    async kill() {
      child.kill("SIGKILL");
      await child.status;
      isKilled = true;
    },
    async [Symbol.asyncDispose]() {
      if (!isKilled) child.kill("SIGTERM");
      await child.status;
      await served.close();
      await Deno.remove(folder, { recursive: true });
    },
  };
}
