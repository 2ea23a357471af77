import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { Lab } from "../support/lab.ts";

const PAGE = "<!DOCTYPE html><html><body>Log in to the guest network</body></html>";
const JOB = { test_data: { a: 1 }, job_status_webhook: "http://127.0.0.1:9/webhook" };

/** The job prints, goes on once a test says so, and makes an artifact. */
const COMMANDS = {
  test_command: "echo before; until [ -e ../go ]; do sleep 0.02; done; echo meanwhile; " +
    "mkdir artifacts; echo content > artifacts/file; exit 3",
  cleanup_command: "echo cleaned; touch ../cleaned",
};

async function letGo(lab: Lab): Promise<void> {
  const run = lab.config.execution_basedir;
  await Deno.writeTextFile(join(run, "go"), "");
  const isThere = () => Deno.stat(join(run, "cleaned")).then(() => true, () => false);
  await lab.eventually(isThere, "the job has run to its end");
}

async function assertWhole(lab: Lab, jobId: string): Promise<void> {
  assertEquals(lab.output(jobId, "test"), "before\nmeanwhile\n");
  assertEquals(lab.statuses(jobId), { test: 3, cleanup: 0 });
  assert((lab.sandbox.artifact(jobId)?.length ?? 0) > 0);
  // A webhook holds up no outcome.
  await lab.until(() => lab.events(jobId).includes("job_end"), "the last event");
  assertEquals(
    lab.sandbox.fragments(jobId, "output").map((fragment) => fragment.fragment_number),
    lab.sandbox.fragments(jobId, "output").map((_, index) => index),
  );
}

for (const status of [200, 302, 401, 403, 404, 405, 413, 422, 500, 503]) {
  Deno.test(`a portal that shows a page with ${status} while a job ends costs nothing of it`, async () => {
    await using lab = await Lab.open({ config: COMMANDS });
    let isShown = false;
    lab.sandbox.intercept(() =>
      isShown
        ? new Response(PAGE, { status, headers: { "content-type": "text/html", location: "/in" } })
        : undefined
    );
    const jobId = lab.submit(JOB);
    lab.start();
    await lab.until(() => lab.output(jobId, "test") === "before\n", "the first line");
    isShown = true;
    await letGo(lab);
    const asked = lab.sandbox.requestCount;
    await lab.until(() => lab.sandbox.requestCount > asked + 8, "more is tried");
    isShown = false;
    await lab.complete(jobId);
    await assertWhole(lab, jobId);
    assertEquals(lab.logged("error").filter((line) => line.includes("will not be tried")), []);
  });
}

Deno.test("a token of the wrong role costs nothing of a job: it is said once, shown, and mended by an administrator", async () => {
  const folder = await Deno.makeTempDir();
  const tokenFile = join(folder, "token");
  await Deno.writeTextFile(tokenFile, '{"refresh_token": "t"}');
  const problems: (string | undefined)[] = [];
  await using lab = await Lab.open({
    folder,
    tokenFile,
    sandbox: { tokens: true },
    sink: (event) => {
      if (event.type === "access") problems.push(event.problem);
    },
    config: COMMANDS,
  });
  lab.sandbox.addRefreshToken("t");
  const jobId = lab.submit(JOB);
  lab.start();
  await lab.until(() => lab.output(jobId, "test") === "before\n", "the first line");
  // An administrator has given the client another role by mistake.
  lab.sandbox.addRefreshToken("t", { role: "contributor" });
  lab.sandbox.expireAccessTokens();
  await letGo(lab);
  await lab.eventually(() => problems.length > 0, "the agent is turned away");
  assertStringIncludes(problems[0] ?? "", "requires role");
  const refused = () => lab.sandbox.requests.filter((request) => request.status === 403).length;
  const before = refused();
  await lab.until(() => refused() > before + 3, "it is tried again");
  lab.sandbox.addRefreshToken("t");
  await lab.complete(jobId);
  await assertWhole(lab, jobId);
  const lines = lab.logged("error").filter((line) => line.includes("turns this agent away"));
  assertEquals(lines.length, 1);
  await lab.eventually(() => problems.at(-1) === undefined, "the agent is let in again");
});

Deno.test("a current server that has forgotten one job gets all of another's log, the right way", async () => {
  await using lab = await Lab.open({ config: COMMANDS });
  const forgotten = lab.submit(JOB);
  const kept = lab.submit(JOB);
  let isAway = false;
  lab.sandbox.intercept((request) =>
    isAway && request.method === "POST" ? new Response(null, { status: 503 }) : undefined
  );
  const agent = lab.start();
  await lab.until(() => lab.output(forgotten, "test") === "before\n", "the first line");
  isAway = true;
  await letGo(lab);
  agent.stop();
  await agent.ended;
  lab.sandbox.forgetJob(forgotten);
  isAway = false;
  // The next agent begins with what is left of the job that is forgotten, and runs the other one.
  lab.start();
  await lab.complete(kept);
  await assertWhole(lab, kept);
  const jobs = join(lab.config.results_basedir, "agent-agent-1", "jobs");
  await lab.eventually(
    () => [...Deno.readDirSync(jobs)].length === 0,
    "nothing is left to deliver",
  );
  assertEquals(
    lab.sandbox.requests.filter(({ path }) =>
      path.endsWith("/output") &&
      !path.includes("/log/")
    ),
    [],
  );
});
