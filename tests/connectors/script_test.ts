import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { ProvisioningError, RecoveryError } from "../../connectors/support/errors.ts";
import { runScript } from "../../connectors/support/script/script.ts";
import { inStage } from "./support/context.ts";
import { Lab } from "./support/lab.ts";

const SCRIPT = { key: "select_test_script", timeoutMs: 60_000 };

Deno.test("a script runs by a shell, command by command, and what it prints is in the job's log", async () => {
  await using lab = await Lab.open();
  await lab.config({ reboot_script: ["echo turning off; echo warm >&2", "echo on > state"] });
  await lab.job({});
  await lab.fake("ssh", "exit 255");
  const { stdout } = await lab.stage("noprovision", "provision");
  assertEquals(stdout, "");
  await lab.config({
    device_ip: "10.1.1.1",
    reboot_script: ["echo turning off; echo warm >&2", "echo on > state"],
  });
  const run = await lab.stage("noprovision", "provision");
  assertEquals(run.stdout.split("\n").sort(), ["", "turning off", "warm"]);
  assertEquals(await lab.read("state"), "on\n");
});

Deno.test("a command that fails ends its script with the error that the script says", async () => {
  for (const ErrorClass of [ProvisioningError, RecoveryError]) {
    await using lab = await Lab.open();
    const error = await assertRejects(() =>
      inStage(lab, (ctx) =>
        runScript(ctx, {
          ...SCRIPT,
          commands: ["true", "switch --token s3cret || { echo stuck; exit 4; }", "touch after"],
          failure: { step: "select the test image", ErrorClass },
        })), ErrorClass);
    assertEquals(
      error.message.split("\n")[0],
      "Cannot select the test image: 'select_test_script[1]: switch' ended with exit status 4: stuck",
    );
    assertEquals(await lab.has("after"), false);
  }
});

Deno.test("failures of a best-effort script are logged, and its other commands run", async () => {
  await using lab = await Lab.open();
  await lab.fake("slow", "hang");
  const failures = await inStage(lab, (ctx) =>
    runScript(ctx, {
      ...SCRIPT,
      commands: ["exit 3", "slow", "touch after"],
      failure: "log",
    }));
  assertEquals(failures, [
    "'select_test_script[0]: exit' ended with exit status 3",
    "'select_test_script[1]: slow' was ended after 60 s",
  ]);
  assertStringIncludes(lab.log.join("\n"), `WARNING: DEVICE CONNECTOR: ${failures[1]}`);
  assertEquals(await lab.has("after"), true);
});

Deno.test("a script for another machine is run by what reaches that machine", async () => {
  await using lab = await Lab.open();
  const asked: string[] = [];
  await inStage(lab, (ctx) =>
    runScript(ctx, {
      ...SCRIPT,
      commands: ["one", "two"],
      failure: "log",
      run(command, { timeoutMs }) {
        asked.push(`${command} within ${timeoutMs}`);
        return Promise.resolve({ ended: "exited", status: 0, stdout: "", stderr: "" });
      },
    }));
  assertEquals(asked, ["one within 60000", "two within 60000"]);
});
