import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Lab } from "./support/lab.ts";

const CONFIG = { agent_name: "a1", device_ip: "10.1.1.1" };

Deno.test("02-noprovision 1: a device that answers is left alone", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, reboot_script: ["touch rebooted"] });
  await lab.job({});
  assertEquals((await lab.stage("noprovision", "provision")).code, 0);
  const calls = await lab.calls();
  assertEquals(calls.length, 1);
  assertEquals(calls[0]?.args.slice(0, 4), [
    "-o",
    "StrictHostKeyChecking=no",
    "-o",
    "UserKnownHostsFile=/dev/null",
  ]);
  assert(calls[0]?.args.includes("BatchMode=yes"));
  assertEquals(calls[0]?.args.slice(-2), ["ubuntu@10.1.1.1", "/bin/true"]);
  assert(!await lab.has("rebooted"));
});

Deno.test("02-noprovision 2: the job's test_username is the one that logs in", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ test_data: { test_username: "bob" } });
  assertEquals((await lab.stage("noprovision", "provision")).code, 0);
  assertEquals((await lab.calls("ssh"))[0]?.args.at(-2), "bob@10.1.1.1");
});

Deno.test("02-noprovision 3: a device that does not answer is reset once and waited for", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, reboot_script: ["touch rebooted"] });
  await lab.job({});
  await lab.fake("ssh", '[ "$n" -gt 1 ]');
  assertEquals((await lab.stage("noprovision", "provision")).code, 0);
  assert(await lab.has("rebooted"));
  assertEquals(lab.clock.paused, [60_000, 10_000]);
});

Deno.test("02-noprovision 4: a device that never comes back is given up after 360 s", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, reboot_script: ["true"] });
  await lab.job({});
  await lab.fake("ssh", 'echo "connect to host 10.1.1.1 port 22: No route to host" >&2; exit 255');
  assertEquals((await lab.stage("noprovision", "provision")).code, 1);
  assertEquals(lab.clock.elapsed, 360_000);
  // Once before the reset, and then every 10 s of 300, but no more when they are over.
  assertEquals((await lab.calls("ssh")).length, 30);
  const failure = await lab.failure("provision");
  assertEquals(failure.exception_name, "ProvisioningError");
  assertStringIncludes(failure.exception_message ?? "", "ubuntu@10.1.1.1");
  assertStringIncludes(failure.exception_message ?? "", "No route to host");
});

Deno.test("probes that hang do not take longer than the 300 s that there are", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, reboot_script: ["true"] });
  await lab.job({});
  await lab.fake("ssh", "hang");
  assertEquals((await lab.stage("noprovision", "provision")).code, 1);
  assertEquals(lab.clock.elapsed, 30_000 + 360_000);
  assertStringIncludes(
    (await lab.failure("provision")).exception_message ?? "",
    "'ssh ubuntu@10.1.1.1 /bin/true' was ended after 10 s",
  );
});

Deno.test("unreachable_is_recovery_error: true makes a lost device a matter for a person", async () => {
  await using lab = await Lab.open();
  await lab.config({
    ...CONFIG,
    reboot_script: ["true"],
    unreachable_is_recovery_error: true,
  });
  await lab.job({});
  await lab.fake("ssh", "exit 255");
  assertEquals((await lab.stage("noprovision", "provision")).code, 46);
});

Deno.test("02-noprovision 5: a reset that fails needs a person", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, reboot_script: ["true", "echo no power >&2; false --password x"] });
  await lab.job({});
  await lab.fake("ssh", "exit 255");
  assertEquals((await lab.stage("noprovision", "provision")).code, 46);
  const failure = await lab.failure("provision");
  assertEquals(failure.exception_name, "RecoveryError");
  assertStringIncludes(failure.exception_message ?? "", "'reboot_script[1]: echo'");
  assertStringIncludes(failure.exception_message ?? "", "exit status 1: no power");
  assert(!failure.exception_message?.includes("--password"));
});

Deno.test("02-noprovision 6: a reset that hangs is ended after 120 s and needs a person", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, reboot_script: ["pdu-cycle 3"] });
  await lab.job({});
  await lab.fake("ssh", "exit 255");
  await lab.fake("pdu-cycle", "hang");
  assertEquals((await lab.stage("noprovision", "provision")).code, 46);
  assertEquals(lab.clock.elapsed, 120_000);
  assertStringIncludes(
    (await lab.failure("provision")).exception_message ?? "",
    "'reboot_script[0]: pdu-cycle' was ended after 120 s",
  );
});

Deno.test("02-noprovision 7: without reboot_script a lost device fails, and the key is named", async () => {
  await using lab = await Lab.open();
  for (const script of [undefined, null, []]) {
    await lab.config({ ...CONFIG, reboot_script: script });
    await lab.job({});
    await lab.fake("ssh", "exit 255");
    assertEquals((await lab.stage("noprovision", "provision")).code, 1);
    const failure = await lab.failure("provision");
    assertEquals(failure.exception_name, "ProvisioningError");
    assertStringIncludes(failure.exception_message ?? "", "reboot_script");
  }
});

Deno.test("02-noprovision 8: an ssh that hangs is ended and counts as a failure", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, reboot_script: ["touch rebooted"] });
  await lab.job({});
  await lab.fake("ssh", '[ "$n" -gt 1 ] || hang');
  assertEquals((await lab.stage("noprovision", "provision")).code, 0);
  assertEquals(lab.clock.elapsed, 30_000 + 60_000 + 10_000);
  assert(await lab.has("rebooted"));
});

Deno.test("noprovision does nothing at all when the job says skip", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ provision_data: { skip: true } });
  assertEquals((await lab.stage("noprovision", "provision")).code, 0);
  assertEquals(await lab.calls(), []);
});

Deno.test("noprovision installs the agent's key where the job gives a password for it", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ test_data: { test_password: "a b$c" } });
  await lab.fake(
    "ssh",
    '[ "$n" -gt 1 ] || { echo "Permission denied (publickey)." >&2; exit 255; }',
  );
  assertEquals((await lab.stage("noprovision", "provision")).code, 0);
  const calls = await lab.calls();
  assertEquals(calls.map(({ program }) => program), ["ssh", "sshpass", "ssh-copy-id", "ssh"]);
  assertEquals(calls[1]?.password, "a b$c");
  assert(calls.every(({ args }) => !args.some((arg) => arg.includes("a b$c"))));
});

Deno.test("a user name that ssh could take for an option is refused", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ test_data: { test_username: "-oProxyCommand=touch pwned" } });
  assertEquals((await lab.stage("noprovision", "provision")).code, 1);
  assertStringIncludes(
    (await lab.failure("provision")).exception_message ?? "",
    "is not a user name",
  );
  assertEquals(await lab.calls(), []);
});

Deno.test("noprovision without device_ip, and without ssh, says which one is missing", async () => {
  await using lab = await Lab.open();
  await lab.job({});
  await lab.config({});
  assertEquals((await lab.stage("noprovision", "provision")).code, 1);
  assertStringIncludes((await lab.failure("provision")).exception_message ?? "", "'device_ip'");
  await lab.config({ ...CONFIG, reboot_script: ["touch rebooted"] });
  await lab.remove("ssh");
  assertEquals((await lab.stage("noprovision", "provision")).code, 1);
  assertStringIncludes(
    (await lab.failure("provision")).exception_message ?? "",
    "'ssh' could not be started: Cannot start ssh: no such program in PATH",
  );
  assert(!await lab.has("rebooted"));
});
