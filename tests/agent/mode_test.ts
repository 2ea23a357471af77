import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { Lab } from "../support/lab.ts";

/** A test that ends when the file `go` appears. */
const UNTIL_GO = "echo ready; while [ ! -e ../go ]; do sleep 0.02; done";

/** A lab whose server keeps `mode` apart from `state`. */
function openLab(config: Record<string, unknown> = {}): Promise<Lab> {
  return Lab.open({ sandbox: { mode: true }, config: { test_command: "true", ...config } });
}

/** Mode, comment and state of the agent, as the server has them. */
function shown(lab: Lab): [string | undefined, string | undefined, string | undefined] {
  const { mode, comment, state } = lab.sandbox.agent("agent-1") ?? {};
  return [mode, comment, state];
}

async function untilMode(lab: Lab, mode: string): Promise<void> {
  await lab.until(() => lab.sandbox.agent("agent-1")?.mode === mode, `mode ${mode}`);
}

/** What the agent has posted of mode and state since the call. */
function watchPosts(lab: Lab): Record<string, unknown>[] {
  const posts: Record<string, unknown>[] = [];
  lab.sandbox.intercept(async (request) => {
    if (request.method === "POST" && request.url.includes("/v1/agents/data/")) {
      const { mode, state, comment } = await request.clone().json();
      if (mode !== undefined || state !== undefined) posts.push({ mode, state, comment });
    }
    return undefined;
  });
  return posts;
}

Deno.test("on a server with modes a job's phases are posted as state alone", async () => {
  await using lab = await openLab({ test_command: UNTIL_GO });
  lab.start();
  await untilMode(lab, "online");
  const posts = watchPosts(lab);
  const jobId = lab.submit({ test_data: { a: 1 } });
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "test", "state test");
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.complete(jobId);
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "waiting", "waiting");
  assertEquals(
    posts.filter(({ mode, comment }) => mode !== undefined || comment !== undefined),
    [],
  );
  assertEquals(shown(lab), ["online", "", "waiting"]);
});

for (const mode of ["offline", "maintenance"]) {
  Deno.test(`an administrator's mode ${mode} keeps an agent from taking jobs until it is online`, async () => {
    await using lab = await openLab();
    lab.sandbox.setAgent("agent-1", { mode, comment: "cable broken" });
    const jobId = lab.submit({ test_data: { a: 1 } });
    lab.start();
    await lab.until(
      () => lab.sandbox.requests.filter((request) => request.method === "GET").length > 5,
      "some rounds",
    );
    assertEquals(lab.sandbox.state(jobId), "waiting");
    assertEquals(shown(lab).slice(0, 2), [mode, "cable broken"]);
    lab.sandbox.setAgent("agent-1", { mode: "online", comment: "mended" });
    await lab.complete(jobId);
    assertEquals(shown(lab).slice(0, 2), ["online", "mended"]);
  });

  Deno.test(`a mode ${mode} that is set during a job is not undone by the job's phases`, async () => {
    await using lab = await openLab({ test_command: UNTIL_GO, cleanup_command: "true" });
    const jobId = lab.submit({ test_data: { a: 1 } });
    lab.start();
    await lab.until(() => lab.sandbox.agent("agent-1")?.state === "test", "state test");
    lab.sandbox.setAgent("agent-1", { mode, comment: "after this one" });
    const next = lab.submit({ test_data: { a: 1 } });
    await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
    await lab.complete(jobId);
    const rounds = lab.sandbox.requestCount;
    await lab.until(() => lab.sandbox.requestCount > rounds + 4, "some rounds");
    assertEquals(shown(lab).slice(0, 2), [mode, "after this one"]);
    assertEquals(lab.sandbox.state(next), "waiting");
    lab.sandbox.setAgent("agent-1", { mode: "online", comment: "" });
    await lab.complete(next);
  });
}

Deno.test("in an administrator's maintenance the agent's state is shown, each once, and the mode stays", async () => {
  await using lab = await openLab({
    setup_command: "while [ ! -e ../tested ]; do sleep 0.02; done",
    test_command: UNTIL_GO,
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "setup", "state setup");
  lab.sandbox.setAgent("agent-1", { mode: "maintenance", comment: "after this one" });
  const posts = watchPosts(lab);
  await Deno.writeTextFile(join(lab.config.execution_basedir, "tested"), "");
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "test", "state test");
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.complete(jobId);
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "waiting", "state waiting");
  const rounds = lab.sandbox.requestCount;
  await lab.until(() => lab.sandbox.requestCount > rounds + 6, "some rounds");
  const mode = { mode: "maintenance", comment: "after this one" };
  assertEquals(posts, [{ ...mode, state: "test" }, { ...mode, state: "waiting" }]);
  lab.sandbox.setAgent("agent-1", { mode: "online", comment: "" });
  await lab.run({ test_data: { a: 1 } });
});

Deno.test("in an administrator's offline no state is posted, which would end it", async () => {
  await using lab = await openLab({
    setup_command: "while [ ! -e ../go ]; do sleep 0.02; done",
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "setup", "state setup");
  lab.sandbox.setAgent("agent-1", { mode: "offline", comment: "after this one" });
  const posts = watchPosts(lab);
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.complete(jobId);
  const rounds = lab.sandbox.requestCount;
  await lab.until(() => lab.sandbox.requestCount > rounds + 6, "some rounds");
  assertEquals(posts, []);
  assertEquals(shown(lab).slice(0, 2), ["offline", "after this one"]);
});

Deno.test("a state that a killed agent has left is put right in an administrator's maintenance", async () => {
  await using lab = await openLab();
  lab.sandbox.setAgent("agent-1", { mode: "maintenance", state: "test", comment: "new disk" });
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "waiting", "state waiting");
  assertEquals(shown(lab).slice(0, 2), ["maintenance", "new disk"]);
});

Deno.test("an agent that stops goes to mode offline, and the next one back to online", async () => {
  await using lab = await openLab();
  lab.start();
  await untilMode(lab, "online");
  await lab.stop();
  assertEquals(shown(lab).slice(0, 2), ["offline", "Agent stopped"]);
  lab.start();
  await lab.run({ test_data: { a: 1 } });
  assertEquals(shown(lab).slice(0, 2), ["online", ""]);
});

Deno.test("a restart that is set as mode shows offline while the agent is away, and then online", async () => {
  await using lab = await openLab();
  const agent = lab.start();
  await untilMode(lab, "online");
  lab.sandbox.setAgent("agent-1", { mode: "restart", comment: "new version" });
  assertEquals(await agent.ended, { ended: "restart" });
  assertEquals(shown(lab).slice(0, 2), ["offline", "The agent restarts: new version"]);
  lab.start();
  await lab.run({ test_data: { a: 1 } });
  assertEquals(shown(lab).slice(0, 2), ["online", ""]);
});

Deno.test("a device that cannot be recovered is in maintenance, until an administrator sets it online", async () => {
  await using lab = await openLab({ provision_command: "exit 46" });
  const jobId = await lab.run({ provision_data: { url: "x" } });
  await untilMode(lab, "maintenance");
  const comment = `Set to offline by agent. Recovery failed during job '${jobId}' execution.`;
  assertEquals(shown(lab).slice(0, 2), ["maintenance", comment]);
  lab.sandbox.setAgent("agent-1", { mode: "online", comment: "" });
  await lab.run({ test_data: { a: 1 } });
});

Deno.test("an agent whose device was lost comes back when an operator on its host says so, and only then", async () => {
  await using lab = await openLab({ provision_command: "exit 46" });
  const marker = join(lab.folder, "TESTFLINGER-DEVICE-ONLINE-agent-1");
  await lab.run({ provision_data: { url: "x" } });
  await untilMode(lab, "maintenance");
  await Deno.writeTextFile(marker, "");
  await lab.run({ test_data: { a: 1 } });
  assertEquals(shown(lab).slice(0, 2), ["online", ""]);
  assertEquals(await Deno.stat(marker).catch(() => "gone"), "gone");
  // What an administrator wants is not the host's to take back.
  lab.sandbox.setAgent("agent-1", { mode: "maintenance", comment: "new disk" });
  await lab.eventually(() => lab.logged("warning").length > 0, "the agent knows");
  await Deno.writeTextFile(marker, "");
  await lab.eventually(async () => await Deno.stat(marker).then(() => false, () => true), "heard");
  assertEquals(shown(lab).slice(0, 2), ["maintenance", "new disk"]);
});

Deno.test("an offline marker without a word has a comment, which a server with modes demands", async () => {
  await using lab = await openLab();
  await Deno.writeTextFile(join(lab.folder, "TESTFLINGER-DEVICE-OFFLINE-agent-1"), "");
  lab.start();
  await untilMode(lab, "offline");
  assertEquals(shown(lab)[1], "Set on the agent's host");
});

Deno.test("an administrator's mode outlives that the server loses its data", async () => {
  await using lab = await openLab();
  lab.start();
  await untilMode(lab, "online");
  lab.sandbox.setAgent("agent-1", { mode: "maintenance", comment: "new disk" });
  await lab.eventually(() => lab.logged("warning").length > 0, "the agent knows");
  lab.sandbox.forgetAgent("agent-1");
  // What a sign of life leaves there says that the agent is online.
  lab.sandbox.setAgent("agent-1", { mode: "online" });
  await untilMode(lab, "maintenance");
  assertEquals(shown(lab).slice(0, 2), ["maintenance", "new disk"]);
});
