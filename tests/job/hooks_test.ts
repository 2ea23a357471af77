/** Programs of the lab before and after jobs and phases. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { Lab } from "../support/lab.ts";
import { TempFolder } from "../support/temp_folder.ts";

/** A lab whose agent has these hooks, by name: what each is, as shell text. */
async function labWith(
  temp: TempFolder,
  hooks: Record<string, string>,
  config: Record<string, unknown> = {},
): Promise<Lab> {
  for (const [name, text] of Object.entries(hooks)) {
    await Deno.writeTextFile(temp.at(name), `#!/bin/sh\n${text}\n`);
    await Deno.chmod(temp.at(name), 0o755);
  }
  return await Lab.open({ config: { hooks_dir: temp.path, ...config } });
}

/** What a hook's line in the log begins with. */
const running = (temp: TempFolder, name: string) => `Running the hook ${temp.at(name)}\n`;

Deno.test("hooks run around a job and its phases, in their order, with the phase's environment", async () => {
  await using temp = new TempFolder();
  const note = (name: string) =>
    `echo ${name} $agent_id $PWD $TESTFLINGER_PHASE_STATUS >>${temp.at("notes")}`;
  const names = ["pre-job", "pre-setup", "post-setup", "pre-test", "post-test", "post-job"];
  await using lab = await labWith(
    temp,
    Object.fromEntries(names.map((name) => [name, note(name)])),
    { setup_command: "true", test_command: "echo tested; exit 3", cleanup_command: "echo cleaned" },
  );
  const jobId = await lab.run({ test_data: { a: 1 } });
  const place = `agent-1 ${join(lab.config.execution_basedir, jobId)}`;
  assertEquals((await Deno.readTextFile(temp.at("notes"))).split("\n"), [
    `pre-job ${place}`,
    `pre-setup ${place}`,
    `post-setup ${place} 0`,
    `pre-test ${place}`,
    `post-test ${place} 3`,
    `post-job ${place} 0`,
    "",
  ]);
  assertEquals(
    lab.output(jobId, "test"),
    `${running(temp, "pre-test")}tested\n${running(temp, "post-test")}`,
  );
  assertEquals(lab.statuses(jobId), { setup: 0, test: 3, cleanup: 0 });
});

Deno.test("hooks of the job run also where setup and cleanup have no command", async () => {
  await using temp = new TempFolder();
  await using lab = await labWith(temp, { "pre-job": "echo before", "post-job": "echo after" });
  const jobId = await lab.run({});
  assertEquals(lab.output(jobId, "setup"), `${running(temp, "pre-job")}before\n`);
  assertEquals(lab.output(jobId, "cleanup"), `${running(temp, "post-job")}after\n`);
});

Deno.test("a hook before a phase that fails fails the phase, which does not run", async () => {
  await using temp = new TempFolder();
  await using lab = await labWith(temp, { "pre-provision": "echo no power; exit 7" }, {
    provision_command: "echo provisioned",
    test_command: "echo tested",
    cleanup_command: "echo cleaned",
  });
  const jobId = await lab.run({ provision_data: { url: "x" }, test_data: { a: 1 } });
  assertEquals(
    lab.output(jobId, "provision"),
    `${running(temp, "pre-provision")}no power\nERROR: The hook ${
      temp.at("pre-provision")
    } failed with exit status 7, so the provision phase does not run.\n`,
  );
  assertEquals(lab.statuses(jobId), { provision: 7, cleanup: 0 });
});

Deno.test("a hook cannot say that the device is lost", async () => {
  await using temp = new TempFolder();
  await using lab = await labWith(temp, { "pre-job": "exit 46" });
  assertEquals(lab.statuses(await lab.run({ test_data: { a: 1 } })), { setup: 1 });
  await lab.run({});
});

Deno.test("a hook after a phase that fails is said, and the phase keeps its status", async () => {
  await using temp = new TempFolder();
  await using lab = await labWith(temp, { "post-test": "exit 9" }, { test_command: "exit 4" });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertStringIncludes(lab.output(jobId, "test"), "WARNING: The hook ");
  assertMatch(lab.output(jobId, "test"), /failed with exit status 9\.\n$/);
  assertEquals(lab.statuses(jobId), { test: 4 });
});

Deno.test("a hook that cannot be run fails its phase, and its secrets are masked", async () => {
  await using temp = new TempFolder();
  await using lab = await labWith(temp, {
    "pre-setup": 'echo "$TOKEN"',
    "pre-test": 'echo "$TOKEN"',
  }, {
    setup_command: "true",
    test_command: "true",
  });
  const secrets = { TOKEN: "hunter22" };
  const jobId = await lab.run({ test_data: { a: 1, secrets } });
  assertEquals(lab.output(jobId, "test").includes("hunter22"), false);
  await Deno.chmod(temp.at("pre-test"), 0o644);
  const next = await lab.run({ test_data: { a: 1 } });
  assertMatch(lab.output(next, "test"), /Permission denied\nERROR: The hook .* exit status 126/i);
  assertEquals(lab.statuses(next), { setup: 0, test: 126 });
});

Deno.test("a hook counts into its phase's limits", async () => {
  await using temp = new TempFolder();
  await using lab = await labWith(temp, { "pre-test": "sleep 1000" }, { test_command: "true" });
  const jobId = await lab.run({ global_timeout: 2, test_data: { a: 1 } });
  assertStringIncludes(lab.output(jobId, "test"), "ERROR: Global timeout reached! (2s)");
});
