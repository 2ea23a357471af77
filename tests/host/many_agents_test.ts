import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { HostStatus } from "../../lib/observe/status_schema.ts";
import { HostLab } from "./support/host_lab.ts";

Deno.test("one process carries several agents, each with its folders and its jobs, on one endpoint", async () => {
  await using lab = await HostLab.open();
  await lab.configure("a");
  await lab.configure("b", { identifier: "SN-2" });
  lab.start();
  await lab.waiting("a", "b");
  const [first, second] = [lab.submit("a"), lab.submit("b")];
  await lab.until(
    () => [first, second].every((job) => lab.sandbox.log(job, "output").includes("begun")),
    "both run at the same time",
  );
  const { agents } = JSON.parse((await lab.get("/v1/status")).text);
  assertEquals(
    agents.map((one: { agent_id: string; job_id: string }) => [one.agent_id, one.job_id]),
    [
      [lab.id("a"), first],
      [lab.id("b"), second],
    ],
  );
  assertEquals(JSON.parse((await lab.get(`/v1/agents/${lab.id("b")}`)).text).job.job_id, second);
  assertStringIncludes((await lab.get("/")).text, `href="/agents/${lab.id("a")}"`);
  await lab.go("a");
  await lab.go("b");
  await lab.complete(first);
  await lab.complete(second);
  await lab.waiting("a", "b");
  const metrics = (await lab.get("/metrics")).text;
  for (const name of ["a", "b"]) {
    assertStringIncludes(metrics, `jobs_total{agent_id="${lab.id(name)}"} 1`);
    assertStringIncludes(
      metrics,
      `testflinger_agent_state{agent_id="${lab.id(name)}",state="waiting"} 1`,
    );
    const log = await Deno.readTextFile(join(lab.folder, name, "logs", "testflinger-agent.log"));
    assertStringIncludes(log, `[${lab.id(name)}] Agent ${lab.id(name)} starts`);
    assertEquals(log.includes(`[${lab.id(name === "a" ? "b" : "a")}]`), false);
    assertStringIncludes(lab.process.output(), ` INFO [${lab.id(name)}] `);
  }
  assertMatch(
    metrics,
    new RegExp(`phase_duration_seconds_count\\{agent_id="${lab.id("b")}".*identifier="SN-2"`),
  );
  assertEquals((await lab.get("/healthz")).text, "ok\n");
  lab.process.kill("SIGTERM");
  assertEquals(await lab.process.exited, 0, lab.process.output());
  assertEquals([lab.shown("a"), lab.shown("b")], [
    ["offline", "Agent stopped"],
    ["offline", "Agent stopped"],
  ]);
});

Deno.test("several -c are several agents of one process, too", async () => {
  await using lab = await HostLab.open();
  const files = [await lab.configure("a"), await lab.configure("b")];
  lab.start(...files.flatMap((file) => ["-c", file]));
  await lab.waiting("a", "b");
});

Deno.test("a configuration is added at once, changed after its agent's job, and removed after it, at SIGHUP", async () => {
  await using lab = await HostLab.open();
  await lab.configure("a");
  await lab.configure("b");
  lab.start();
  await lab.waiting("a", "b");
  const [onA, onB] = [lab.submit("a"), lab.submit("b")];
  await lab.until(
    () => [onA, onB].every((job) => lab.sandbox.log(job, "output").includes("begun")),
    "both run",
  );

  await lab.configure("c");
  await lab.configure("a", { location: "rack 7" });
  await Deno.remove(join(lab.configs, "b.conf"));
  lab.process.kill("SIGHUP");
  await lab.waiting("c");
  assertEquals([lab.sandbox.state(onA), lab.sandbox.state(onB)], ["test", "test"]);
  assertEquals(lab.sandbox.agent(lab.id("a"))?.location, "");

  await lab.go("a");
  await lab.go("b");
  await lab.complete(onA);
  await lab.complete(onB);
  await lab.until(() => lab.sandbox.agent(lab.id("a"))?.location === "rack 7", "a has changed");
  await lab.waiting("a");
  await lab.until(() => lab.shown("b")[0] === "offline", "b is gone");
  assertEquals(lab.shown("b"), ["offline", "Agent removed from its host"]);
  await lab.until(
    async () => !(await lab.get("/metrics")).text.includes(lab.id("b")),
    "b has no metrics any more",
  );
  // It comes back as if it had never been away.
  await lab.configure("b");
  lab.process.kill("SIGHUP");
  await lab.waiting("b");
});

Deno.test("changes are taken up by themselves, without a signal", async () => {
  await using lab = await HostLab.open();
  lab.start();
  await lab.until(
    async () => (await lab.get("/readyz")).text === "there are no agents\n",
    "it runs",
  );
  await lab.configure("a");
  await lab.waiting("a");
});

Deno.test("the endpoint is there as soon as a configuration names a port, also for agents that run already", async () => {
  await using lab = await HostLab.open();
  lab.namesPort = false;
  await lab.configure("a");
  lab.start();
  await lab.waiting("a");
  await lab.configure("b", { metrics_port: lab.port });
  lab.process.kill("SIGHUP");
  await lab.waiting("b");
  await lab.go("a");
  await lab.complete(lab.submit("a"));
  const { text } = await lab.get("/metrics");
  assertStringIncludes(text, `jobs_total{agent_id="${lab.id("a")}"} 1`);
  assertStringIncludes(text, `jobs_total{agent_id="${lab.id("b")}"} 0`);
});

Deno.test("a broken configuration is in log, health, status and page, and its agent runs on as it was", async () => {
  await using lab = await HostLab.open();
  const file = await lab.configure("a");
  await lab.configure("b");
  lab.start();
  await lab.waiting("a", "b");
  const text = await Deno.readTextFile(file);
  await lab.writeFile(file, text.replace('"polling_interval"', '"poling_interval"'));
  await lab.writeFile(join(lab.configs, "z.conf"), "agent_id: [\n");
  lab.process.kill("SIGHUP");
  await lab.until(async () => (await lab.get("/healthz")).status === 503, "health says so");
  const { text: health } = await lab.get("/healthz");
  assertStringIncludes(health, "poling_interval");
  assertStringIncludes(health, "z.conf:");
  const status = JSON.parse((await lab.get("/v1/status")).text);
  assertEquals(
    status.broken_configurations.map((
      one: { file: string; agent_id?: string },
    ) => [one.file, one.agent_id]),
    [[file, lab.id("a")], [join(lab.configs, "z.conf"), undefined]],
  );
  assertStringIncludes((await lab.get("/")).text, "poling_interval");
  const [a, b] = HostStatus.parse(status).agents;
  assertMatch(a?.broken_configuration?.mistakes.join() ?? "", /a\.conf:1:\d+: poling_interval/);
  assertEquals(b?.broken_configuration, undefined);
  assertStringIncludes((await lab.get(`/agents/${lab.id("a")}`)).text, "poling_interval");
  assertStringIncludes(
    lab.process.output(),
    `Agent ${lab.id("a")} keeps running with the previous configuration`,
  );
  await lab.go("a");
  await lab.complete(lab.submit("a"));

  await lab.writeFile(file, text);
  await Deno.remove(join(lab.configs, "z.conf"));
  lab.process.kill("SIGHUP");
  await lab.until(async () => (await lab.get("/healthz")).status === 200, "all is well again");
});

Deno.test("each agent of a process has the token of its own token_file", async () => {
  await using lab = await HostLab.open({ tokens: true });
  lab.sandbox.addRefreshToken("good");
  for (const [name, token] of [["a", "good"], ["b", "wrong"]] as const) {
    const token_file = join(lab.folder, `token-${name}`);
    await Deno.writeTextFile(token_file, JSON.stringify({ refresh_token: token }));
    await lab.configure(name, { token_file });
  }
  lab.start();
  await lab.waiting("a");
  await lab.go("a");
  const job = lab.submit("a");
  await lab.complete(job);
  await lab.until(
    () => /\[b-\S+\] .*refresh token/.test(lab.process.output()),
    "b says that its token is refused",
  );
  assertEquals(lab.sandbox.agent(lab.id("b")), undefined);
});

Deno.test("a restart of one agent is carried out inside; the others and their jobs do not notice", async () => {
  await using lab = await HostLab.open();
  await lab.configure("a");
  await lab.configure("b");
  lab.start();
  await lab.waiting("a", "b");
  const onB = lab.submit("b");
  await lab.until(() => lab.sandbox.log(onB, "output").includes("begun"), "b runs a job");
  const starts = () => lab.process.output().split(`Agent ${lab.id("a")} starts`).length - 1;

  await Deno.writeTextFile(`/tmp/TESTFLINGER-DEVICE-RESTART-${lab.id("a")}`, "");
  await lab.until(() => starts() === 2, "a has restarted for its marker");
  await lab.waiting("a");
  lab.sandbox.setAgent(lab.id("a"), { state: "restart", comment: "please" });
  await lab.until(() => starts() === 3, "a has restarted for the server");
  await lab.waiting("a");

  assertEquals(lab.sandbox.state(onB), "test");
  await lab.go("b");
  await lab.complete(onB);
  await lab.go("a");
  await lab.complete(lab.submit("a"));
});

Deno.test("SIGUSR1 lets all jobs end, takes no other, and ends the process with status 1; also with an agent offline", async () => {
  await using lab = await HostLab.open();
  for (const name of ["a", "b", "c"]) await lab.configure(name);
  lab.sandbox.setAgent(lab.id("c"), { state: "offline", comment: "cable" });
  lab.start();
  await lab.waiting("a", "b");
  const onB = lab.submit("b");
  await lab.until(() => lab.sandbox.log(onB, "output").includes("begun"), "b runs a job");
  lab.process.kill("SIGUSR1");
  await lab.until(() => lab.shown("a")[0] === "offline", "a has ended");
  const next = lab.submit("b");
  await lab.go("b");
  assertEquals(await lab.process.exited, 1, lab.process.output());
  assertEquals([lab.sandbox.state(onB), lab.sandbox.state(next)], ["complete", "waiting"]);
  assertEquals(lab.shown("c"), ["offline", "cable"]);
  // Nobody has to set them online.
  lab.start();
  await lab.waiting("a", "b");
  assertEquals(lab.shown("c"), ["offline", "cable"]);
});

Deno.test("an agent keeps its configuration over a restart, whatever a stray copy of it is called", async () => {
  await using lab = await HostLab.open();
  const file = await lab.configure("b");
  const first = lab.start();
  await lab.waiting("b");
  const copy = JSON.parse(await Deno.readTextFile(file));
  const stray = join(lab.configs, "a.conf");
  await lab.writeFile(stray, JSON.stringify({ ...copy, job_queues: ["elsewhere"] }));
  first.kill("SIGTERM");
  await first.exited;
  lab.start();
  await lab.waiting("b");
  assertEquals(lab.sandbox.agent(lab.id("b"))?.queues, ["b"]);
  const words = `${stray}: agent_id: '${lab.id("b")}' is the agent_id of ${file} too`;
  assertStringIncludes(lab.process.output(), words);
});

Deno.test("a host without any configuration says so once, and takes up the first that comes", async () => {
  await using lab = await HostLab.open();
  lab.start();
  const words = `There is no agent's configuration in ${lab.configs}, so nothing runs`;
  await lab.until(() => lab.process.output().includes(words), "it warns");
  await lab.configure("a");
  lab.process.kill("SIGHUP");
  await lab.waiting("a");
  assertEquals(lab.process.output().split(words).length, 2);
});
