/** Figures of the packaged file: size, first start, later starts to the first poll, memory at idle. */
import { dirname, join } from "node:path";
import { type BenchRun, type Figure, figure } from "./figures.ts";
import { buildProgram, milliseconds, output } from "./program.ts";

/** What an agent that waits for jobs has settled to. */
const IDLE_MS = 10_000;
const IDLE_QUICK_MS = 3_000;

interface Started {
  child: Deno.ChildProcess;
  milliseconds: number;
}

/** Answers as a server without jobs does, and tells of the first question for one. */
function quietServer() {
  let asked = Promise.withResolvers<void>();
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    const { pathname } = new URL(request.url);
    if (pathname !== "/v1/job") {
      return pathname.startsWith("/v1/agents/data/") && request.method === "GET"
        ? Response.json({ state: "waiting" })
        : new Response("OK", { headers: { "set-cookie": "agent_name=bench; Path=/" } });
    }
    asked.resolve();
    return new Response(null, { status: 204 });
  });
  return {
    address: `http://127.0.0.1:${server.addr.port}`,
    nextQuestion() {
      asked = Promise.withResolvers();
      return asked.promise;
    },
    close: () => server.shutdown(),
  };
}

/** A copy under an identity of its own, which no start can have unpacked before. */
async function unseenCopy(file: string, copy: string): Promise<string> {
  const bytes = await Deno.readFile(file);
  const text = new TextDecoder("latin1").decode(bytes.subarray(0, 100_000));
  const header = Number(/^skip=(\d+)$/m.exec(text)?.[1]) - 1;
  const id = /^id=(\S+)$/m.exec(text)?.[1];
  if (id === undefined) throw new Error(`${file} is no portable file`);
  const own = `${id.slice(0, -8)}${crypto.randomUUID().slice(0, 8)}`;
  const changed = new TextEncoder().encode(text.slice(0, header).replaceAll(id, own));
  if (changed.length !== header) throw new Error(`The header of ${file} is not plain text`);
  bytes.set(changed);
  await Deno.writeFile(copy, bytes, { mode: 0o755 });
  await Deno.chmod(copy, 0o755);
  return copy;
}

type QuietServer = ReturnType<typeof quietServer>;

interface Start {
  path: string;
  config: string;
  cache: string;
  server: QuietServer;
}

/** Starts the agent and waits until it asks for a job. */
async function start({ path, config, cache, server }: Start): Promise<Started> {
  const question = server.nextQuestion();
  const begin = performance.now();
  const child = new Deno.Command(path, {
    args: ["-c", config],
    env: { TESTFLINGER_AGENT_CACHE: cache },
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).spawn();
  const ended = child.status.then(({ code }) => {
    throw new Error(`the agent ended with status ${code} before it asked for a job`);
  });
  ended.catch(() => {});
  await Promise.race([question, ended]);
  return { child, milliseconds: performance.now() - begin };
}

async function stop(child: Deno.ChildProcess): Promise<void> {
  child.kill("SIGTERM");
  await child.status;
}

/** The runtime opens nothing below /proc, so `cat` does. In MiB. */
async function memory(pid: number): Promise<{ rss: number; pss: number }> {
  const text = await output("cat", `/proc/${pid}/smaps_rollup`);
  const mebibytes = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1]) / 1024;
  return { rss: mebibytes("Rss"), pss: mebibytes("Pss") };
}

/** The same runtime with the same options and a script without a line. */
async function bareStart(commandLine: readonly string[], script: string): Promise<void> {
  const [runtime = "", ...options] = commandLine;
  const { success } = await new Deno.Command(runtime, {
    args: [...options, script],
    env: { DENO_DIR: join(dirname(runtime), "compiled"), DENO_NO_UPDATE_CHECK: "1" },
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).output();
  if (!success) throw new Error("the runtime alone does not run");
}

/** The file is built if the program under test is that of the checkout. */
export async function bench({ quick, program }: BenchRun): Promise<Figure[]> {
  const folder = await Deno.makeTempDir({ prefix: "packaging-bench-" });
  const server = quietServer();
  try {
    const file = program.length === 1 ? program[0]! : await buildProgram(join(folder, "dist"));
    const size = (await Deno.stat(file)).size / 1e6;
    const path = await unseenCopy(file, join(folder, "testflinger-agent"));
    const config = join(folder, "agent.conf");
    await Deno.writeTextFile(config, agentConfig(folder, server.address));
    const parts: Start = { path, config, cache: join(folder, "cache"), server };
    const first = await start(parts);
    // The runtime in the cache folder, and its options up to the program.
    const line = (await output("ps", "-ww", "-o", "args=", "-p", `${first.child.pid}`)).split(" ");
    const commandLine = line.slice(0, line.findIndex((word) => word.endsWith("/main.js")));
    await stop(first.child);

    const empty = join(folder, "empty.js");
    await Deno.writeTextFile(empty, "");
    const times: number[] = [];
    const floors: number[] = [];
    for (let i = 0; i < (quick ? 7 : 25); i++) {
      floors.push(await milliseconds(() => bareStart(commandLine, empty)));
      const later = await start(parts);
      times.push(later.milliseconds);
      await stop(later.child);
    }
    const idle = await start(parts);
    await new Promise((resolve) => setTimeout(resolve, quick ? IDLE_QUICK_MS : IDLE_MS));
    const { rss, pss } = await memory(idle.child.pid);
    await stop(idle.child);
    return [
      figure({ what: "portable file, size", unit: "MB", target: "45" }, [size]),
      figure({ what: "first start to first poll", unit: "ms" }, [first.milliseconds]),
      figure({
        what: "later start to first poll",
        unit: "ms",
        peer: { what: "the runtime alone", values: floors },
        target: "120 ms",
        established: "860 ms",
      }, times),
      figure({ what: "memory just after the start", unit: "MiB" }, [rss]),
      figure({ what: "  of it not shared with other processes", unit: "MiB" }, [pss]),
    ];
  } finally {
    await server.close();
    await Deno.remove(folder, { recursive: true });
  }
}

function agentConfig(folder: string, address: string): string {
  return [
    `agent_id: bench-${Deno.pid}`,
    `server_address: ${address}`,
    "job_queues: [bench]",
    `execution_basedir: ${folder}/run`,
    `logging_basedir: ${folder}/logs`,
    `results_basedir: ${folder}/results`,
    "logging_quiet: true",
    "",
  ].join("\n");
}
