import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { findAgents } from "../../lib/cli/agents/agent_ref.ts";
import { lockHolder } from "../../lib/cli/agents/lock_holder.ts";
import { type ServedSandbox, serveSandbox } from "../../lib/sandbox/serve.ts";
import { type AgentProcess, startProgram } from "../support/agent_process.ts";
import { AGENT, run, withFiles } from "./support.ts";

/** A wait for another process has failed when it takes longer than this; real milliseconds. */
const PATIENCE_MS = 60_000;

interface Lab {
  served: ServedSandbox;
  folder: string;
  file: string;
  agentId: string;
  start(): AgentProcess;
}

/** A sandbox and a configuration; markers and locks are in /tmp, so the id is nobody else's. */
async function withLab(test: (lab: Lab) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "op-" });
  const served = serveSandbox();
  const agentId = `op-${crypto.randomUUID().slice(0, 8)}`;
  const file = `${folder}/a.conf`;
  await Deno.writeTextFile(
    file,
    `agent_id: ${agentId}\nserver_address: ${served.url}\njob_queues: [q]\n` +
      `polling_interval: 0.2\nmin_free_space: 0\nexecution_basedir: ${folder}/run\n` +
      `logging_basedir: ${folder}/logs\nresults_basedir: ${folder}/results\n` +
      // A job that ends when the test says so, by making a file.
      `test_command: echo begun; until [ -e ${folder}/go -o ! -e ${folder} ]; do sleep 0.1; done; echo ended\n`,
  );
  const started: AgentProcess[] = [];
  try {
    const start = () => {
      const agent = startProgram(["-c", file, "--token-file", `${folder}/none`]);
      started.push(agent);
      return agent;
    };
    await test({ served, folder, file, agentId, start });
  } finally {
    for (const agent of started) await agent[Symbol.asyncDispose]();
    await served.close();
    for (
      const name of [`testflinger-agent-${agentId}.lock`, `TESTFLINGER-DEVICE-OFFLINE-${agentId}`]
    ) {
      await Deno.remove(`/tmp/${name}`).catch(() => {});
    }
    await Deno.remove(folder, { recursive: true });
  }
}

/** Runs a command again and again until its output has `wanted` in it; returns the output. */
async function until(wanted: string, ...args: string[]): Promise<string> {
  const limit = AbortSignal.timeout(PATIENCE_MS);
  while (true) {
    const { stdout, stderr } = await run(...args);
    if (stdout.includes(wanted)) return stdout;
    if (limit.aborted) throw new Error(`Gave up waiting for '${wanted}':\n${stdout}${stderr}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

Deno.test("status, logs, jobs, offline, online and restart follow an agent through a job", () =>
  withLab(async ({ served, folder, file, agentId, start }) => {
    const on = ["-c", file];
    const before = await run("status", ...on);
    assertEquals([before.status, before.stdout.split("\n")[0]], [1, `${agentId}  does not run`]);
    const none = await run("restart", ...on);
    assertEquals(none.status, 1);
    assertStringIncludes(none.stdout, "does not run, so there is nothing to restart; start it: ");

    start();
    await until(`${agentId}  waiting for `, "status", ...on);
    const waiting = await until(`Server         ${served.url}, last answer `, "status", ...on);
    assertStringIncludes(waiting, "Undelivered    nothing");
    const socket = await Deno.stat(`${folder}/results/agent-${agentId}/status.sock`);
    assertEquals((socket.mode ?? 0) & 0o777, 0o600);

    const jobId = served.sandbox.submit({ job_queue: "q", test_data: { test_cmds: "x" } });
    const running = await until("Phase          test for ", "status", ...on);
    assertStringIncludes(running, `Job            ${jobId}, queue q`);
    assertMatch(running, /at most 3 h 59 min more, at most 14 min \d+ s more without output/);
    assertStringIncludes(await until("begun", "logs", "--job", ...on), "begun\n");

    const offline = await run("offline", "--comment", "new card", ...on);
    assertMatch(
      offline.stdout,
      /takes no more jobs, and goes offline when this is over: job .*, in phase test for /,
    );
    assertEquals(
      await Deno.readTextFile(`/tmp/TESTFLINGER-DEVICE-OFFLINE-${agentId}`),
      "new card\n",
    );
    assertEquals(served.sandbox.state(jobId), "test");
    await Deno.writeTextFile(`${folder}/go`, "");
    const waited = await run("offline", "--comment", "new card", "--wait", ...on);
    assertStringIncludes(waited.stdout, `${agentId}: is offline\n`);
    assertStringIncludes((await run("status", ...on)).stdout, "Because        new card");

    const jobs = await run("jobs", ...on);
    const row = jobs.stdout.split("\n").find((line) => line.includes(jobId)) ?? "";
    assertMatch(row, /^[\d-]+ [\d:]+ {2}\S+ {2}q +\d+ s +passed +test \d+ s$/);
    assertMatch(jobs.stdout, /\nSTARTED \(UTC\) +JOB +QUEUE +TOOK +RESULT +PHASES +NAME\n/);
    const [list] = JSON.parse((await run("jobs", "--format", "json", ...on)).stdout);
    assertEquals([list.agent_id, list.jobs[0].job_id], [agentId, jobId]);

    const restart = await run("restart", ...on);
    assertStringIncludes(restart.stdout, "restarts when it is online again; it is offline now");
    const online = await run("online", ...on);
    assertEquals([online.status, online.stdout], [0, `${agentId}: takes jobs again\n`]);
    // Lines that come while it looks are shown too.
    await until("to be started again", "logs", "-n", "2", ...on);
    const logs = await run("logs", "-n", "2", ...on);
    assertMatch(logs.stdout, /^.* INFO .*\n.* INFO \[\S+\] The agent ends, to be started again\n$/);
  }));

Deno.test("restart --wait and online --wait end when a supervisor has started the agent again", () =>
  withLab(async ({ file, agentId, start }) => {
    const first = start();
    await until("waiting for ", "status", "-c", file);
    const supervised = first.exited.then((status) => {
      start();
      return status;
    });
    const { status, stdout } = await run("restart", "--wait", "-c", file);
    assertEquals([status, stdout.split("\n")], [0, [
      `${agentId}: restarts now: no job is running`,
      `${agentId}: has restarted`,
      "",
    ]]);
    assertEquals(await supervised, 1);
  }));

Deno.test("online says in words that the server keeps an agent offline, and what to do there", () =>
  withLab(async ({ served, file, agentId, start }) => {
    start();
    await until("waiting for ", "status", "-c", file);
    // Not before the server shows it too: what is set while the agent's first state is on its way is
    // overwritten by it.
    await served.sandbox.waitFor(() => served.sandbox.agent(agentId)?.state === "waiting");
    served.sandbox.setAgent(agentId, { state: "offline", comment: "bad\x1b[2Jcable" });
    await until("offline for ", "status", "-c", file);
    const { status, stdout } = await run("online", "-c", file);
    assertEquals(status, 1);
    assertStringIncludes(
      stdout,
      "it stays offline: bad\u241b[2Jcable. That was not asked for on this host but is kept on the server",
    );
    assertStringIncludes(stdout, `set agent-status --status online --agents ${agentId}'`);
  }));

Deno.test("agents are found by their configuration in /etc and by the locks of running ones", () =>
  withLab(async ({ folder, file, agentId, start }) => {
    start();
    await until("waiting for ", "status", "-c", file);
    await Deno.mkdir(`${folder}/etc/one`, { recursive: true });
    await Deno.mkdir(`${folder}/etc/two`);
    await Deno.writeTextFile(
      `${folder}/etc/one/testflinger-agent.conf`,
      "agent_id: one\nserver_address: s\njob_queues: [q]\n",
    );
    await Deno.writeTextFile(`${folder}/etc/two/testflinger-agent.conf`, "agent_id: two\n");
    const { agents, complaints } = await findAgents({ configFolder: `${folder}/etc` });
    const ours = agents.filter(({ id }) => [agentId, "one"].includes(id));
    assertEquals(ours.map((agent) => [agent.id, agent.file]), [
      ["one", `${folder}/etc/one/testflinger-agent.conf`],
      [agentId, file],
    ]);
    const all = JSON.parse((await run("status", "--all", "--format", "json")).stdout);
    const found = all.find((entry: { agent_id: string }) => entry.agent_id === agentId);
    assertEquals([found.state, found.status.mode.state], ["running", "waiting"]);
    assertStringIncludes(complaints.join("\n"), "two/testflinger-agent.conf cannot be used: 1:1: ");
    const holder = await lockHolder(`${folder}/results/agent-${agentId}/lock`);
    assertStringIncludes(holder?.command ?? "", `-c ${file}`);
  }));

Deno.test("a configuration file in the place of an agent's name gets a hint how to name it", () =>
  withLab(async ({ file }) => {
    const { status, stderr } = await run("status", file);
    assertEquals(status, 2);
    assertStringIncludes(
      stderr,
      `There is no agent '${file}' on this host; to name a configuration file: -c ${file}\n`,
    );
  }));

Deno.test("a command about an agent says which configurations it cannot use", async () => {
  const { status, stderr } = await run("status", "-c", "/no/such.conf");
  assertEquals([status, stderr], [
    2,
    "/no/such.conf cannot be used: cannot be read: there is no such file\n",
  ]);
  // One that is broken keeps nobody from hearing of the others, and is not forgotten.
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(
      `${folder}/good.conf`,
      `agent_id: good\nserver_address: s\njob_queues: [q]\nresults_basedir: ${folder}\n`,
    );
    const files = ["-c", "/no/such.conf", "-c", `${folder}/good.conf`];
    for (
      const [command, words] of [
        ["status", "good  does not run"],
        ["jobs", "good: no job yet"],
        ["restart", "good: does not run"],
        ["doctor", ""],
      ] as const
    ) {
      const some = await run(command, ...files, ...command === "doctor" ? ["--format=json"] : []);
      assertEquals([command, some.status], [command, command === "doctor" ? 2 : 1]);
      assertStringIncludes(some.stderr, "/no/such.conf cannot be used: ");
      if (command !== "doctor") assertStringIncludes(some.stdout, words);
      else assertEquals(JSON.parse(some.stdout)[0].agent_id, "good");
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  const lines = await run("logs", "-n", "many");
  assertEquals([lines.status, lines.stderr], [
    2,
    "--lines must be a whole number, 0 or more: it is 'many'\n",
  ]);
});

Deno.test("a running agent is found and asked whatever has become of its configuration", () =>
  withLab(async ({ served, folder, file, agentId, start }) => {
    const good = await Deno.readTextFile(file);
    start();
    await until(`${agentId}  waiting`, "status", "-c", file);
    const jobId = served.sandbox.submit({ job_queue: "q", test_data: { test_cmds: "x" } });
    await until(`Job            ${jobId}`, "status", "-c", file);
    for (
      const [what, text, complaint] of [
        ["a slip of syntax", `${good}job_queues: [q\n`, ":13: this [ is never closed: add ]"],
        ["a wrong key", `${good}pasport: x\n`, "pasport: is not a known key, remove it"],
        [
          "without its id",
          good.replace(/^agent_id: .*\n/, ""),
          "agent_id: is missing, must be text",
        ],
        ["another results_basedir", good.replace("/results", "/elsewhere"), ""],
        ["another agent_id", good.replace(agentId, "other"), ""],
        ["nothing at all", "", "is empty, must be a mapping"],
      ]
    ) {
      await Deno.writeTextFile(file, text ?? "");
      for (const named of [["-c", file], [agentId]]) {
        const status = await run("status", ...named);
        assertStringIncludes(status.stdout, `${agentId}  test for `, `${what}: ${status.stderr}`);
        assertStringIncludes(status.stdout, jobId, what);
        // The next start would fail. By its id the agent is looked for where agents are set up.
        const isSeen = complaint !== "" && named.length > 1;
        // The agent looks at its file, too, now and then.
        const knows = status.stdout.includes("cannot be used as it is now");
        assertEquals(status.status, isSeen || knows ? 1 : 0, what);
        // By its id it is found without its file.
        if (named.length > 1 && complaint !== "") {
          const told = status.stderr || status.stdout;
          assertStringIncludes(told, file, what);
          assertStringIncludes(told, complaint ?? "", what);
          assertMatch(
            told,
            /keeps its previous configuration\n|keeps running with the previous configuration/,
          );
        }
        const logs = await run("logs", ...named);
        assertStringIncludes(logs.stdout, `Agent ${agentId} starts`, what);
        const output = await run("logs", "--job", ...named);
        assertStringIncludes(output.stdout, "begun\n", what);
        const offline = await run("offline", "--comment", what ?? "", ...named);
        assertStringIncludes(offline.stdout, `${agentId}: takes no more jobs, and goes offline`);
        assertEquals((await run("online", ...named)).status, 0, what);
      }
      if (complaint !== "") assertEquals((await run("doctor", "-c", file)).status, 2, what);
    }
    await Deno.remove(file);
    const gone = await run("status", "-c", file);
    assertStringIncludes(gone.stdout, `${agentId}  test for `);
    await Deno.writeTextFile(`${folder}/go`, "");
    await served.sandbox.waitFor(() => served.sandbox.state(jobId) === "complete");
  }));

Deno.test("of a log that two agents write, logs shows the named one's lines", () =>
  withLab(async ({ folder, file, agentId, start }) => {
    const other = `${agentId}-other`;
    const config = (await Deno.readTextFile(file)).replace(agentId, other)
      .replace("/results", "/other");
    await Deno.writeTextFile(`${folder}/b.conf`, config);
    start();
    await using _second = startProgram(["-c", `${folder}/b.conf`, "--token-file", "none"]);
    await until(`${agentId}  waiting`, "status", "-c", file);
    await until(`${other}  waiting`, "status", "-c", `${folder}/b.conf`);
    const log = await Deno.readTextFile(`${folder}/logs/testflinger-agent.log`);
    assertStringIncludes(log, ` INFO [${agentId}] Agent ${agentId} starts`);
    assertStringIncludes(log, ` INFO [${other}] Agent ${other} starts`);
    for (const [id, others] of [[agentId, other], [other, agentId]]) {
      const { stdout } = await run("logs", id ?? "");
      assertStringIncludes(stdout, `[${id}] Agent ${id} starts`);
      assertEquals(stdout.includes(`[${others}]`), false, stdout);
    }
    await Deno.remove(`/tmp/testflinger-agent-${other}.lock`).catch(() => {});
  }));

Deno.test("a command that finds no agent to be about has done nothing: exit status 2", () =>
  withFiles({ "agents/a.conf": AGENT }, async (folder) => {
    const commands = ["status", "jobs", "logs", "restart", "reload", "offline", "online", "doctor"];
    for (const command of commands) {
      for (
        const where of [
          ["-c", `${folder}/none.conf`],
          ["--config-dir", `${folder}/none`],
          ["--config-dir", `${folder}/agents`, "nobody"],
          ["--config-dir", `${folder}/agents`, "-c", `${folder}/agents/a.conf`],
        ]
      ) {
        const { status, stderr } = await run(command, ...where);
        assertEquals(status, 2, `${command} ${where.join(" ")}: ${stderr}`);
      }
    }
    assertEquals((await run("cache", "-c", `${folder}/none.conf`)).status, 2);
  }));
