import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { startProgram } from "./built_program.ts";

const EXAMPLE = join(import.meta.dirname ?? "", "..", "..", "examples", "hello", "job.yaml");

const PATIENCE_MS = 60_000;

async function inFolder(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("try runs the example: attachment, masked secret, both streams, artifact, exit status 0", () =>
  inFolder(async (cwd) => {
    await using trial = startProgram(["try", EXAMPLE], { cwd });
    assertEquals(await trial.exited, 0, trial.output());
    const output = trial.output();
    assertStringIncludes(output, "And this went to standard error.");
    assertStringIncludes(output, "Greetings from an attachment.");
    assertMatch(output, /The token is \*\*[0-9a-f]{6}\*\*, but nobody/);
    assertEquals(output.includes("correct-horse"), false);
    assertMatch(output, /\ntest +passed +status +0 /);
    const [folder] = [...Deno.readDirSync(cwd)].map(({ name }) => name);
    assertMatch(folder ?? "", /^artifacts-/);
    assertStringIncludes(await Deno.readTextFile(join(cwd, folder ?? "", "uname.txt")), "Linux");
  }));

Deno.test("try needs no network: it works behind a proxy that cannot reach this machine", () =>
  inFolder(async (cwd) => {
    const env = { HTTP_PROXY: "http://127.0.0.1:9", NO_PROXY: "intranet.example.com" };
    await using trial = startProgram(["try", EXAMPLE], { cwd, env });
    // Without an answer it would retry until it is killed.
    AbortSignal.timeout(PATIENCE_MS).addEventListener("abort", () => trial.kill("SIGKILL"));
    assertEquals(await trial.exited, 0, trial.output());
  }));

Deno.test("try exits with 1 when a phase fails", () =>
  inFolder(async (cwd) => {
    await Deno.writeTextFile(join(cwd, "job.yaml"), "test_data:\n  test_cmds: exit 7\n");
    await using trial = startProgram(["try", "job.yaml"], { cwd });
    assertEquals(await trial.exited, 1, trial.output());
    assertMatch(trial.output(), /\ntest +failed +status +7 /);
  }));

Deno.test("try runs the phases of an agent's configuration without disturbing that agent", () =>
  inFolder(async (cwd) => {
    await Deno.writeTextFile(join(cwd, "job.yaml"), "provision_data:\n  url: x\n");
    await Deno.writeTextFile(
      join(cwd, "agent.conf"),
      "agent_id: rpi4\nserver_address: 127.0.0.1:1\njob_queues: [q]\n" +
        "provision_command: echo provisioned by $agent_id\n" +
        "execution_basedir: /nonexistent/run\n",
    );
    await using trial = startProgram(["try", "job.yaml", "-c", "agent.conf"], { cwd });
    assertEquals(await trial.exited, 0, trial.output());
    assertStringIncludes(trial.output(), "provisioned by rpi4");
  }));

Deno.test("try says in one line what is wrong with a job file, and exits with 2", () =>
  inFolder(async (cwd) => {
    await using missing = startProgram(["try", "none.yaml"], { cwd });
    assertEquals(await missing.exited, 2);
    assertEquals(missing.output(), "none.yaml: cannot be read: there is no such file\n");
    await Deno.writeTextFile(
      join(cwd, "job.yaml"),
      "test_data:\n  attachments: [{local: nowhere}]\n",
    );
    await using attachment = startProgram(["try", "job.yaml"], { cwd });
    assertEquals(await attachment.exited, 2);
    assertEquals(
      attachment.output(),
      "job.yaml:2:17: test_data.attachments[0]: cannot read the attachment nowhere: there is no such " +
        "file\n   2 |   attachments: [{local: nowhere}]\n     |                 ^\n",
    );
    await Deno.writeTextFile(join(cwd, "job.yaml"), "test_data: [\n");
    await using syntax = startProgram(["try", "job.yaml"], { cwd });
    assertEquals(await syntax.exited, 2);
    assertMatch(syntax.output(), /^job\.yaml:1:12: this \[ is never closed: add \]\n/);
  }));

Deno.test("try says which keys of a job look misspelt, what a phase looked for, and what -c would run", () =>
  inFolder(async (cwd) => {
    const tryJob = async (text: string) => {
      await Deno.writeTextFile(join(cwd, "job.yaml"), text);
      await using trial = startProgram(["try", "job.yaml"], { cwd });
      assertEquals(await trial.exited, 1);
      return trial.output();
    };
    const misspelt = await tryJob("job_queue: q\ntest_dat:\n  test_cmds: echo\n");
    assertStringIncludes(
      misspelt,
      "warning: job.yaml:2:1: test_dat: is not a known key of a job, did you mean 'test_data'?\n" +
        "   2 | test_dat:\n     | ^\n",
    );
    assertMatch(misspelt, /\ntest +skipped: the job has no test_data\n/);
    const inSection = await tryJob("test_data:\n  tst_cmds: echo\nreserve_data: {}\nnew_key: 1\n");
    assertStringIncludes(
      inSection,
      "job.yaml:2:3: test_data.tst_cmds: is not a known key of a job, did you mean 'test_cmds'?\n",
    );
    assertStringIncludes(
      inSection,
      "job.yaml:4:1: new_key: is not a known key of a job, does the server know it?\n",
    );
    assertStringIncludes(
      inSection,
      "The job's 'test_data' has no key 'test_cmds', so there is nothing to run; it has 'tst_cmds'\n",
    );
    assertMatch(
      inSection,
      /\nreserve +skipped: only tests run without an agent's configuration: add -c FILE\n/,
    );
    assertMatch(inSection, /\nprovision +skipped: no provision_command/);
  }));
