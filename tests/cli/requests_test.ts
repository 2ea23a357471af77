import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import {
  requestOffline,
  requestOnline,
  requestRestart,
  runRequest,
} from "../../lib/cli/agents/requests.ts";
import { type Clock, systemClock } from "../../lib/clock.ts";
import { type ServedSandbox, serveSandbox } from "../../lib/sandbox/serve.ts";
import { type AgentProcess, type ProgramOptions, startProgram } from "../support/agent_process.ts";
import { sharedBuild } from "../packaging/support/built.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { AS_NOBODY } from "../support/processes.ts";
import { NOBODY } from "../support/temp_folder.ts";
import { run } from "./support.ts";

/** A wait for another process has failed when it takes longer than this; real milliseconds. */
const PATIENCE_MS = 60_000;

const mayChangeUser = Deno.uid() === 0;

const REQUESTS = { restart: requestRestart, offline: requestOffline, online: requestOnline };

/** Agents that are set up as `install.sh` does it, but below a folder of the test's own. */
class Fleet implements AsyncDisposable {
  readonly served: ServedSandbox = serveSandbox();
  readonly #started: AgentProcess[] = [];
  readonly #ids: string[] = [];

  private constructor(readonly folder: string) {}

  static async open(): Promise<Fleet> {
    const fleet = new Fleet(await Deno.makeTempDir({ prefix: "op-" }));
    await Deno.mkdir(`${fleet.folder}/locks`);
    return fleet;
  }

  /** Sets an agent up; its job ends when there is a file `go`, or the folder is gone. Returns its id. */
  async setUp(name: string): Promise<string> {
    // Markers and locks are in /tmp, so the id is nobody else's.
    const id = `${name}-${crypto.randomUUID().slice(0, 8)}`;
    this.#ids.push(id);
    await Deno.mkdir(`${this.folder}/etc/${id}`, { recursive: true });
    await Deno.writeTextFile(
      this.file(id),
      `agent_id: ${id}\nserver_address: ${this.served.url}\njob_queues: [${name}]\n` +
        `polling_interval: 0.2\nmin_free_space: 0\nexecution_basedir: ${this.folder}/${id}/run\n` +
        `logging_basedir: ${this.folder}/${id}/logs\nresults_basedir: ${this.folder}/${id}/results\n` +
        `test_command: echo begun; until [ -e ${this.folder}/go -o ! -e ${this.folder} ]; do sleep 0.1; done\n`,
    );
    return id;
  }

  file(id: string): string {
    return `${this.folder}/etc/${id}/testflinger-agent.conf`;
  }

  /** Starts an agent; resolves when it asks for jobs. */
  async start(id: string, options: ProgramOptions = {}): Promise<AgentProcess> {
    const args = ["-c", this.file(id), "--token-file", `${this.folder}/none`];
    const agent = startProgram(args, options);
    this.#started.push(agent);
    await this.until(id, "waiting for ");
    return agent;
  }

  /** Waits until `status` says something of an agent. */
  async until(id: string, wanted: string): Promise<void> {
    const limit = AbortSignal.timeout(PATIENCE_MS);
    while (true) {
      const { stdout } = await run("status", "-c", this.file(id));
      if (stdout.includes(wanted)) return;
      if (limit.aborted) throw new Error(`Gave up waiting for '${wanted}':\n${stdout}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** `restart --all`, for the agents of this fleet. */
  async all(
    name: keyof typeof REQUESTS,
    { timeout, clock = systemClock }: { timeout?: string; clock?: Clock } = {},
  ): Promise<{ status: number; lines: string[] }> {
    let text = "";
    const write = (more: string) => void (text += more);
    const status = await runRequest(
      {
        values: timeout === undefined ? {} : { timeout },
        lists: {},
        switches: new Set(["all"]),
        positionals: [],
      },
      { stdout: write, stderr: write, signals: { listen() {} } },
      {
        request: REQUESTS[name],
        clock,
        places: { configFolder: `${this.folder}/etc`, sharedFolder: `${this.folder}/locks` },
      },
    );
    return { status, lines: text.trimEnd().split("\n").sort() };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const agent of this.#started) await agent[Symbol.asyncDispose]();
    await this.served.close();
    for (const id of this.#ids) {
      for (const kind of ["OFFLINE", "RESTART"]) {
        await Deno.remove(marker(kind, id)).catch(() => {});
      }
      await Deno.remove(`/tmp/testflinger-agent-${id}.lock`).catch(() => {});
    }
    await Deno.remove(this.folder, { recursive: true });
  }
}

function marker(kind: string, id: string): string {
  return `/tmp/TESTFLINGER-DEVICE-${kind}-${id}`;
}

async function isThere(path: string): Promise<boolean> {
  return await Deno.lstat(path).then(() => true, () => false);
}

Deno.test("offline, online and restart --all ask every agent, and say of each what becomes of it", async () => {
  await using fleet = await Fleet.open();
  const [busy, idle, stopped] = [
    await fleet.setUp("a-busy"),
    await fleet.setUp("b-idle"),
    await fleet.setUp("c-stopped"),
  ];
  const agents = [await fleet.start(busy), await fleet.start(idle)];
  const jobId = fleet.served.sandbox.submit({ job_queue: "a-busy", test_data: { test_cmds: "x" } });
  await fleet.until(busy, "Phase          test for ");

  const offline = await fleet.all("offline");
  assertEquals(offline.status, 0);
  assertEquals(offline.lines.length, 3);
  assertMatch(offline.lines[0] ?? "", new RegExp(`^${busy}: takes no more jobs, .*job ${jobId}`));
  assertMatch(offline.lines[1] ?? "", new RegExp(`^${idle}: takes no more jobs; `));
  assertMatch(
    offline.lines[2] ?? "",
    new RegExp(`^${stopped}: does not run; when it is started it will be offline`),
  );
  await fleet.until(idle, "offline for ");

  const on = ["-c", fleet.file(stopped)];
  const asked = "goes offline (asked on this host)\n";
  assertStringIncludes((await run("status", ...on)).stdout, `\n  Once started   ${asked}`);
  const late = await fleet.all("online", { timeout: "0" });
  assertEquals(late.status, 3);
  const again = `${stopped}: does not run; when it is started it takes jobs again; start it: `;
  assertStringIncludes(late.lines.join("\n"), again);
  assertEquals((await run("status", ...on)).stdout.includes("goes offline"), false);
  assertMatch(
    (await run("online", ...on)).stdout,
    /: does not run, and was not asked on this host/,
  );
  await fleet.until(idle, "waiting for ");

  // One that cannot be asked is worth more than one that is late.
  const restart = await fleet.all("restart", { timeout: "0" });
  assertEquals(restart.status, 1, "the stopped one cannot restart");
  assertMatch(restart.lines.join("\n"), new RegExp(`${busy}: restarts when this is over: job `));
  assertEquals(await agents[1]?.exited, 1);
  // Nothing interrupts a job.
  assertEquals(fleet.served.sandbox.state(jobId), "test");
  await Deno.writeTextFile(`${fleet.folder}/go`, "");
  assertEquals(await agents[0]?.exited, 1);
  assertEquals(fleet.served.sandbox.state(jobId), "complete");
});

Deno.test("online brings an agent back that has gone offline by itself, without the server's help", async () => {
  await using fleet = await Fleet.open();
  const id = await fleet.setUp("lost");
  await Deno.writeTextFile(fleet.file(id), "provision_command: exit 46\n", { append: true });
  await fleet.start(id);
  fleet.served.sandbox.submit({ job_queue: "lost", provision_data: { url: "x" } });
  await fleet.until(id, "offline for ");
  assertEquals(await run("online", "--wait", "-c", fleet.file(id)), {
    status: 0,
    stdout: `${id}: takes jobs again: it had gone offline by itself\n${id}: is online\n`,
    stderr: "",
  });
  await fleet.until(id, "waiting for ");
});

Deno.test("who waits is told what for, and gets exit status 3 when --timeout is over", async () => {
  await using fleet = await Fleet.open();
  const id = await fleet.setUp("busy");
  await fleet.start(id);
  const jobId = fleet.served.sandbox.submit({ job_queue: "busy", test_data: { test_cmds: "x" } });
  await fleet.until(id, "Phase          test for ");
  const clock = new FakeClock();
  let isOver = false;
  const asked = fleet.all("offline", { timeout: "150", clock }).finally(() => isOver = true);
  while (!isOver) {
    // Time goes on only while the command sleeps, however long the agent takes to answer.
    if (clock.sleepers > 0) await clock.advance(10_000);
    else await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const { status, lines } = await asked;
  assertEquals(status, 3);
  const text = lines.join("\n");
  const [first = ""] = lines.filter((line) => line.startsWith(`${id}: is not done after`));
  assertMatch(
    first,
    new RegExp(
      `is not done after 2 min 30 s, and stays asked for; waits for: job ${jobId}, in phase`,
    ),
  );
  assertEquals(lines.filter((line) => line.startsWith(`${id}: waits for: job ${jobId}`)).length, 2);
  assert(await isThere(marker("OFFLINE", id)), text);
});

Deno.test("a --timeout that is no number of seconds is refused before anything is asked", async () => {
  await using fleet = await Fleet.open();
  const id = await fleet.setUp("idle");
  for (const timeout of ["soon", "-1", "1.5"]) {
    const { status, stderr } = await run("offline", `--timeout=${timeout}`, "-c", fleet.file(id));
    assertEquals([status, stderr], [
      2,
      `--timeout must be a whole number of seconds: it is '${timeout}'\n`,
    ]);
  }
  assertEquals(await isThere(marker("OFFLINE", id)), false);
});

/** How the program is started as that other user, who cannot read the checkout. */
async function otherUser(fleet: Fleet): Promise<ProgramOptions> {
  await Deno.chmod(fleet.folder, 0o755);
  const { program, env } = await sharedBuild();
  return { through: AS_NOBODY, program, cwd: "/", env };
}

/** Runs a command so. */
async function runAs(
  other: ProgramOptions,
  ...args: string[]
): Promise<{ status: number; text: string }> {
  await using program = startProgram(args, other);
  return { status: await program.exited, text: program.output() };
}

Deno.test({
  name: "an agent that is not root takes requests of root and of its own user, in any order",
  ignore: !mayChangeUser,
  async fn() {
    await using fleet = await Fleet.open();
    const id = await fleet.setUp("nobodys");
    const other = await otherUser(fleet);
    await Deno.mkdir(`${fleet.folder}/${id}`);
    await Deno.chown(`${fleet.folder}/${id}`, NOBODY, NOBODY);
    const agent = await fleet.start(id, other);
    const on = ["-c", fleet.file(id)];

    // What root has asked for, the agent's user takes back: the file is that user's.
    assertEquals((await run("offline", ...on)).status, 0);
    assertEquals((await Deno.lstat(marker("OFFLINE", id))).uid, NOBODY);
    assertEquals(await runAs(other, "online", ...on), {
      status: 0,
      text: `${id}: takes jobs again\n`,
    });
    // A file that root made by hand counts, and stays root's: /tmp is sticky.
    await Deno.writeTextFile(marker("OFFLINE", id), "by hand\n");
    await fleet.until(id, "offline for ");
    const words =
      `${id}: ${marker("OFFLINE", id)} is root's, and only root may remove it: try as ` +
      "root\n";
    assertEquals(await runAs(other, "online", ...on), { status: 1, text: words });
    assertEquals(await runAs(other, "offline", "--comment", "mine", ...on), {
      status: 1,
      text: words,
    });
    assertEquals((await run("online", ...on)).status, 0);
    await fleet.until(id, "waiting for ");
    // A restart that root asks for is one whose file the agent can remove: else it would not restart.
    assertEquals((await run("restart", ...on)).status, 0);
    assertEquals(await agent.exited, 1);
    assertEquals(await isThere(marker("RESTART", id)), false);
  },
});

Deno.test({
  name: "an agent of root's is asked for nothing by another user, who is told so",
  ignore: !mayChangeUser,
  async fn() {
    await using fleet = await Fleet.open();
    const id = await fleet.setUp("roots");
    const other = await otherUser(fleet);
    await fleet.start(id);
    for (
      const [kind, command] of [
        ["RESTART", "restart"],
        ["OFFLINE", "offline"],
        ["RESTART", "reload"],
      ] as const
    ) {
      assertEquals(await runAs(other, command, "-c", fleet.file(id)), {
        status: 1,
        text: `${id}: the agent runs as root: try as root\n`,
      });
      assertEquals(await isThere(marker(kind, id)), false);
    }
  },
});
