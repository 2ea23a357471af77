/** The command of the next phase is made ready while a phase runs; nobody notices but by the time it takes. */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { scaledClock } from "../../lib/clock.ts";
import { Lab } from "../support/lab.ts";
import { TempFolder } from "../support/temp_folder.ts";

/** Runs until the file is there that lets it go on. */
const until = (path: string) => `until [ -e ${path} ]; do sleep 0.02; done`;

/** The processes that wait to become the command `number` of a job. */
async function waiting(lab: Lab, jobId: string, number: number): Promise<number[]> {
  const folder = join(
    lab.config.results_basedir,
    "agent-agent-1",
    "jobs",
    jobId,
    `command-${number}`,
  );
  const { stdout } = await new Deno.Command("pgrep", { args: ["-f", folder] }).output();
  return new TextDecoder().decode(stdout).split("\n").filter((line) => line !== "").map(Number);
}

Deno.test("when what waits to be the next phase is killed, the phase runs all the same, once", async () => {
  await using temp = new TempFolder();
  await using lab = await Lab.open({
    clock: scaledClock(1),
    config: {
      test_command: until(temp.at("go")),
      cleanup_command: `echo ran >>${temp.at("runs")}`,
    },
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.eventually(async () => (await waiting(lab, jobId, 2)).length > 2, "cleanup is ready");
  for (const pid of await waiting(lab, jobId, 2)) {
    try {
      Deno.kill(pid, "SIGKILL");
    } catch {
      // It has ended with another one.
    }
  }
  await Deno.writeTextFile(temp.at("go"), "");
  await lab.complete(jobId);
  assertEquals(lab.statuses(jobId), { test: 0, cleanup: 0 });
  assertEquals(await Deno.readTextFile(temp.at("runs")), "ran\n");
});

Deno.test("a hook that comes while a job runs is run before its next phase", async () => {
  await using temp = new TempFolder();
  await using lab = await Lab.open({
    clock: scaledClock(1),
    config: {
      hooks_dir: temp.path,
      test_command: `echo begun; ${until(temp.at("go"))}`,
      cleanup_command: "echo cleaned",
    },
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.eventually(async () => (await waiting(lab, jobId, 2)).length > 2, "cleanup is ready");
  await Deno.writeTextFile(temp.at("pre-cleanup"), "#!/bin/sh\necho hooked\n");
  await Deno.chmod(temp.at("pre-cleanup"), 0o755);
  await Deno.writeTextFile(temp.at("go"), "");
  await lab.complete(jobId);
  const hook = temp.at("pre-cleanup");
  assertEquals(lab.output(jobId, "cleanup"), `Running the hook ${hook}\nhooked\ncleaned\n`);
});

Deno.test("a phase that is not to run has left no process waiting when the job is over", async () => {
  await using temp = new TempFolder();
  await using lab = await Lab.open({
    clock: scaledClock(1),
    config: {
      provision_command: `echo begun; ${until(temp.at("go"))}; exit 3`,
      test_command: `touch ${temp.at("tested")}`,
      cleanup_command: "echo cleaned",
    },
  });
  const jobId = lab.submit({ provision_data: { a: 1 }, test_data: { a: 1 } });
  lab.start();
  await lab.eventually(async () => (await waiting(lab, jobId, 2)).length > 2, "the test is ready");
  await Deno.writeTextFile(temp.at("go"), "");
  await lab.complete(jobId);
  assertEquals(lab.statuses(jobId), { provision: 3, cleanup: 0 });
  assertEquals(await Deno.stat(temp.at("tested")).catch(() => "not tested"), "not tested");
  assertEquals(await waiting(lab, jobId, 2), []);
  // None of them was taken for something that the job has left running.
  assertEquals(lab.logged("info").filter((line) => line.startsWith("Ended ")), []);
});

Deno.test("before a phase that has secrets no process has them", async () => {
  const secret = crypto.randomUUID();
  const look = `n=0; while [ $n -lt 10 ]; do n=$((n + 1)); ` +
    `for file in /proc/[0-9]*/environ; do grep -aq "KE[Y]=${secret}" $file && echo seen; done; ` +
    `done 2>/dev/null; true`;
  await using lab = await Lab.open({
    clock: scaledClock(1),
    config: { provision_command: look, test_command: 'echo "$KEY" | tr a-z A-Z' },
  });
  const jobId = await lab.run({
    provision_data: { a: 1 },
    test_data: { secrets: { KEY: secret } },
  });
  assertEquals(lab.output(jobId, "provision"), "");
  assert(lab.output(jobId, "test").includes(secret.toUpperCase()));
});

Deno.test("while a phase takes long no process waits for the next one, which runs all the same", async () => {
  await using temp = new TempFolder();
  const clock = scaledClock(100);
  await using lab = await Lab.open({
    clock,
    config: { test_command: until(temp.at("go")), cleanup_command: "echo cleaned" },
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.until(() => lab.sandbox.state(jobId) === "test", "the test runs");
  await clock.sleep(20_000);
  await lab.eventually(async () => (await waiting(lab, jobId, 2)).length === 0, "nobody waits");
  await Deno.writeTextFile(temp.at("go"), "");
  await lab.complete(jobId);
  assertEquals(lab.output(jobId, "cleanup"), "cleaned\n");
});
