import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { startProgram } from "./built_program.ts";

const EXAMPLE = join(import.meta.dirname ?? "", "..", "..", "examples", "hello", "job.yaml");

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
    assertStringIncludes(missing.output(), "Cannot read the job file none.yaml");
    await Deno.writeTextFile(
      join(cwd, "job.yaml"),
      "test_data:\n  attachments: [{local: nowhere}]\n",
    );
    await using attachment = startProgram(["try", "job.yaml"], { cwd });
    assertEquals(await attachment.exited, 2);
    assertStringIncludes(attachment.output(), "cannot read the attachment nowhere");
  }));
