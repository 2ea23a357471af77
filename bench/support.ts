/** What the benchmarks share: a lab on loopback with the real agent as a process of its own. */
import { dirname, join } from "node:path";
import { PERMISSIONS } from "../lib/cli/self.ts";
import { type ServedSandbox, serveSandbox } from "../lib/sandbox/serve.ts";

const MAIN = join(dirname(import.meta.dirname ?? ""), "main.ts");

/** The value below which `share` of `values` lie. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}

/** One line of figures. */
export function report(what: string, figure: string, target = ""): void {
  console.log(`${what.padEnd(58)} ${figure.padStart(16)}   ${target}`);
}

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

/** Starts a lab whose agent has the given configuration keys. */
export async function startBenchLab(config: Record<string, unknown>): Promise<BenchLab> {
  const folder = await Deno.makeTempDir({ prefix: "bench-" });
  const served = serveSandbox();
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
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", ...PERMISSIONS, MAIN, "-c", file],
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
