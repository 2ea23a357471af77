/**
 * Figures of the packaged program: size, first start, later start to the first question for a job,
 * and memory at idle. Run it with `deno run -A bench/packaging_bench.ts FILE`, where FILE has been
 * built for this machine (`deno task build`).
 */
import { join, resolve } from "node:path";

const LATER_STARTS = 15;
/** What an agent that waits for jobs has settled to. */
const IDLE_MS = 10_000;

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

const file = resolve(Deno.args[0] ?? "");
const size = (await Deno.stat(file)).size;
console.log(`size                             ${(size / 1e6).toFixed(1)} MB`);

const folder = await Deno.makeTempDir({ prefix: "testflinger-bench-" });
const server = quietServer();
const config = join(folder, "agent.conf");
await Deno.writeTextFile(
  config,
  [
    "agent_id: bench",
    `server_address: ${server.address}`,
    "job_queues: [bench]",
    `execution_basedir: ${folder}/run`,
    `logging_basedir: ${folder}/logs`,
    `results_basedir: ${folder}/results`,
    "logging_quiet: true",
    "",
  ].join("\n"),
);

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

async function memoryKibibytes(pid: number, name: string): Promise<number> {
  const text = await Deno.readTextFile(`/proc/${pid}/smaps_rollup`);
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1]);
}

/** Beside the file, where no cache of another user or run can be found first. */
const own = join(folder, "testflinger-agent");
await Deno.copyFile(file, own);
await Deno.chmod(own, 0o755);
// Without this a folder in /var/cache would be found first, and the first start be a later one.
const before = await unpackedIn("/var/cache/testflinger-agent");
try {
  const first = await start(own);
  await stop(first.child);
  const after = await unpackedIn("/var/cache/testflinger-agent");
  const really = before !== after ||
    (await unpackedIn(join(folder, "cache", "testflinger-agent"))) !== "";
  console.log(
    `first start to first poll        ${first.milliseconds.toFixed(0)} ms` +
      (really ? "" : " (it had been unpacked before: see /var/cache/testflinger-agent)"),
  );

  const times: number[] = [];
  for (let i = 0; i < LATER_STARTS; i++) {
    const later = await start(own);
    times.push(later.milliseconds);
    if (i < LATER_STARTS - 1) {
      await stop(later.child);
      continue;
    }
    await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
    const [rss = 0, pss = 0] = await Promise.all(
      ["Rss", "Pss"].map((name) => memoryKibibytes(later.child.pid, name)),
    );
    await stop(later.child);
    times.sort((a, b) => a - b);
    const median = times[Math.floor(times.length / 2)] ?? NaN;
    console.log(
      `later start to first poll        ${median.toFixed(0)} ms (best ${
        times[0]?.toFixed(0)
      } ms, ` +
        `${LATER_STARTS} starts)`,
    );
    console.log(
      `memory at idle                   ${(rss / 1024).toFixed(0)} MiB, ` +
        `${(pss / 1024).toFixed(0)} MiB of it not shared with other agents of the host`,
    );
  }
} finally {
  await server.close();
  await Deno.remove(folder, { recursive: true });
}

async function unpackedIn(cache: string): Promise<string> {
  try {
    return (await Array.fromAsync(Deno.readDir(cache))).map(({ name }) => name).sort().join(" ");
  } catch {
    return "";
  }
}
