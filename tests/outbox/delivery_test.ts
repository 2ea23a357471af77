import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { Lab } from "../support/lab.ts";

const LOG = "/log/output";

function isLogPost(request: Request): boolean {
  return request.method === "POST" && request.url.endsWith(LOG);
}

/** Numbered lines, as a command and as text. */
const LINES = 300;
const PRINT_LINES = `i=0; while [ $i -lt ${LINES} ]; do i=$((i + 1)); echo "line $i"; done`;
const PRINTED = Array.from({ length: LINES }, (_, i) => `line ${i + 1}\n`).join("");

function fragmentNumbers(lab: Lab, jobId: string): number[] {
  return lab.sandbox.fragments(jobId, "output").map((fragment) => fragment.fragment_number);
}

for (
  const [what, status] of Object.entries({ "502": 502, "504": 504, "500": 500 })
) {
  Deno.test(`a piece of a log that arrived although the answer was ${what} is not sent again`, async () => {
    await using lab = await Lab.open({ config: { test_command: PRINT_LINES } });
    lab.sandbox.intercept(async (request, proceed) => {
      if (!isLogPost(request)) return undefined;
      await proceed();
      // The first time it arrives and says it did not; the look that follows tells the truth.
      return new Response("gateway trouble", { status });
    });
    const jobId = await lab.run({ test_data: { a: 1 } });
    assertEquals(lab.output(jobId, "test"), PRINTED);
    const numbers = fragmentNumbers(lab, jobId);
    assertEquals(numbers, numbers.map((_, index) => index));
  });
}

Deno.test("a piece of a log that did not arrive is sent again, with the same number", async () => {
  await using lab = await Lab.open({ config: { test_command: PRINT_LINES } });
  let failures = 2;
  lab.sandbox.intercept((request) =>
    isLogPost(request) && failures-- > 0 ? new Response("busy", { status: 503 }) : undefined
  );
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.output(jobId, "test"), PRINTED);
  const numbers = fragmentNumbers(lab, jobId);
  assertEquals(numbers, numbers.map((_, index) => index));
});

Deno.test("a piece that the server refuses for good is given up, and the job is complete all the same", async () => {
  await using lab = await Lab.open({
    config: { test_command: "echo hello", cleanup_command: "true" },
  });
  lab.sandbox.intercept((request) =>
    isLogPost(request) ? Response.json({ message: "no such job" }, { status: 422 }) : undefined
  );
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.statuses(jobId), { test: 0, cleanup: 0 });
  const errors = lab.logged("error");
  assertEquals(errors.length, 1);
  assertStringIncludes(errors[0] ?? "", "no such job");
});

Deno.test("an outcome that the server refuses is reduced to the state, so that no client waits for ever", async () => {
  await using lab = await Lab.open({ config: { test_command: "true" } });
  lab.sandbox.intercept(async (request) => {
    if (request.method !== "POST" || !/\/v1\/result\/[^/]+$/.test(request.url)) return undefined;
    const body = await request.clone().text();
    return body.includes("status") && body.includes("complete")
      ? Response.json({ message: "invalid" }, { status: 422 })
      : undefined;
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.sandbox.state(jobId), "complete");
});

Deno.test("a running job is not disturbed by an outage, and everything is there afterwards", async () => {
  await using lab = await Lab.open({
    config: {
      test_command:
        `echo before; while [ ! -e ../go ]; do sleep 0.02; done; ${PRINT_LINES}; touch ../done; ` +
        "mkdir artifacts; echo x > artifacts/x",
    },
  });
  let isAway = false;
  lab.sandbox.intercept(() => isAway ? new Response("gone", { status: 503 }) : undefined);
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.until(() => lab.output(jobId, "test") === "before\n", "the test runs");
  isAway = true;
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.eventually(
    () => Deno.stat(join(lab.config.execution_basedir, "done")).then(() => true, () => false),
    "the test goes on during the outage",
  );
  assertEquals(lab.output(jobId, "test"), "before\n");
  isAway = false;
  await lab.complete(jobId);
  assertEquals(lab.output(jobId, "test"), `before\n${PRINTED}`);
  assertEquals(lab.statuses(jobId), { test: 0 });
  assert(lab.sandbox.artifact(jobId) !== undefined);
});

Deno.test("after an outage a long log catches up in large pieces", async () => {
  await using lab = await Lab.open({
    config: {
      test_command: "echo before; while [ ! -e ../go ]; do sleep 0.02; done; " +
        "yes 'a line of some length' | head -c 3000000; touch ../done",
    },
  });
  let isAway = false;
  lab.sandbox.intercept(() => isAway ? new Response("gone", { status: 503 }) : undefined);
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.until(() => lab.output(jobId, "test") === "before\n", "the test runs");
  isAway = true;
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.eventually(
    () => Deno.stat(join(lab.config.execution_basedir, "done")).then(() => true, () => false),
    "the test has printed all of it",
  );
  isAway = false;
  await lab.complete(jobId);
  const lengths = lab.sandbox.fragments(jobId, "output").map((fragment) =>
    fragment.log_data.length
  );
  assertEquals(lengths.reduce((sum, length) => sum + length, 0) > 3_000_000, true);
  assertEquals(lengths.length < 15, true, `${lengths.length} pieces`);
});

Deno.test("a long log is cut between characters, and arrives once and in order though every other answer is lost", async () => {
  const line = "Größe: ☃ und 𝄞\n";
  const bytes = new TextEncoder().encode(line).length * 120_000;
  await using lab = await Lab.open({
    config: { test_command: `yes '${line.trimEnd()}' | head -c ${bytes}` },
  });
  let posts = 0;
  lab.sandbox.intercept(async (request, proceed) => {
    if (!isLogPost(request)) return undefined;
    await proceed();
    return ++posts % 2 === 0 ? new Response("gateway trouble", { status: 502 }) : undefined;
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.output(jobId, "test") === line.repeat(120_000), true);
  const numbers = fragmentNumbers(lab, jobId);
  assertEquals(numbers, numbers.map((_, index) => index));
  assert(numbers.length > 5, `${numbers.length} pieces`);
});

Deno.test("a chatty test makes few requests: at most one piece in 200 ms", async () => {
  await using lab = await Lab.open({
    config: { test_command: 'i=0; while [ $i -lt 400 ]; do i=$((i + 1)); echo "$i"; done' },
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.sandbox.fragments(jobId, "output").length <= 4, true);
});

Deno.test("what could not be delivered is given up when it takes too much room, but not the outcome", async () => {
  await using lab = await Lab.open({
    config: { max_spool: 600_000, test_command: "yes | head -c 400000", cleanup_command: "true" },
  });
  lab.sandbox.intercept((request) =>
    isLogPost(request) ? new Response("busy", { status: 500 }) : undefined
  );
  const first = lab.submit({ test_data: { a: 1 } });
  const second = lab.submit({ test_data: { a: 1 } });
  lab.start();
  // They are equally large: either will do.
  const givenUp = await lab.until(
    () => [first, second].find((jobId) => lab.sandbox.state(jobId) === "complete"),
    "one of them is complete",
  );
  assertEquals(lab.statuses(givenUp), { test: 0, cleanup: 0 });
  assertStringIncludes(lab.logged("error").join("\n"), `the log of job ${givenUp}, `);
  const kept = givenUp === first ? second : first;
  assertEquals(lab.sandbox.state(kept) !== "complete", true);
});

Deno.test("a server of the older generation gets plain text while the job runs, and the log with the outcome", async () => {
  await using lab = await Lab.open({
    sandbox: { generation: "legacy" },
    config: {
      output_bytes: 1000,
      setup_command: "echo setting up",
      test_command: `echo serial > test-serial.log; ${PRINT_LINES}; exit 3`,
    },
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.statuses(jobId), { setup: 0, test: 3 });
  const inResult = lab.sandbox.log(jobId, "output", "test");
  assertEquals(inResult.length, 1000);
  assertEquals(PRINTED.endsWith(inResult), true);
  assertStringIncludes(lab.sandbox.log(jobId, "output", "setup"), "setting up\n");
  assertEquals(lab.sandbox.log(jobId, "serial", "test"), "serial\n");
  assertStringIncludes(lab.sandbox.log(jobId, "output"), PRINTED);
});

Deno.test("an outcome that an earlier agent could not post reaches a server of the older generation whole", async () => {
  await using lab = await Lab.open({
    sandbox: { generation: "legacy" },
    config: { test_command: `${PRINT_LINES}; exit 3`, cleanup_command: "echo cleaned" },
  });
  let isAway = true;
  lab.sandbox.intercept(async (request) => {
    if (!isAway || request.method !== "POST" || !/result\/[^/]+$/.test(request.url)) {
      return undefined;
    }
    const body: unknown = await request.clone().json();
    const isOutcome = typeof body === "object" && body !== null && "test_status" in body;
    return isOutcome ? new Response("busy", { status: 503 }) : undefined;
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  const first = lab.start();
  await lab.until(
    () => lab.sandbox.log(jobId, "output").includes("cleaned\n"),
    "the job has run and its log is delivered",
  );
  await lab.eventually(
    () => lab.log.lines.some(({ message }) => message.startsWith("Will be tried again")),
    "the outcome is refused",
  );
  first.stop();
  await first.ended;
  isAway = false;
  lab.start();
  await lab.complete(jobId);
  assertEquals(lab.statuses(jobId), { test: 3, cleanup: 0 });
  assertStringIncludes(lab.sandbox.log(jobId, "output", "test"), PRINTED);
  assertEquals(lab.logged("error"), []);
});

Deno.test("an outcome in the words of the older generation is said again in those of the newer one when the server was upgraded", async () => {
  await using lab = await Lab.open({
    sandbox: { generation: "legacy" },
    config: { test_command: `${PRINT_LINES}; exit 3`, cleanup_command: "echo cleaned" },
  });
  const upgraded: unknown[] = [];
  lab.sandbox.intercept(async (request) => {
    if (request.method !== "POST" || !/result\/[^/]+$/.test(request.url)) return undefined;
    const body: unknown = await request.clone().json();
    if (typeof body !== "object" || body === null || !("job_state" in body)) return undefined;
    if (body.job_state !== "complete") return undefined;
    if ("test_status" in body) return Response.json({}, { status: 422 });
    upgraded.push(body);
    return new Response("OK");
  });
  lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.until(() => upgraded.length > 0, "the outcome is posted again");
  assertEquals(upgraded, [{ job_state: "complete", status: { test: 3, cleanup: 0 } }]);
  assertEquals(lab.logged("error"), []);
});

Deno.test("a server that does not answer does not hold up the job: it runs to its end meanwhile", async () => {
  await using lab = await Lab.open({
    config: { test_command: `${PRINT_LINES}; touch ../done`, cleanup_command: "touch ../cleaned" },
  });
  const answers = Promise.withResolvers<void>();
  lab.sandbox.intercept(async (request, proceed) => {
    if (request.method !== "POST" || !request.url.includes("/v1/result/")) return undefined;
    const answer = await proceed();
    await answers.promise;
    return answer;
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.eventually(
    () => Deno.stat(join(lab.config.execution_basedir, "cleaned")).then(() => true, () => false),
    "the job has run to its end",
  );
  answers.resolve();
  await lab.complete(jobId);
  assertEquals(lab.output(jobId, "test"), PRINTED);
  const numbers = fragmentNumbers(lab, jobId);
  assertEquals(numbers, numbers.map((_, index) => index));
});

Deno.test("a provision log that the server cannot take keeps neither the job from being complete nor its next run", async () => {
  for (const status of [500, 403]) {
    await using lab = await Lab.open({ config: { provision_command: "echo provisioned" } });
    let isBroken = true;
    lab.sandbox.intercept((request) =>
      isBroken && request.url.includes("/provision_logs/")
        ? Response.json({ message: "boom" }, { status })
        : undefined
    );
    const jobId = await lab.run({ provision_data: { url: "x" } });
    assertEquals(lab.statuses(jobId), { provision: 0 });
    await lab.run({ job_id: jobId, provision_data: { url: "x" } });
    const log = lab.sandbox.log(jobId, "output", "provision");
    assertEquals(log.split("provisioned\n").length - 1, 2);
    const numbers = fragmentNumbers(lab, jobId);
    assertEquals(numbers, [...new Set(numbers)].sort((a, b) => a - b));
    assertEquals(lab.sandbox.provisionLogs("agent-1"), []);
    isBroken = false;
    await lab.until(
      () => lab.sandbox.provisionLogs("agent-1").length === 2,
      "the entries are delivered",
    );
    const jobs = join(lab.config.results_basedir, "agent-agent-1", "jobs");
    await lab.eventually(() => [...Deno.readDirSync(jobs)].length === 0, "nothing is left");
  }
});

Deno.test("a job that cannot be delivered does not hold up the log of the next one", async () => {
  await using lab = await Lab.open({ config: { test_command: PRINT_LINES } });
  const stuck = lab.submit({ test_data: { a: 1 } });
  let isStuck = true;
  lab.sandbox.intercept((request) =>
    isStuck && request.method === "POST" && request.url.includes(stuck)
      ? new Response("busy", { status: 503 })
      : undefined
  );
  lab.start();
  const next = lab.submit({ test_data: { a: 1 } });
  await lab.complete(next);
  assertEquals(lab.output(next, "test"), PRINTED);
  isStuck = false;
  await lab.complete(stuck);
  assertEquals(lab.output(stuck, "test"), PRINTED);
});
