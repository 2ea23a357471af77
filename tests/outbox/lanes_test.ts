/** What waits for what on its way to the server, and what does not. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { Lab } from "../support/lab.ts";

type Body = Record<string, unknown>;

/** What is posted to a job's result, in the order of arrival. */
function recordResults(lab: Lab): Body[] {
  const posted: Body[] = [];
  lab.sandbox.intercept(async (request) => {
    if (request.method === "POST" && /\/v1\/result\/[^/]+$/.test(request.url)) {
      posted.push(await request.clone().json());
    }
    return undefined;
  });
  return posted;
}

/** Lets no request of a kind through until the returned function is called. */
function hold(lab: Lab, isHeld: (request: Request) => boolean): () => void {
  const { promise, resolve } = Promise.withResolvers<void>();
  lab.sandbox.intercept(async (request) => {
    if (isHeld(request)) await promise;
    return undefined;
  });
  return resolve;
}

const isLog = (request: Request) => request.method === "POST" && /\/log\//.test(request.url);
const isResult = (request: Request) =>
  request.method === "POST" && /\/v1\/result\/[^/]+$/.test(request.url);

function statesIn(posted: readonly Body[]): unknown[] {
  return posted.flatMap(({ job_state }) => job_state === undefined ? [] : [job_state]);
}

async function ran(lab: Lab, name: string): Promise<void> {
  await lab.eventually(
    () => Deno.stat(join(lab.config.execution_basedir, name)).then(() => true, () => false),
    `the job has made ${name}`,
  );
}

Deno.test("a state leaves at once while the log is held up, and the outcome waits for the log", async () => {
  await using lab = await Lab.open({
    config: {
      setup_command: "yes | head -c 3000000",
      test_command: "while [ ! -e ../go ]; do sleep 0.02; done",
    },
  });
  const release = hold(lab, isLog);
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.until(() => lab.sandbox.state(jobId) === "test", "the state of the test");
  assertEquals(lab.sandbox.fragments(jobId, "output"), []);
  // The log of the setup is not there, and so its status is not either.
  assertEquals(lab.statuses(jobId), {});
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.eventually(
    () => lab.logged("info").some((line) => line.includes(`${jobId} ended`)),
    "the job has ended",
  );
  assertEquals(lab.sandbox.state(jobId), "test");
  release();
  await lab.complete(jobId);
  assertEquals(lab.sandbox.log(jobId, "output", "setup").length > 3_000_000, true);
});

Deno.test("a device is allocated while megabytes of its log are still on their way", async () => {
  await using lab = await Lab.open({
    config: {
      setup_command: "yes | head -c 3000000",
      allocate_command: `echo '{"device_info": {"device_ip": "10.1.1.1"}}' > device-info.json`,
    },
  });
  const release = hold(lab, isLog);
  const jobId = lab.submit({ allocate_data: { allocate: true } });
  lab.start();
  await lab.until(() => lab.sandbox.state(jobId) === "allocated", "the device is allocated");
  assertEquals(lab.sandbox.result(jobId)?.device_info, { device_ip: "10.1.1.1" });
  assertEquals(lab.sandbox.fragments(jobId, "output"), []);
  release();
  lab.sandbox.cancel(jobId);
  await lab.complete(jobId);
});

Deno.test("a parent that sees a device allocated finds its address", async () => {
  await using lab = await Lab.open({
    config: {
      allocate_command: `echo '{"device_info": {"device_ip": "10.1.1.1"}}' > device-info.json`,
    },
  });
  const infos: unknown[] = [];
  let failures = 2;
  lab.sandbox.intercept(async (request, proceed) => {
    if (!isResult(request)) return undefined;
    const body: Body = await request.clone().json();
    // What is known of the device takes longer than the state would.
    if ("device_info" in body && failures-- > 0) return new Response("busy", { status: 503 });
    const answer = await proceed();
    if (body.job_state === "allocated") infos.push(lab.sandbox.result(jobId)?.device_info);
    return answer;
  });
  const jobId = lab.submit({ allocate_data: { allocate: true } });
  lab.start();
  await lab.until(() => infos.length > 0, "the device is allocated");
  assertEquals(infos, [{ device_ip: "10.1.1.1" }]);
  lab.sandbox.cancel(jobId);
  await lab.complete(jobId);
});

Deno.test("states that were overtaken before they could leave are not posted", async () => {
  await using lab = await Lab.open({
    config: {
      setup_command: "true",
      provision_command: "true",
      test_command: "touch ../testing; while [ ! -e ../go ]; do sleep 0.02; done",
    },
  });
  const posted = recordResults(lab);
  const release = hold(lab, isResult);
  const jobId = lab.submit({ provision_data: { url: "x" }, test_data: { a: 1 } });
  lab.start();
  await ran(lab, "testing");
  release();
  await lab.until(() => lab.sandbox.state(jobId) === "test", "the state of the test");
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.complete(jobId);
  assertEquals(statesIn(posted), ["setup", "test", "complete"]);
});

Deno.test("statuses are posted once, with their last values", async () => {
  await using lab = await Lab.open({
    config: { setup_command: "true", provision_command: "true", test_command: "exit 3" },
  });
  const posted = recordResults(lab);
  const release = hold(lab, isLog);
  const jobId = lab.submit({ provision_data: { url: "x" }, test_data: { a: 1 } });
  lab.start();
  await lab.eventually(
    () => lab.logged("info").some((line) => line.includes(`${jobId} ended`)),
    "the job has ended",
  );
  release();
  await lab.complete(jobId);
  const statuses = posted.flatMap(({ status }) => status === undefined ? [] : [status]);
  assertEquals(statuses.at(-1), { setup: 0, provision: 0, test: 3 });
  assertEquals(new Set(statuses.map((status) => JSON.stringify(status))).size, statuses.length);
});

Deno.test("a state that had to wait is not posted over a cancellation", async () => {
  await using lab = await Lab.open({
    config: {
      setup_command: "true",
      provision_command: "touch ../provisioning; while [ ! -e ../go ]; do sleep 0.02; done",
      test_command: "true",
    },
  });
  const posted = recordResults(lab);
  let isBusy = true;
  lab.sandbox.intercept((request) =>
    isBusy && request.url.includes("/v1/result/")
      ? new Response("busy", { status: 503 })
      : undefined
  );
  const jobId = lab.submit({ provision_data: { url: "x" }, test_data: { a: 1 } });
  lab.start();
  await ran(lab, "provisioning");
  // What is posted from now on had to wait.
  await lab.eventually(
    () => lab.logged("warning").some((line) => line.includes("The server cannot be reached")),
    "the agent knows of the outage",
  );
  lab.sandbox.cancel(jobId);
  const before = statesIn(posted).length;
  isBusy = false;
  await lab.until(
    () =>
      lab.sandbox.requests.some(({ path, method, status }) =>
        method === "GET" && path.startsWith(`/v1/result/${jobId}`) && status === 200
      ),
    "the agent has asked",
  );
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.complete(jobId);
  assertEquals(statesIn(posted).slice(before), ["complete"]);
  assertEquals(lab.statuses(jobId).test, undefined);
});

/**
 * Holds back answers to the question for the state of a job, as the server had it when it was asked: whoever
 * waits for them learns of nothing that happens meanwhile.
 *
 * @param most of them. @default all until they are released
 */
function holdStates(lab: Lab, most = Infinity) {
  const { promise, resolve } = Promise.withResolvers<void>();
  const held = { count: 0, release: resolve };
  lab.sandbox.intercept(async (request, proceed) => {
    if (request.method !== "GET" || !/\/v1\/result\//.test(request.url)) return undefined;
    if (held.count >= most) return undefined;
    const answer = await proceed();
    held.count++;
    await promise;
    return answer;
  });
  return held;
}

const UNTIL_TOLD = "while [ ! -e ../go ]; do sleep 0.02; done";

Deno.test("a device is not said to be allocated over a cancellation that came a moment before", async () => {
  const info = JSON.stringify({ device_info: { device_ip: "10.1.1.1" } });
  await using lab = await Lab.open({
    config: {
      allocate_command: `touch ../allocating; ${UNTIL_TOLD}; echo '${info}' > device-info.json`,
    },
  });
  const posted = recordResults(lab);
  const jobId = lab.submit({ allocate_data: { allocate: true } });
  lab.start();
  await ran(lab, "allocating");
  const held = holdStates(lab, 1);
  await lab.eventually(() => held.count > 0, "the agent asks during the phase");
  lab.sandbox.cancel(jobId);
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.until(() => lab.sandbox.state(jobId) !== "cancelled", "the job goes on");
  held.release();
  assertEquals(statesIn(posted), ["allocate", "complete"]);
  assertEquals(lab.sandbox.result(jobId)?.device_info, { device_ip: "10.1.1.1" });
});

Deno.test("a cleanup is not announced over a cancellation that came a moment before", async () => {
  await using lab = await Lab.open({
    config: {
      test_command: `touch ../testing; ${UNTIL_TOLD}`,
      cleanup_command: "touch ../cleaning; while [ ! -e ../clean ]; do sleep 0.02; done",
    },
  });
  const posted = recordResults(lab);
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await ran(lab, "testing");
  const held = holdStates(lab, 1);
  await lab.eventually(() => held.count > 0, "the agent asks during the phase");
  lab.sandbox.cancel(jobId);
  const asked = () => lab.sandbox.requests.filter(({ method }) => method === "GET").length;
  const before = asked();
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await ran(lab, "cleaning");
  await lab.until(
    () => asked() > before || statesIn(posted).includes("cleanup"),
    "the state of the cleanup is due",
  );
  held.release();
  await Deno.writeTextFile(join(lab.config.execution_basedir, "clean"), "");
  await lab.complete(jobId);
  assertEquals(statesIn(posted), ["test", "complete"]);
  assertEquals(lab.statuses(jobId), { test: 0, cleanup: 0 });
});

Deno.test("a phase begins while the server is slow to say whether the job is cancelled, and is announced only if it is not", async () => {
  for (const isCancelled of [true, false]) {
    await using lab = await Lab.open({
      config: {
        setup_command: `touch ../settingup; ${UNTIL_TOLD}`,
        test_command:
          "touch ../testing; while [ ! -e ../tested ]; do sleep 0.02; done; touch ../passed",
      },
    });
    const posted = recordResults(lab);
    const jobId = lab.submit({ test_data: { a: 1 } });
    lab.start();
    await ran(lab, "settingup");
    await lab.until(() => lab.sandbox.state(jobId) === "setup", "the state of the setup");
    const held = holdStates(lab);
    await lab.eventually(() => held.count > 0, "the agent asks during the setup");
    if (isCancelled) lab.sandbox.cancel(jobId);
    await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
    await ran(lab, "testing");
    assertEquals(statesIn(posted), ["setup"]);
    held.release();
    if (!isCancelled) {
      await lab.until(() => lab.sandbox.state(jobId) === "test", "the state of the test");
      await Deno.writeTextFile(join(lab.config.execution_basedir, "tested"), "");
    }
    await lab.complete(jobId);
    assertEquals(
      statesIn(posted),
      isCancelled ? ["setup", "complete"] : ["setup", "test", "complete"],
    );
    assertEquals(lab.statuses(jobId).test, isCancelled ? 256 - 15 : 0);
  }
});

Deno.test("a process that takes a cancelled job over posts no state of it", async () => {
  await using lab = await Lab.open({
    config: {
      test_command: "touch ../testing; sleep 1000",
      cleanup_command: "touch ../cleaning; while [ ! -e ../go ]; do sleep 0.02; done",
    },
  });
  const posted = recordResults(lab);
  const jobId = lab.submit({ test_data: { a: 1 } });
  const agent = lab.start();
  await ran(lab, "testing");
  await lab.until(() => lab.sandbox.state(jobId) === "test", "the state of the test");
  lab.sandbox.cancel(jobId);
  await ran(lab, "cleaning");
  // Its cleanup is never cancelled; the first process ends it only when it is forced to.
  agent.stop();
  agent.stop();
  await agent.ended;
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  lab.start();
  await lab.complete(jobId);
  assertEquals(statesIn(posted), ["test", "complete"]);
});

for (const hasStatus of [true, false]) {
  Deno.test(
    `states, statuses and an outcome whose answers are lost are posted once${
      hasStatus ? "" : ", as far as an older server says what it has"
    }`,
    async () => {
      await using lab = await Lab.open({
        sandbox: { hasStatus },
        config: {
          setup_command: "true",
          test_command: `touch ../testing; ${UNTIL_TOLD}; exit 3`,
          cleanup_command: "true",
        },
      });
      const posted = recordResults(lab);
      const lost = new Set<string>();
      lab.sandbox.intercept(async (request, proceed) => {
        if (!isResult(request)) return undefined;
        const body = await request.clone().text();
        if (lost.has(body)) return undefined;
        lost.add(body);
        await proceed();
        return new Response("busy", { status: 503 });
      });
      const jobId = lab.submit({ test_data: { a: 1 } });
      lab.start();
      await ran(lab, "testing");
      await lab.until(() => lab.sandbox.state(jobId) === "test", "the state of the test");
      await lab.until(() => lab.statuses(jobId).setup === 0, "the status of the setup");
      // The agent asks once a second, and repeats a post for the first time after a second or so.
      const before = lab.sandbox.requests.length;
      await lab.until(
        () =>
          lab.sandbox.requests.slice(before).filter(({ method }) => method === "GET").length > 4,
        "what is repeated is repeated",
      );
      await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
      await lab.complete(jobId);
      await lab.eventually(
        () => lab.inExecutionBasedir().every((name) => name !== jobId),
        "the job is over",
      );
      const states = statesIn(posted);
      assertEquals(states, [...new Set(states)]);
      assertEquals(states.at(-1), "complete");
      if (!hasStatus) return;
      const statuses = posted.flatMap(({ status, job_state }) =>
        status === undefined || job_state === "complete" ? [] : [JSON.stringify(status)]
      );
      assertEquals(statuses, [...new Set(statuses)]);
    },
  );
}

Deno.test("a state that an earlier process had posted is not posted again", async () => {
  await using lab = await Lab.open({ config: { test_command: UNTIL_TOLD } });
  const posted = recordResults(lab);
  const { promise: over, resolve } = Promise.withResolvers<void>();
  let isFirst = true;
  lab.sandbox.intercept(async (request, proceed) => {
    if (!isResult(request) || !isFirst) return undefined;
    isFirst = false;
    const answer = await proceed();
    await over;
    return answer;
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  const agent = lab.start();
  await lab.eventually(() => lab.sandbox.state(jobId) === "test", "the state of the test");
  agent.handOver();
  await agent.ended;
  const before = lab.sandbox.requests.length;
  lab.start();
  await lab.until(
    () =>
      lab.sandbox.requests.slice(before).some(({ method, path }) =>
        method === "GET" && path === `/v1/result/${jobId}/status`
      ),
    "the next process asks",
  );
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.complete(jobId);
  resolve();
  assertEquals(statesIn(posted), ["test", "complete"]);
});

Deno.test("an outcome that an earlier process had posted is not posted again", async () => {
  await using lab = await Lab.open({ config: { test_command: "true" } });
  const posted = recordResults(lab);
  const { promise: over, resolve } = Promise.withResolvers<void>();
  lab.sandbox.intercept(async (request, proceed) => {
    if (!isResult(request)) return undefined;
    const answer = await proceed();
    if (lab.sandbox.state(jobId) === "complete") await over;
    return answer;
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  const agent = lab.start();
  await lab.eventually(() => lab.sandbox.state(jobId) === "complete", "the outcome is there");
  agent.handOver();
  await agent.ended;
  lab.start();
  const jobs = join(lab.config.results_basedir, "agent-agent-1", "jobs");
  await lab.eventually(() => [...Deno.readDirSync(jobs)].length === 0, "the job is delivered");
  resolve();
  assertEquals(statesIn(posted).filter((state) => state === "complete").length, 1);
});

Deno.test("a job of four phases that prints nothing makes one post for each log, and one at its end", async () => {
  await using lab = await Lab.open({
    config: {
      setup_command: "true",
      provision_command: "true",
      test_command: "true",
      cleanup_command: "true",
    },
  });
  const jobId = await lab.run({ provision_data: { url: "x" }, test_data: { a: 1 } });
  const phases = lab.sandbox.fragments(jobId, "output").map(({ phase }) => phase);
  assertEquals(phases, ["setup", "provision", "test", "cleanup"]);
  assertEquals(lab.statuses(jobId), { setup: 0, provision: 0, test: 0, cleanup: 0 });
});

Deno.test("a state and the facts of which one is refused are posted one by one", async () => {
  await using lab = await Lab.open({
    config: {
      provision_command: `echo '{"device_info": {"device_ip": "10.1.1.1"}}' > device-info.json`,
      test_command: "touch ../testing; while [ ! -e ../go ]; do sleep 0.02; done",
    },
  });
  const posted = recordResults(lab);
  lab.sandbox.intercept(async (request) => {
    if (!isResult(request)) return undefined;
    const body: Body = await request.clone().json();
    return "device_info" in body
      ? Response.json({ message: "no such field" }, { status: 422 })
      : undefined;
  });
  const release = hold(lab, isResult);
  const jobId = lab.submit({ provision_data: { url: "x" }, test_data: { a: 1 } });
  lab.start();
  await ran(lab, "testing");
  release();
  await lab.until(() => lab.sandbox.state(jobId) === "test", "the state of the test");
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.complete(jobId);
  assertEquals(lab.statuses(jobId), { provision: 0, test: 0 });
  assertEquals(statesIn(posted).includes("test"), true);
  assertStringIncludes(lab.logged("error").join("\n"), "its device info cannot be delivered");
});

Deno.test("a webhook that is given up is said once, with the reason", async () => {
  await using lab = await Lab.open({ config: { setup_command: "true", test_command: "true" } });
  lab.sandbox.intercept((request) =>
    request.url.endsWith("/events")
      ? Response.json({ message: "not one of ours" }, { status: 422 })
      : undefined
  );
  const jobId = await lab.run({
    job_status_webhook: "http://127.0.0.1:9/hook",
    test_data: { a: 1 },
  });
  const said = () => lab.logged("warning").filter((line) => line.includes("webhook"));
  await lab.eventually(() => said().length > 0, "it is said");
  await lab.run({});
  assertEquals(said().length, 1);
  assertStringIncludes(said()[0] ?? "", jobId);
  assertStringIncludes(said()[0] ?? "", "not one of ours");
});
