/** A person's side of a lab, on the built file: submit, wait, results, artifacts, cancel. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import type { SandboxOptions } from "../../lib/sandbox/sandbox.ts";
import { Lab } from "../support/lab.ts";
import { PROGRAM } from "./built_program.ts";
import { sharedBuild } from "../packaging/support/built.ts";

const built = await sharedBuild();

interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

/** A lab whose agent runs its jobs' tests, and a folder to submit from. */
async function withLab(
  test: (lab: Lab, run: (...args: string[]) => Promise<Ran>) => Promise<void>,
  { sandbox = {}, env = {} }: { sandbox?: SandboxOptions; env?: Record<string, string> } = {},
): Promise<void> {
  await using lab = await Lab.open({
    sandbox,
    config: {
      agent_id: `submit-${crypto.randomUUID().slice(0, 8)}`,
      test_command: `exec ${PROGRAM} device-connector fake_connector runtest testflinger.json`,
      polling_interval: 1,
    },
  });
  await Deno.mkdir(join(lab.folder, "here"));
  await test(lab, async (...args) => {
    const { code, stdout, stderr } = await new Deno.Command(PROGRAM, {
      args,
      cwd: join(lab.folder, "here"),
      env: { ...built.env, NO_COLOR: "1", TESTFLINGER_SERVER: lab.served.url, ...env },
      stdin: "null",
    }).output();
    const text = new TextDecoder();
    return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
  });
}

const JOB = `job_queue: queue-1
test_data:
  attachments:
    - local: greeting.txt
    - local: data
    - local: ../outside.txt
    - local: greeting.txt
      agent: /opt/elsewhere.txt
  test_cmds: |
    cd attachments/test && cat greeting.txt data/inner/a outside.txt opt/elsewhere.txt && cd ../..
    [ -x attachments/test/data/run.sh ] && echo executable
    mkdir -p artifacts && echo kept > artifacts/file
    printf '\\033]0;title\\007 and \\033[31mred\\033[0m\\n'
`;

async function writeJob(lab: Lab, job = JOB): Promise<void> {
  const here = join(lab.folder, "here");
  await Deno.writeTextFile(join(here, "job.yaml"), job);
  await Deno.writeTextFile(join(here, "greeting.txt"), "hello\n");
  await Deno.mkdir(join(here, "data/inner"), { recursive: true });
  await Deno.writeTextFile(join(here, "data/inner/a"), "inside\n");
  await Deno.writeTextFile(join(here, "data/run.sh"), "#!/bin/sh\n", { mode: 0o755 });
  await Deno.writeTextFile(join(lab.folder, "outside.txt"), "outside\n");
}

for (const generation of ["current", "legacy"] as const) {
  Deno.test(`submit --wait shows the log as it comes and ends as the job does: ${generation}`, () =>
    withLab(async (lab, run) => {
      await writeJob(lab);
      lab.start();
      const passed = await run("submit", "job.yaml", "--wait");
      assertEquals(passed.code, 0, passed.stdout + passed.stderr);
      const [, jobId = ""] =
        /^Job (\S+) is submitted to queue 'queue-1' of http/.exec(passed.stderr) ??
          [];
      // A server of the older generation has the whole log only with the outcome.
      const order = /hello\ninside\noutside\nhello\nexecutable\n/;
      assertMatch(passed.stdout, order);
      assertEquals(passed.stdout.match(/Starting testflinger test phase/g)?.length, 1);
      assertMatch(passed.stdout, /\ntest +passed +status 0\n[^]*job +complete\n$/);
      assertEquals(passed.stdout.includes("\x1b]0;"), false, "a job retitles nobody's terminal");
      assertStringIncludes(passed.stderr, "[complete]\n");

      const results = await run("results", jobId, "--log");
      assertEquals(results.code, 0, results.stderr);
      assertMatch(results.stdout, order);
      const json = await run("results", jobId, "--format", "json");
      assertEquals(JSON.parse(json.stdout).test_status, 0);

      const artifacts = await run("artifacts", jobId);
      assertEquals([artifacts.code, artifacts.stdout], [
        0,
        `1 artifact in ./artifacts-${jobId}/\n`,
      ]);
      const file = join(lab.folder, "here", `artifacts-${jobId}`, "file");
      assertEquals(await Deno.readTextFile(file), "kept\n");
      const again = await run("artifacts", jobId);
      assertEquals([again.code, again.stderr], [
        1,
        `There is a ./artifacts-${jobId} already: move it away\n`,
      ]);

      await writeJob(lab, "job_queue: queue-1\ntest_data:\n  test_cmds: exit 7\n");
      const failed = await run("submit", "job.yaml", "--wait");
      assertEquals(failed.code, 1, failed.stdout);
      assertMatch(failed.stdout, /\ntest +failed +status 7\n/);
    }, { sandbox: { generation } }));
}

Deno.test("without --wait submit prints the id alone; a job that waits can be cancelled", () =>
  withLab(async (lab, run) => {
    await writeJob(lab, "test_data:\n  test_cmds: echo\n");
    const unnamed = await run("submit", "job.yaml");
    assertEquals([unnamed.code, unnamed.stderr], [
      2,
      "The job names no queue: give it a job_queue, or add --queue NAME\n",
    ]);
    const { code, stdout } = await run("submit", "job.yaml", "--queue", "other");
    assertEquals(code, 0);
    assertMatch(stdout, /^[0-9a-f-]{36}\n$/);
    const jobId = stdout.trim();
    assertEquals(lab.sandbox.state(jobId), "waiting");
    assertEquals((await run("cancel", jobId)).stdout, `Job ${jobId} is cancelled\n`);
    assertEquals(lab.sandbox.state(jobId), "cancelled");
    const twice = await run("cancel", jobId);
    assertEquals(twice.code, 1);
    assertMatch(twice.stderr, /400 .*The job is already completed or cancelled\n$/);
    const results = await run("results", jobId);
    assertEquals([results.code, results.stdout], [1, "job              cancelled\n"]);
    const none = await run("artifacts", jobId);
    assertMatch(none.stderr, /^Job \S+ has no artifacts on http/);
  }));

Deno.test("a server that is not there, or is none, is named in one line", () =>
  withLab(async (lab, run) => {
    await writeJob(lab);
    const { code, stderr } = await run("submit", "job.yaml", "--server", "127.0.0.1:9");
    assertEquals(code, 1);
    assertMatch(stderr, /^POST http:\/\/127\.0\.0\.1:9\/v1\/job: [^\n]*blocked\n$/);
    lab.sandbox.intercept(() => new Response("<html>Welcome", { status: 200 }));
    const html = await run("submit", "job.yaml");
    assertEquals(html.code, 1);
    assertMatch(html.stderr, /^http\S+ gives the job no id: is it a Testflinger server\?\n$/);
    for (const command of ["results", "artifacts", "cancel"]) {
      assertEquals((await run(command, "no-such-id", "-s", "127.0.0.1:9")).code, 1);
    }
  }));

Deno.test("attachments that the server does not take end the job, which would wait for ever", () =>
  withLab(async (lab, run) => {
    await writeJob(lab);
    lab.sandbox.intercept((request) =>
      request.url.endsWith("/attachments") && request.method === "POST"
        ? new Response("too large", { status: 413 })
        : undefined
    );
    const { code, stderr } = await run("submit", "job.yaml");
    assertEquals(code, 1);
    const [, jobId = ""] = /413 [^\n]*too large; job (\S+) is cancelled\n$/.exec(stderr) ?? [];
    assertEquals(lab.sandbox.state(jobId), "cancelled", stderr);
  }));

Deno.test("where the server wants to know who submits, a client's name and secret do", () =>
  withLab(async (lab, run) => {
    await writeJob(lab, "job_queue: queue-1\njob_priority: 100\n");
    const refused = await run("submit", "job.yaml", "--client-id", "somebody");
    assertEquals(refused.code, 1);
    assertMatch(refused.stderr, /40[13] /);
    assert(!refused.stderr.includes("open-sesame"));
    lab.sandbox.addClient({ clientId: "somebody", secret: "open-sesame", role: "admin" });
    const taken = await run("submit", "job.yaml", "--client-id", "somebody");
    assertEquals(taken.code, 0, taken.stderr);
  }, { sandbox: { tokens: true }, env: { TESTFLINGER_SECRET_KEY: "open-sesame" } }));
