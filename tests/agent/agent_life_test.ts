import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { scaledClock } from "../../lib/clock.ts";
import type { ControlGroupsResult } from "../../lib/process/cgroup.ts";
import { serveSandbox } from "../../lib/sandbox/serve.ts";
import { Lab, type RunningAgent } from "../support/lab.ts";

/** A test that ends when the file `go` appears. */
const UNTIL_GO = "echo ready; while [ ! -e ../go ]; do sleep 0.02; done";

async function go(lab: Lab): Promise<void> {
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
}

function restartMarker(lab: Lab, agentId = "agent-1"): string {
  return join(lab.folder, `TESTFLINGER-DEVICE-RESTART-${agentId}`);
}

Deno.test("an agent that starts shows itself waiting, with its queues, place and kind", async () => {
  await using lab = await Lab.open({
    config: {
      location: "rack 4",
      provision_type: "muxpi",
      identifier: "SN-1",
      advertised_queues: { "queue-1": "the first" },
      advertised_images: { "queue-1": { jammy: "url: http://x" } },
    },
  });
  lab.start();
  const agent = await lab.until(() => {
    const agent = lab.sandbox.agent("agent-1");
    return agent?.state === "waiting" && agent.queues !== undefined ? agent : undefined;
  }, "the agent's record");
  assertEquals(
    [agent.queues, agent.location, agent.provision_type, agent.identifier],
    [["queue-1"], "rack 4", "muxpi", "SN-1"],
  );
  const advertised = (path: string) =>
    lab.sandbox.requests.some((request) => request.method === "POST" && request.path === path);
  await lab.until(() => advertised("/v1/agents/images"), "the images");
  assert(advertised("/v1/agents/queues"));
});

Deno.test("an agent asks for a job before its control groups are ready, and the job waits for them", async () => {
  const groups = Promise.withResolvers<ControlGroupsResult>();
  const happened: string[] = [];
  await using lab = await Lab.open({
    config: { test_command: "echo hello" },
    controlGroups: groups.promise,
    sink: ({ type }) => void happened.push(type),
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.job_id === jobId, "the job is taken");
  assert(!happened.includes("phase_began"));
  groups.resolve({ ok: false, reason: "there are none" });
  await lab.complete(jobId);
  assert(happened.includes("phase_began"));
});

Deno.test("the agent's state on the server is the phase that runs, then waiting", async () => {
  await using lab = await Lab.open({ config: { test_command: UNTIL_GO } });
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "test", "state test");
  assertEquals(lab.sandbox.agent("agent-1")?.job_id, jobId);
  await go(lab);
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "waiting", "state waiting");
});

Deno.test("the agent's record moves at least once a minute, also while a job runs", async () => {
  await using lab = await Lab.open({ config: { test_command: UNTIL_GO } });
  lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "test", "state test");
  const posts = () =>
    lab.sandbox.requests.filter((request) =>
      request.method === "POST" && request.path === "/v1/agents/data/agent-1"
    ).length;
  const before = posts();
  await lab.until(() => posts() > before, "a sign of life");
  await go(lab);
});

Deno.test("an agent that an administrator set offline takes no job until it is set online", async () => {
  await using lab = await Lab.open({ config: { test_command: "true" } });
  lab.sandbox.setAgent("agent-1", { state: "offline", comment: "cable broken" });
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.eventually(
    () => lab.logged("warning").includes("An administrator set this agent to offline"),
    "the agent knows",
  );
  await lab.until(
    () => lab.sandbox.requests.filter((request) => request.method === "GET").length > 5,
    "some rounds",
  );
  assertEquals(lab.sandbox.state(jobId), "waiting");
  assertEquals(lab.sandbox.agent("agent-1")?.comment, "cable broken");
  lab.sandbox.setAgent("agent-1", { state: "waiting", comment: "" });
  await lab.complete(jobId);
});

Deno.test("an administrator's offline is kept over a restart of the agent, comment included", async () => {
  await using lab = await Lab.open({ config: { test_command: "true" } });
  lab.sandbox.setAgent("agent-1", { state: "maintenance", comment: "new disk" });
  lab.start();
  await lab.eventually(() => lab.logged("warning").length > 0, "the agent knows");
  await lab.stop();
  assertEquals(lab.sandbox.agent("agent-1")?.state, "maintenance");
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.until(() => lab.sandbox.requestCount > 20, "some rounds");
  assertEquals(lab.sandbox.state(jobId), "waiting");
  assertEquals(lab.sandbox.agent("agent-1")?.comment, "new disk");
});

/** Slow enough for a busy host: what an agent that stops has to say has 5 s to get to the server. */
const UNHURRIED = 2;

Deno.test("an administrator's offline is on the server again after a stop that has ended a job", async () => {
  await using lab = await Lab.open({
    clock: scaledClock(UNHURRIED),
    config: {
      setup_command: "while [ ! -e ../go ]; do sleep 0.02; done",
      test_command: "sleep 1000",
    },
  });
  lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "setup", "state setup");
  lab.sandbox.setAgent("agent-1", { state: "offline", comment: "cable broken" });
  await go(lab);
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "test", "state test");
  await lab.stop();
  const { state, comment } = lab.sandbox.agent("agent-1") ?? {};
  assertEquals([state, comment], ["offline", "cable broken"]);
});

Deno.test("a lost device is offline after a stop in cleanup, also for an agent that finds its own files gone", async () => {
  await using lab = await Lab.open({
    clock: scaledClock(UNHURRIED),
    config: {
      provision_command: "exit 46",
      cleanup_command: "while [ ! -e ../go ]; do sleep 0.02; done",
    },
  });
  const lost = lab.submit({ provision_data: { a: 1 } });
  const agent = lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "cleanup", "state cleanup");
  agent.stop();
  await go(lab);
  await agent.ended;
  const shown = () => {
    const { state, comment } = lab.sandbox.agent("agent-1") ?? {};
    return [state, comment];
  };
  const expected = [
    "offline",
    `Set to offline by agent. Recovery failed during job '${lost}' execution.`,
  ];
  assertEquals(shown(), expected);
  await Deno.remove(lab.config.results_basedir, { recursive: true });
  const next = lab.submit({ test_data: { a: 1 } });
  lab.start();
  const rounds = lab.sandbox.requestCount;
  await lab.until(() => lab.sandbox.requestCount > rounds + 12, "some rounds");
  assertEquals(lab.sandbox.state(next), "waiting");
  assertEquals(shown(), expected);
});

Deno.test("the offline with which an agent stopped does not keep the next one from working", async () => {
  await using lab = await Lab.open({ config: { test_command: "true" } });
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "waiting", "waiting");
  await lab.stop();
  assertEquals(lab.sandbox.agent("agent-1")?.state, "offline");
  assertEquals(lab.sandbox.agent("agent-1")?.comment, "Agent stopped");
  lab.start();
  await lab.run({ test_data: { a: 1 } });
});

Deno.test("offline that is set during a job is honoured when the job has ended, not before", async () => {
  await using lab = await Lab.open({ config: { test_command: UNTIL_GO, cleanup_command: "true" } });
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "test", "state test");
  lab.sandbox.setAgent("agent-1", { state: "offline", comment: "after this one" });
  const next = lab.submit({ test_data: { a: 1 } });
  await go(lab);
  await lab.complete(jobId);
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "offline", "offline again");
  assertEquals(lab.sandbox.agent("agent-1")?.comment, "after this one");
  assertEquals(lab.statuses(jobId), { test: 0, cleanup: 0 });
  assertEquals(lab.sandbox.state(next), "waiting");
});

Deno.test("a restart asked for on the server is carried out once, and the next agent waits for jobs", async () => {
  await using lab = await Lab.open({ config: { test_command: "true" } });
  const first = lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "waiting", "waiting");
  lab.sandbox.setAgent("agent-1", { state: "restart", comment: "new version" });
  assertEquals(await first.ended, { ended: "restart" });
  // `restart` would look busy: clients would go on to give it jobs.
  assertEquals(lab.sandbox.agent("agent-1")?.state, "offline");
  assertEquals(lab.sandbox.agent("agent-1")?.comment, "The agent restarts: new version");
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "waiting", "waiting again");
  await lab.run({ test_data: { a: 1 } });
});

Deno.test("a restart that is asked for while the agent is away is done when it starts", async () => {
  await using lab = await Lab.open({ config: { test_command: "true" } });
  lab.sandbox.setAgent("agent-1", { state: "restart", comment: "new version" });
  lab.start();
  await lab.run({ test_data: { a: 1 } });
});

const RESTARTS: Record<string, (lab: Lab, agent: RunningAgent) => void> = {
  "SIGUSR1": (_lab, agent) => agent.restart(),
  "a marker file": (lab) => Deno.writeTextFileSync(restartMarker(lab), ""),
  "an administrator": (lab) =>
    lab.sandbox.setAgent("agent-1", { state: "restart", comment: "new version" }),
  "an administrator without a word": (lab) =>
    lab.sandbox.setAgent("agent-1", { state: "restart", comment: "" }),
};
for (const [who, ask] of Object.entries(RESTARTS)) {
  Deno.test(`the offline of a restart that ${who} asks for is nobody's, also for an agent that finds its own files gone`, async () => {
    await using lab = await Lab.open({ config: { test_command: "true" } });
    const agent = lab.start();
    await lab.until(() => lab.sandbox.agent("agent-1")?.state === "waiting", "waiting");
    ask(lab, agent);
    assertEquals(await agent.ended, { ended: "restart" });
    assertEquals(lab.sandbox.agent("agent-1")?.state, "offline");
    await Deno.remove(lab.config.results_basedir, { recursive: true });
    lab.start();
    await lab.run({ test_data: { a: 1 } });
    assertEquals(lab.logged("warning"), []);
  });
}

Deno.test("a device configuration that could not be used keeps no agent offline that finds its own files gone", async () => {
  await using lab = await Lab.open({ config: { test_command: "true" } });
  const comment = "The device configuration cannot be used: device.yaml: there is no such file";
  lab.sandbox.setAgent("agent-1", { state: "offline", comment });
  lab.start();
  await lab.run({ test_data: { a: 1 } });
});

Deno.test("the offline of a lost device is the agent's own, whichever agent has set it", async () => {
  await using lab = await Lab.open({ config: { test_command: "true" } });
  const comment = "Set to offline by agent. Recovery failed during job 'one' execution.";
  lab.sandbox.setAgent("agent-1", { state: "offline", comment });
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.eventually(() => lab.logged("warning").length > 0, "the agent knows");
  const rounds = lab.sandbox.requestCount;
  await lab.until(() => lab.sandbox.requestCount > rounds + 4, "some rounds");
  assertEquals(lab.sandbox.state(jobId), "waiting");
  assertEquals(lab.sandbox.agent("agent-1")?.comment, comment);
  await Deno.writeTextFile(join(lab.folder, "TESTFLINGER-DEVICE-ONLINE-agent-1"), "");
  await lab.complete(jobId);
});

Deno.test("the offline with which the established agent restarts does not keep this one from working", async () => {
  await using lab = await Lab.open({ config: { test_command: "true" } });
  lab.sandbox.setAgent("agent-1", {
    state: "offline",
    comment: "Restart signal detected from supervisor process",
  });
  lab.start();
  await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.sandbox.agent("agent-1")?.comment, "");
});

for (const id of ["agent-1", "agent1"]) {
  Deno.test(`the marker file with the id ${id} makes the agent restart, and is removed first`, async () => {
    await using lab = await Lab.open();
    const agent = lab.start();
    await Deno.writeTextFile(restartMarker(lab, id), "");
    assertEquals(await agent.ended, { ended: "restart" });
    assertEquals(
      [...Deno.readDirSync(lab.folder)].some(({ name }) => name.includes("RESTART")),
      false,
    );
  });
}

Deno.test("SIGUSR1 during a job waits for the job's end", async () => {
  await using lab = await Lab.open({ config: { test_command: UNTIL_GO } });
  const jobId = lab.submit({ test_data: { a: 1 } });
  const agent = lab.start();
  await lab.until(() => lab.output(jobId, "test").includes("ready"), "the test runs");
  agent.restart();
  await go(lab);
  assertEquals(await agent.ended, { ended: "restart" });
  assertEquals(lab.statuses(jobId), { test: 0 });
  assertEquals(lab.sandbox.state(jobId), "complete");
});

Deno.test("a marker that cannot be removed is an error in the log, and the agent goes on", async () => {
  await using lab = await Lab.open({ config: { test_command: "true" } });
  const marker = restartMarker(lab);
  await Deno.writeTextFile(marker, "");
  await new Deno.Command("chattr", { args: ["+i", marker] }).output();
  const isImmutable = await Deno.remove(marker).then(() => false, () => true);
  if (!isImmutable) return; // This file system, or this user, cannot make one.
  try {
    lab.start();
    await lab.run({ test_data: { a: 1 } });
    assertStringIncludes(lab.logged("error").join("\n"), `Cannot remove the marker ${marker}`);
  } finally {
    await new Deno.Command("chattr", { args: ["-i", marker] }).output();
  }
});

Deno.test("a marker that is a link is reported once and ignored", async () => {
  await using lab = await Lab.open({ config: { test_command: "true" } });
  await Deno.symlink("/etc/passwd", restartMarker(lab));
  lab.start();
  await lab.run({ test_data: { a: 1 } });
  await lab.run({ test_data: { a: 1 } });
  const reports = lab.logged("warning").filter((line) => line.includes("is ignored"));
  assertEquals(reports.length, 1);
});

Deno.test("an offline marker keeps the agent offline while it exists, its first line is the comment", async () => {
  await using lab = await Lab.open({ config: { test_command: "true" } });
  const marker = join(lab.folder, "TESTFLINGER-DEVICE-OFFLINE-agent-1");
  await Deno.writeTextFile(marker, "bench power off\nmore\n");
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "offline", "offline");
  assertEquals(lab.sandbox.agent("agent-1")?.comment, "bench power off");
  assertEquals(lab.logged("warning"), [
    "A marker file on this host sets this agent to offline",
  ]);
  const logged = lab.log.lines.find(({ level }) => level === "warning");
  assertEquals(logged?.fields, { comment: "bench power off" });
  const jobId = lab.submit({ test_data: { a: 1 } });
  await Deno.remove(marker);
  await lab.complete(jobId);
  const back = "The marker file is gone: this agent is online again";
  assertEquals(lab.logged("info").filter((line) => line.includes("marker file")), [back]);
});

Deno.test("offline wins over restart: the restart waits until the agent is online", async () => {
  await using lab = await Lab.open();
  lab.sandbox.setAgent("agent-1", { state: "offline", comment: "" });
  const agent = lab.start();
  await Deno.writeTextFile(restartMarker(lab), "");
  await lab.eventually(
    () =>
      lab.logged("info").some((line) =>
        line.includes(
          "asks for a restart; it is carried out when no job runs and the agent is online",
        )
      ),
    "the agent knows",
  );
  const rounds = lab.sandbox.requestCount;
  await lab.until(() => lab.sandbox.requestCount > rounds + 4, "some rounds");
  lab.sandbox.setAgent("agent-1", { state: "waiting", comment: "" });
  assertEquals(await agent.ended, { ended: "restart" });
});

Deno.test("an agent with restricted queues asks for jobs of those only", async () => {
  await using lab = await Lab.open({
    config: { job_queues: ["queue-1", "queue-2"], test_command: "true" },
  });
  lab.sandbox.restrict("queue-2", ["owner"]);
  const open = lab.sandbox.submit({ job_queue: "queue-1", test_data: { a: 1 } });
  const restricted = lab.sandbox.submit({ job_queue: "queue-2", test_data: { a: 1 } });
  lab.start();
  await lab.complete(restricted);
  await lab.until(() => lab.sandbox.requestCount > 12, "some rounds");
  const asked = lab.sandbox.requests.filter((request) => request.path === "/v1/job");
  assertEquals(lab.sandbox.state(open), "waiting");
  assertEquals(
    new Set(asked.map((request) => request.query)),
    new Set(["?queue=queue-2"]),
  );
});

Deno.test("a second agent with the same id on a host ends at once and says who has the lock", async () => {
  await using lab = await Lab.open();
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "waiting", "waiting");
  const second = await lab.start().ended;
  const message = second.ended === "failed" ? second.message : "";
  assertStringIncludes(message, "Another agent 'agent-1' runs on this host");
});

Deno.test("an agent that starts while the server is away works as soon as it is there", async () => {
  const first = serveSandbox();
  const port = Number(new URL(first.url).port);
  const { sandbox } = first;
  await using lab = await Lab.open({ served: first, config: { test_command: "echo hello" } });
  await first.close();
  lab.start();
  await lab.eventually(
    () => lab.logged("warning").some((line) => line.includes("cannot be reached")),
    "the outage is noticed",
  );
  const jobId = sandbox.submit({ job_queue: "queue-1", test_data: { a: 1 } });
  await using _again = { [Symbol.asyncDispose]: serveSandbox({ port, sandbox }).close };
  await lab.complete(jobId);
  assertEquals(lab.output(jobId, "test"), "hello\n");
  await lab.stop();
});

Deno.test("an agent that the server has forgotten introduces itself again", async () => {
  await using lab = await Lab.open({ config: { location: "rack 4" } });
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.location === "rack 4", "the record");
  lab.sandbox.forgetAgent("agent-1");
  await lab.until(() => lab.sandbox.agent("agent-1")?.location === "rack 4", "the record again");
});

/** What is left of an agent after the server has lost its data and the agent has shown a sign of life. */
function loseAllBut(lab: Lab, record: { state?: string; comment?: string }): void {
  lab.sandbox.forgetAgent("agent-1");
  lab.sandbox.setAgent("agent-1", record);
}

Deno.test("an agent of which the server knows a sign of life only introduces itself again", async () => {
  await using lab = await Lab.open({ config: { location: "rack 4" } });
  lab.start();
  const isWhole = () => {
    const { queues, state } = lab.sandbox.agent("agent-1") ?? {};
    return queues?.[0] === "queue-1" && state === "waiting";
  };
  await lab.until(isWhole, "the record");
  loseAllBut(lab, {});
  await lab.until(isWhole, "the record again");
});

Deno.test("an agent that the server forgets during a job introduces itself again, and shows its phase", async () => {
  await using lab = await Lab.open({ config: { test_command: UNTIL_GO } });
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "test", "state test");
  loseAllBut(lab, {});
  const agent = await lab.until(() => {
    const agent = lab.sandbox.agent("agent-1");
    return agent?.queues !== undefined ? agent : undefined;
  }, "the record again");
  assertEquals([agent.state, agent.job_id], ["test", jobId]);
  await go(lab);
  await lab.complete(jobId);
});

Deno.test("an administrator's offline outlives that the server loses its data", async () => {
  await using lab = await Lab.open({ config: { test_command: "true" } });
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "waiting", "waiting");
  lab.sandbox.setAgent("agent-1", { state: "offline", comment: "cable broken" });
  await lab.eventually(
    () => lab.logged("warning").includes("An administrator set this agent to offline"),
    "the agent knows",
  );
  loseAllBut(lab, {});
  await lab.until(
    () => lab.sandbox.agent("agent-1")?.comment === "cable broken",
    "the agent says that it is offline",
  );
});

Deno.test("what an administrator sets while the agent posts its state counts, also for who asks the agent", async () => {
  const modes: string[] = [];
  await using lab = await Lab.open({
    sink: (event) => {
      if (event.type === "mode") modes.push(event.state);
    },
  });
  // The first post has reached the server, and its answer has not come back.
  let posts = 0;
  lab.sandbox.intercept(async (request, proceed) => {
    if (request.method !== "POST" || posts++ > 0) return undefined;
    const answer = await proceed();
    lab.sandbox.setAgent("agent-1", { state: "offline", comment: "cable broken" });
    const reads = lab.sandbox.requestCount;
    // What is read now was asked for before the post was over.
    await lab.sandbox.waitFor(() => lab.sandbox.requestCount > reads);
    return answer;
  });
  lab.start();
  await lab.eventually(() => modes.includes("offline"), "the agent shows itself offline");
  assertEquals(lab.sandbox.agent("agent-1")?.comment, "cable broken");
});

Deno.test("an agent that is told to stop between looking and asking takes no job", async () => {
  await using lab = await Lab.open();
  const jobId = lab.submit({ test_data: { a: 1 } });
  const agent = lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "waiting", "waiting");
  lab.sandbox.cancel(jobId);
  const next = lab.submit({ test_data: { a: 1 } });
  lab.sandbox.intercept(async (request, proceed) => {
    if (request.method !== "GET" || !request.url.includes("/v1/agents/data/")) return undefined;
    const answer = await proceed();
    agent.stop();
    return answer;
  });
  assertEquals(await agent.ended, { ended: "stopped" });
  assertEquals(lab.sandbox.state(next), "waiting");
});

Deno.test("an agent that is told to stop while the server wants to know who asks takes no job", async () => {
  await using lab = await Lab.open();
  const agent = lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "waiting", "waiting");
  let asked = 0;
  lab.sandbox.intercept((request) => {
    if (!request.url.includes("/v1/job?") || ++asked > 1) return undefined;
    agent.stop();
    return Response.json({ message: "Agent not identified" }, { status: 401 });
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  assertEquals(await agent.ended, { ended: "stopped" });
  assertEquals([asked, lab.sandbox.state(jobId)], [1, "waiting"]);
});

Deno.test("a job that is not what it should be is ended as failed, and the agent goes on", async () => {
  await using lab = await Lab.open({ config: { test_command: "true" } });
  const jobId = crypto.randomUUID();
  let handedOut = false;
  lab.sandbox.submit({ job_id: jobId, job_queue: "elsewhere" });
  lab.sandbox.intercept((request) => {
    if (handedOut || !request.url.includes("/v1/job?")) return undefined;
    handedOut = true;
    return new Response(`{"job_id": "${jobId}", "job_queue": "queue-1", "test_data": {"te`, {
      headers: { "content-type": "application/json" },
    });
  });
  lab.start();
  await lab.complete(jobId);
  assertEquals(lab.statuses(jobId), { setup: 1 });
  await lab.run({ test_data: { a: 1 } });
});

for (
  const [what, answer] of Object.entries({
    "HTML": () => new Response("<html>hello</html>", { headers: { "content-type": "text/html" } }),
    "500": () => new Response("oops", { status: 500 }),
    "a job without an id": () => Response.json({ job_queue: "queue-1" }),
    "a list": () => Response.json([1]),
  })
) {
  Deno.test(`a server that answers ${what} is one line in the log, and the agent goes on`, async () => {
    await using lab = await Lab.open({ config: { test_command: "true" } });
    let answers = 0;
    const undo = lab.sandbox.intercept((request) => {
      if (!request.url.includes("/v1/job?")) return undefined;
      answers++;
      return answer();
    });
    lab.start();
    await lab.eventually(() => answers >= 3, "three answers");
    undo();
    await lab.run({ test_data: { a: 1 } });
    assertEquals(lab.logged("error").length, 1, lab.logged("error").join("\n"));
    assertStringIncludes(lab.logged("error")[0] ?? "", "/v1/job");
  });
}

Deno.test("no job is asked for while the disk is full, and it goes on by itself", async () => {
  await using lab = await Lab.open({ config: { min_free_space: "1000000 GiB" } });
  lab.start();
  await lab.until(
    () => lab.sandbox.agent("agent-1")?.comment?.startsWith("No job is taken: "),
    "the comment",
  );
  assertEquals(lab.sandbox.requests.some((request) => request.path === "/v1/job"), false);
});
