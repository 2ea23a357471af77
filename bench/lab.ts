/** What the benchmarks share: a lab on loopback with the real agent as a process of its own. */
import { join } from "node:path";
import { type ServedSandbox, serveSandbox } from "../lib/sandbox/serve.ts";

/** A sandbox and an agent that works for it. */
export interface BenchLab extends AsyncDisposable {
  readonly served: ServedSandbox;
  /** Resolves when the agent has begun to ask for jobs. */
  ready(): Promise<void>;
  /** The most memory that the agent has held so far, in MiB. */
  peakMemory(): Promise<number>;
  /** What it holds now, in MiB. */
  memory(): Promise<number>;
}

/** What {@linkcode startBenchLab} can be given. */
export interface BenchLabOptions {
  /** The command line that starts the agent. */
  program: readonly string[];
  /** Keys of the agent's configuration. */
  config: Record<string, unknown>;
  /** Milliseconds that the server takes for each answer. @default 0 */
  answerMs?: number;
}

/** Starts a lab with one agent. */
export async function startBenchLab(
  { program: [command = "", ...args], config, answerMs = 0 }: BenchLabOptions,
): Promise<BenchLab> {
  const folder = await Deno.makeTempDir({ prefix: "bench-" });
  const served = serveSandbox();
  if (answerMs > 0) {
    served.sandbox.intercept(async () => {
      await new Promise((resolve) => setTimeout(resolve, answerMs));
      return undefined;
    });
  }
  const agentId = `bench-${crypto.randomUUID().slice(0, 8)}`;
  const file = join(folder, "agent.conf");
  await Deno.writeTextFile(
    file,
    JSON.stringify({
      agent_id: agentId,
      server_address: served.url,
      job_queues: ["bench"],
      execution_basedir: join(folder, "run"),
      logging_basedir: join(folder, "logs"),
      results_basedir: join(folder, "results"),
      min_free_space: 0,
      ...config,
    }),
  );
  const child = new Deno.Command(command, {
    args: [...args, "-c", file],
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const status = async (field: string) => {
    const { stdout } = await new Deno.Command("grep", {
      args: [`^${field}:`, `/proc/${child.pid}/status`],
    }).output();
    return Number(/\d+/.exec(new TextDecoder().decode(stdout))?.[0] ?? 0) / 1024;
  };
  return {
    served,
    async ready() {
      await served.sandbox.waitFor(() =>
        served.sandbox.requests.some((request) => request.path === "/v1/job")
      );
    },
    peakMemory: () => status("VmHWM"),
    memory: () => status("VmRSS"),
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await child.status;
      await served.close();
      await Deno.remove(folder, { recursive: true });
    },
  };
}
