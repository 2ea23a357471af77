/** The commands of an operator, about agents that one process carries. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { findAgents } from "../../lib/cli/agents/agent_ref.ts";
import { HostLab } from "../host/support/host_lab.ts";
import { run } from "./support.ts";

Deno.test("reload has a host take up what was added, changed and removed, and says what waits or is broken", async () => {
  await using lab = await HostLab.open();
  const on = ["--config-dir", lab.configs];
  const broken = await lab.configure("a");
  for (const name of ["b", "c", "d"]) await lab.configure(name);
  lab.start();
  await lab.waiting("a", "b", "c", "d");
  const job = lab.submit("b");
  await lab.until(() => lab.sandbox.log(job, "output").includes("begun"), "b runs a job");

  await lab.configure("b", { location: "rack 7" });
  await lab.configure("c", { location: "rack 8" });
  await Deno.remove(join(lab.configs, "d.conf"));
  await Deno.mkdir(join(lab.configs, "e"));
  await Deno.rename(await lab.configure("e"), join(lab.configs, "e", "testflinger-agent.conf"));
  const good = await Deno.readTextFile(broken);
  await lab.writeFile(broken, good.replace('"polling_interval"', '"poling_interval"'));
  const { status, stdout } = await run("reload", ...on);
  assertEquals(status, 1, stdout);
  const lines = stdout.split("\n");
  assertEquals(lines.slice(0, 2), [
    `process ${lab.process.pid} has read its configurations again: 4 agents`,
    `${lab.id("b")}: applies its changes after job ${job}`,
  ]);
  assertMatch(
    lines[2] ?? "",
    new RegExp(
      `^A configuration cannot be used, and agent ${
        lab.id("a")
      } keeps running with the previous configuration: ${broken}:.*poling_int`,
    ),
  );
  assertEquals(lab.sandbox.state(job), "test");
  const withBroken = await run("status", ...on);
  assertEquals(withBroken.status, 1);
  // What the agent says itself is not said a second time.
  assertEquals(withBroken.stderr, "");
  assertMatch(
    withBroken.stdout,
    new RegExp(
      `\n${lab.id("a")} +waiting .*runs with its previous configuration: ${broken}:1:.*poling_int`,
    ),
  );
  assertEquals((await run("status", lab.id("b"), ...on)).status, 0);
  await lab.until(() => lab.sandbox.agent(lab.id("c"))?.location === "rack 8", "c has changed");
  assertEquals(lab.shown("d"), ["offline", "Agent removed from its host"]);
  await lab.waiting("e");

  await lab.writeFile(broken, good);
  await lab.go("b");
  await lab.complete(job);
  assertEquals(await run("reload", ...on), {
    status: 0,
    stdout: `process ${lab.process.pid} has read its configurations again: 4 agents\n`,
    stderr: "",
  });
  assertEquals((await run("status", ...on)).status, 0);
});

Deno.test("reload after an upgrade comes back when the next process has all agents and their jobs", async () => {
  await using lab = await HostLab.open();
  await lab.configure("a");
  await lab.configure("b");
  await Deno.writeTextFile(lab.program, "one version");
  const first = lab.start();
  await lab.waiting("a", "b");
  const job = lab.submit("b");
  await lab.until(() => lab.sandbox.log(job, "output").includes("begun"), "b runs a job");
  await lab.writeFile(lab.program, "another version");
  const supervised = first.exited.then((status) => {
    lab.start();
    return status;
  });
  const { status, stdout } = await run("reload", "--config-dir", lab.configs);
  assertEquals([status, await supervised], [0, 1], stdout);
  const lines = stdout.trimEnd().split("\n").sort();
  assertEquals(lines.length, 2, stdout);
  const words = `runs on in process ${lab.process.pid}, version `;
  assertMatch(lines[0] ?? "", new RegExp(`^${lab.id("a")}: ${words}\\S+$`));
  assertMatch(lines[1] ?? "", new RegExp(`^${lab.id("b")}: ${words}\\S+: job ${job}, in phase`));
  await lab.go("b");
  await lab.complete(job);
  assertEquals(lab.sandbox.log(job, "output").split("begun").length, 2);
});

Deno.test("reload of one agent's process hands over; of one that does not run it says how to start it", async () => {
  await using lab = await HostLab.open();
  const file = await lab.configure("a");
  assertEquals(await run("reload", "-c", file), {
    status: 1,
    stdout: `${lab.id("a")}: does not run; start it: testflinger-agent -c ${file}\n`,
    stderr: "",
  });
  const first = lab.start("-c", file);
  await lab.waiting("a");
  const supervised = first.exited.then(() => void lab.start("-c", file));
  const { status, stdout } = await run("reload", "-c", file);
  await supervised;
  assertEquals(status, 0, stdout);
  assertStringIncludes(stdout, `${lab.id("a")}: runs on in process ${lab.process.pid}, version `);
});

Deno.test("an agent whose configuration was broken goes on, does not hand over, and status and page say so", async () => {
  await using lab = await HostLab.open();
  const file = await lab.configure("a");
  const process = lab.start("-c", file);
  await lab.waiting("a");
  const good = await Deno.readTextFile(file);
  await lab.writeFile(file, good.replace('"polling_interval"', '"poling_interval"'));
  const reload = await run("reload", "-c", file);
  assertEquals(reload.status, 1);
  assertStringIncludes(
    reload.stdout,
    `A configuration cannot be used, and agent ${
      lab.id("a")
    } keeps running with the previous configuration: ${file}:1:`,
  );

  const { status, stdout, stderr } = await run("status", "-c", file);
  assertEquals([status, stderr], [1, ""]);
  assertMatch(
    stdout,
    new RegExp(
      `\n  Configuration  ${file}\n +cannot be used as it is now, noticed \\d+ s ago \\(\\d{4}-\\d\\d-.* UTC\\):` +
        `\n +${file}:1:\\d+: poling_interval: .*did you mean.*` +
        "\n +the agent keeps running with the previous configuration\n$",
    ),
  );
  const json = JSON.parse((await run("status", "-c", file, "--format", "json")).stdout)[0];
  const { since, mistakes } = json.status.broken_configuration;
  assert(Date.parse(since) <= Date.now());
  assertMatch(mistakes.join(), /poling_interval/);
  const page = (await lab.get("/")).text;
  assertMatch(page, /data-page="agent"/);
  assertMatch(page, /cannot be used<\/strong> as it is now, noticed .*ago[^]*poling_interval/);
  assertEquals((await lab.get("/healthz")).status, 200, "a supervisor must not end it");

  await lab.writeFile(file, good);
  const supervised = process.exited.then(() => void lab.start("-c", file));
  const mended = await run("reload", "-c", file);
  await supervised;
  assertEquals([mended.status, mended.stderr], [0, ""]);
  assertEquals((await run("status", "-c", file)).status, 0);
});

Deno.test("the folder of an installed host is found in its unit, wherever it is", async () => {
  await using lab = await HostLab.open();
  await lab.configure("a");
  await Deno.mkdir(join(lab.configs, "b"));
  await Deno.rename(await lab.configure("b"), join(lab.configs, "b", "testflinger-agent.conf"));
  const unit = join(lab.folder, "testflinger-agents.service");
  await Deno.writeTextFile(
    unit,
    `[Service]\nExecStart=/usr/bin/testflinger-agent run --config-dir ${lab.configs} \\\n` +
      "  --restart-status 75\n",
  );
  const { agents } = await findAgents({ hostUnits: [unit], sharedFolder: lab.folder });
  const found = agents.map(({ id }) => id);
  assertEquals(found.filter((id) => [lab.id("a"), lab.id("b")].includes(id)), [
    lab.id("a"),
    lab.id("b"),
  ]);
});

Deno.test("status says why an agent does not run, as the process of its host has it", async () => {
  await using lab = await HostLab.open();
  const obstacle = join(lab.folder, "obstacle");
  await Deno.writeTextFile(obstacle, "a file");
  const file = await lab.configure("a", { logging_basedir: join(obstacle, "logs") });
  await lab.configure("b");
  lab.start();
  await lab.waiting("b");
  await lab.until(async () => (await lab.get("/healthz")).status === 503, "a has failed");
  for (const on of [["-c", file], ["--config-dir", lab.configs]]) {
    const { status, stdout } = await run("status", ...on);
    assertEquals(status, 1);
    assertMatch(
      stdout,
      new RegExp(`${lab.id("a")} +(stopped|does not run\n  Because) +Cannot make the folder`),
    );
  }
});

Deno.test("status, jobs, logs, offline, online, restart and doctor take a host's folder, and ids in it", async () => {
  await using lab = await HostLab.open();
  const on = ["--config-dir", lab.configs];
  await lab.configure("a");
  await Deno.mkdir(join(lab.configs, "b"));
  const file = join(lab.configs, "b", "testflinger-agent.conf");
  await Deno.rename(await lab.configure("b"), file);
  const [a, b] = [lab.id("a"), lab.id("b")];
  const before = await run("status", ...on);
  assertEquals(before.status, 1);
  assertMatch(before.stdout, new RegExp(`^AGENT.*\n${a} +stopped\n${b} +stopped\n$`));
  lab.start();
  await lab.waiting("a", "b");
  await lab.go("b");
  const job = lab.submit("b");
  await lab.complete(job);
  await lab.waiting("b");

  const all = await run("status", ...on);
  assertEquals(all.status, 0, all.stdout);
  assertMatch(all.stdout, new RegExp(`\n${a} +waiting .*\n${b} +waiting `));
  const one = await run("status", b, ...on);
  assertStringIncludes(one.stdout, `${b}  waiting for `);
  assertStringIncludes(one.stdout, file);
  assertStringIncludes((await run("jobs", b, ...on)).stdout, job);
  assertStringIncludes((await run("logs", b, ...on)).stdout, `[${b}] Agent ${b} starts`);
  assertEquals((await run("logs", ...on)).stderr, "One log at a time: name one agent\n");

  const offline = await run("offline", "--wait", a, ...on);
  assertStringIncludes(offline.stdout, `${a}: is offline\n`);
  assertEquals(lab.shown("b")[0], "waiting");
  assertEquals((await run("online", "--wait", a, ...on)).status, 0);

  // Inside: the process and the neighbour stay.
  const { pid } = lab.process;
  const restart = await run("restart", "--wait", b, ...on);
  assertStringIncludes(restart.stdout, `${b}: has restarted\n`);
  const { agents, pid: now } = JSON.parse((await lab.get("/v1/status")).text);
  assertEquals([now, agents.length], [pid, 2]);
  assertEquals(lab.process.output().split(`Agent ${a} starts`).length, 2);

  const doctor = await run("doctor", ...on);
  assertMatch(doctor.stdout, new RegExp(`^${a}\n(?:  .*\n)+${b}\n(?:  .*\n)+$`));
  assert(!doctor.stdout.includes("failed   lock"), doctor.stdout);

  const unknown = await run("status", "z", ...on);
  assertEquals([unknown.status, unknown.stderr], [
    2,
    `There is no agent 'z' on this host; there are: ${a}, ${b}\n`,
  ]);
  const both = await run("status", "-c", file, ...on);
  assertEquals([both.status, both.stderr], [
    2,
    "--config-dir and --config cannot be given both\n",
  ]);
});

Deno.test("status, reload and logs say of each configuration that cannot be used why, and end with exit status 1", async () => {
  await using lab = await HostLab.open();
  const on = ["--config-dir", lab.configs];
  const file = await lab.configure("b");
  const typo = await lab.configure("typo", { connector: "muxpy" });
  const twin = join(lab.configs, "a.conf");
  await lab.writeFile(twin, await Deno.readTextFile(file));
  await lab.configure("bad", { agent_id: "" });
  await lab.writeFile(join(lab.configs, "empty.conf"), "");
  await lab.writeFile(join(lab.configs, "yaml.conf"), "agent_id: [\n");
  const [b, broken] = [lab.id("b"), lab.id("typo")];

  // At a start with two files of one id, none of them is used.
  const before = await run("status", ...on);
  assertEquals(before.status, 1);
  assertMatch(before.stdout, new RegExp(`\n${b} +stopped +${twin} cannot be used: agent_id: `));
  assertStringIncludes(before.stderr, `${file} cannot be used: agent_id: '${b}' is the agent_id`);
  await Deno.remove(twin);
  lab.start();
  await lab.waiting("b");
  await lab.writeFile(twin, await Deno.readTextFile(file));

  const wrong = `${typo} cannot be used: 1:`;
  const { status, stdout, stderr } = await run("status", ...on);
  assertEquals(status, 1, stdout);
  assertMatch(stdout, new RegExp(`\n${b} +waiting `));
  assertMatch(stdout, new RegExp(`\n${broken} +stopped +${wrong}\\d+: connector: .*'muxpi'`));
  const lines = stderr.trimEnd().split("\n").sort();
  assertEquals(lines.map((line) => line.split(" cannot be used")[0]), [
    twin,
    ...["bad", "empty", "yaml"].map((name) => join(lab.configs, `${name}.conf`)),
  ]);
  // Where the folder is not named, the process of the host knows it.
  const unnamed = await run("status");
  assertEquals(unnamed.status, 1);
  const at = "A configuration cannot be used, and no agent runs for it: ";
  await lab.until(
    async () => (await run("status")).stderr.includes(`${at}${twin}: agent_id: '${b}' is the`),
    "the host has seen the copy",
  );
  for (const name of ["empty", "yaml", "bad", "typo"]) {
    assertStringIncludes(unnamed.stderr, `${at}${join(lab.configs, name)}.conf:`);
  }

  const one = await run("status", broken, ...on);
  assertEquals(one.status, 1);
  assertMatch(one.stdout, new RegExp(`does not run\n  Because +${wrong}`));
  const reload = await run("reload", broken, ...on);
  assertEquals(reload.status, 1);
  assertMatch(reload.stdout, new RegExp(`^${broken}: does not run; it cannot start, ${wrong}`));
  await Deno.mkdir(join(lab.folder, "typo", "logs"), { recursive: true });
  await lab.writeFile(join(lab.folder, "typo", "logs", "testflinger-agent.log"), "");
  const logs = await run("logs", broken, ...on);
  assertEquals([logs.status, logs.stdout], [1, ""]);
  assertStringIncludes(logs.stderr, wrong);
});
