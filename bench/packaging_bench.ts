/**
 * Figures of the packaged program: size, first start, later start to the first question for a job,
 * and memory at idle. Takes a portable FILE for this machine; without one it is built.
 */
import { dirname, join } from "node:path";
import { VERSION } from "../lib/version.ts";
import { quantile, report } from "./support.ts";

const LATER_STARTS = 25;
/** What an agent that waits for jobs has settled to. */
const IDLE_MS = 10_000;

/** What a release must keep to. */
const MOST_MEGABYTES = 45;
const MOST_LATER_START_MS = 150;

/** The established agent's start to its first poll, for comparison. */
const ESTABLISHED_MS = 860;

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

/** Builds the file for this machine into `folder`. */
async function build(folder: string): Promise<string> {
  const root = join(import.meta.dirname ?? "", "..");
  const permissions = ["env", "net", "read", "run", "sys", "write"].map((name) =>
    `--allow-${name}`
  );
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "--quiet", ...permissions, join(root, "tools", "build", "main.ts")],
      ...["--packaging", "portable", "--target", Deno.build.target, "--out", folder],
    ],
    cwd: root,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return join(folder, `testflinger-agent-${VERSION}-${Deno.build.arch}`);
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

/** Starts the agent and waits until it asks for a job. */
async function start(path: string): Promise<Started> {
  const question = server.nextQuestion();
  const begin = performance.now();
  const child = new Deno.Command(path, {
    args: ["-c", config],
    env: { XDG_CACHE_HOME: join(folder, "cache") },
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

/** The runtime opens nothing below /proc, so `cat` does. */
async function memory(pid: number): Promise<{ rss: number; pss: number }> {
  const text = await output("cat", `/proc/${pid}/smaps_rollup`);
  const mebibytes = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1]) / 1024;
  return { rss: mebibytes("Rss"), pss: mebibytes("Pss") };
}

async function output(program: string, ...args: string[]): Promise<string> {
  const { stdout } = await new Deno.Command(program, { args, stdin: "null" }).output();
  return new TextDecoder().decode(stdout);
}

/** Milliseconds that the same runtime takes for a script without a line, with the same options. */
async function bareStart(commandLine: readonly string[], script: string): Promise<number> {
  const [runtime = "", ...options] = commandLine;
  const begin = performance.now();
  const { success } = await new Deno.Command(runtime, {
    args: [...options, script],
    env: { DENO_DIR: join(dirname(runtime), "compiled"), DENO_NO_UPDATE_CHECK: "1" },
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).output();
  if (!success) throw new Error("the runtime alone does not run");
  return performance.now() - begin;
}

function median(times: readonly number[]): string {
  return `${quantile(times, 0.5).toFixed(0)} ms`;
}

function best(times: readonly number[]): string {
  return `best ${Math.min(...times).toFixed(0)} ms of ${times.length}`;
}

const folder = await Deno.makeTempDir({ prefix: "testflinger-bench-" });
const server = quietServer();
const config = join(folder, "agent.conf");
await Deno.writeTextFile(
  config,
  [
    `agent_id: bench-${Deno.pid}`,
    `server_address: ${server.address}`,
    "job_queues: [bench]",
    `execution_basedir: ${folder}/run`,
    `logging_basedir: ${folder}/logs`,
    `results_basedir: ${folder}/results`,
    "logging_quiet: true",
    "",
  ].join("\n"),
);
let unpacked: string | undefined;
try {
  const file = Deno.args[0] ?? await build(join(folder, "dist"));
  const size = (await Deno.stat(file)).size;
  report("portable file, size", `${(size / 1e6).toFixed(1)} MB`, `at most ${MOST_MEGABYTES}`);

  const own = await unseenCopy(file, join(folder, "testflinger-agent"));
  const first = await start(own);
  // The runtime in the cache folder, and its options up to the program.
  const line = (await output("ps", "-ww", "-o", "args=", "-p", `${first.child.pid}`)).split(" ");
  const commandLine = line.slice(0, line.findIndex((word) => word.endsWith("/main.js")));
  unpacked = dirname(commandLine[0] ?? "");
  await stop(first.child);
  report("first start to first poll", `${first.milliseconds.toFixed(0)} ms`);

  const empty = join(folder, "empty.js");
  await Deno.writeTextFile(empty, "");
  const times: number[] = [];
  const floors: number[] = [];
  for (let i = 0; i < LATER_STARTS; i++) {
    floors.push(await bareStart(commandLine, empty));
    const later = await start(own);
    times.push(later.milliseconds);
    await stop(later.child);
  }
  report(
    "later start to first poll, median",
    median(times),
    `at most ${MOST_LATER_START_MS} on a quiet machine; the established agent: ` +
      `${ESTABLISHED_MS}; ${best(times)}`,
  );
  report("the runtime alone with an empty script, median", median(floors), best(floors));

  const idle = await start(own);
  await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
  const { rss, pss } = await memory(idle.child.pid);
  await stop(idle.child);
  report(
    "memory at idle",
    `${rss.toFixed(0)} MiB`,
    `${pss.toFixed(0)} MiB of it not shared with other processes`,
  );
} finally {
  await server.close();
  await Deno.remove(folder, { recursive: true });
  // Only the folder of this run's own identity.
  if (unpacked?.includes("/testflinger-agent/")) await Deno.remove(unpacked, { recursive: true });
}
