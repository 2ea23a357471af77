import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Lab } from "./support/lab.ts";
import { httpStub } from "./support/stubs.ts";

const CONFIG = {
  agent_name: "a1",
  device_ip: "10.1.1.1",
  reboot_script: ["touch rebooted"],
  recovery_cmds: ["sudo prepare 'it'", "sudo recover --now"],
};

/** A device with a new boot id after `sudo recover`, that is Ubuntu Classic. */
const CLASSIC = `
for last; do :; done
case "$last" in
*boot_id) if [ -e recovered ]; then echo new; else echo old; fi;;
*recover*) touch recovered;;
"snap model") echo "brand  x"; echo "model  generic-classic";;
esac`;

/** The remote commands that were run, in order. */
async function remote(lab: Lab): Promise<(string | undefined)[]> {
  return (await lab.calls("ssh")).map(({ args }) => args.at(-1));
}

Deno.test("10-oemrecovery 1: runs the commands, waits 90 s, and copies the key again", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ provision_data: { skip: false } });
  await lab.fake("ssh", CLASSIC);
  assertEquals((await lab.stage("oemrecovery", "provision")).code, 0);
  assertEquals(await remote(lab), [
    "cat /proc/sys/kernel/random/boot_id",
    "sudo prepare 'it'",
    "sudo recover --now",
    "cat /proc/sys/kernel/random/boot_id",
    "snap model",
  ]);
  assertEquals((await lab.calls("ssh-copy-id")).length, 2);
  assertEquals((await lab.calls()).at(-1)?.program, "ssh-copy-id");
  assertEquals(lab.clock.paused, [90_000]);
  assert(!await lab.has("rebooted"));
});

Deno.test("10-oemrecovery 2: a Core device is ready when snapd has initialized it", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({});
  await lab.fake(
    "ssh",
    `for last; do :; done
     case "$last" in
     "snap model") echo "model  ubuntu-core-22-amd64";;
     "snap changes") if [ -e asked ]; then s=Done; else s=Doing; touch asked; fi
       echo "1  $s  today  -  Initialize device";;
     esac`,
  );
  assertEquals((await lab.stage("oemrecovery", "provision")).code, 0);
  assertEquals(lab.clock.paused, [90_000, 90_000]);
});

Deno.test("10-oemrecovery 3: a device that does not take the key is reset and waited for first", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({});
  await lab.fake("ssh", CLASSIC);
  await lab.fake("ssh-copy-id", '[ "$n" -gt 1 ]');
  assertEquals((await lab.stage("oemrecovery", "provision")).code, 0);
  assert(await lab.has("rebooted"));
  assertEquals(await remote(lab), [
    "snap model",
    "cat /proc/sys/kernel/random/boot_id",
    "sudo prepare 'it'",
    "sudo recover --now",
    "cat /proc/sys/kernel/random/boot_id",
    "snap model",
  ]);
});

Deno.test("a key copy that hangs counts as one that failed", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({});
  await lab.fake("ssh", CLASSIC);
  await lab.fake("ssh-copy-id", '[ "$n" -gt 1 ] || hang');
  assertEquals((await lab.stage("oemrecovery", "provision")).code, 0);
  assert(await lab.has("rebooted"));
  assertEquals(lab.clock.elapsed, 60_000 + 90_000 + 90_000);
});

Deno.test("10-oemrecovery 4: a reset that fails needs a person", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, reboot_script: ["false"] });
  await lab.job({});
  await lab.fake("ssh-copy-id", "exit 1");
  assertEquals((await lab.stage("oemrecovery", "provision")).code, 46);
});

Deno.test("10-oemrecovery 5: a command that fails is reported with what it said", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({});
  await lab.fake("ssh", 'case "$*" in *recover*) echo boom; exit 3;; esac');
  const { code, stdout } = await lab.stage("oemrecovery", "provision");
  assertEquals(code, 1);
  assertStringIncludes(stdout, "boom\n");
  const message = (await lab.failure("provision")).exception_message ?? "";
  assertStringIncludes(message, "exit status 3: boom");
  assert(!message.includes("b'boom'"));
});

Deno.test("10-oemrecovery 6: a command that takes more than 600 s is ended, and fails", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({});
  await lab.fake("ssh", 'case "$*" in *prepare*) hang;; esac');
  assertEquals((await lab.stage("oemrecovery", "provision")).code, 1);
  assertEquals(lab.clock.elapsed, 600_000);
  assertStringIncludes((await lab.failure("provision")).exception_message ?? "", "after 600 s");
});

Deno.test("10-oemrecovery 7: a device that is never ready is given up after an hour", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({});
  await lab.fake("ssh", 'case "$*" in *"snap "*) echo refused >&2; exit 255;; esac');
  assertEquals((await lab.stage("oemrecovery", "provision")).code, 1);
  assertEquals(lab.clock.elapsed, 3_600_000);
  assertStringIncludes((await lab.failure("provision")).exception_message ?? "", "refused");
});

Deno.test("a device on which nothing happened is not taken for a recovered one", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({});
  await lab.fake(
    "ssh",
    'case "$*" in *boot_id) echo same;; *"snap model") echo "model generic-classic";; esac',
  );
  assertEquals((await lab.stage("oemrecovery", "provision")).code, 1);
  assertStringIncludes(
    (await lab.failure("provision")).exception_message ?? "",
    "the old system is still running",
  );
});

Deno.test("10-oemrecovery 8: the control host is told who gets the USB stick", async () => {
  await using lab = await Lab.open();
  await using host = httpStub(() => new Response());
  await lab.config({ ...CONFIG, control_host: "127.0.0.1", control_host_port: host.port });
  await lab.job({});
  await lab.fake("ssh", CLASSIC);
  assertEquals((await lab.stage("oemrecovery", "provision")).code, 0);
  assertEquals(host.requests, [{
    method: "POST",
    path: "/api/v1/system/setup/provisioning",
    body: '{"usb":"DUT"}',
    contentType: "application/json",
  }]);
});

Deno.test("10-oemrecovery 9: without recovery_cmds there is nothing to do, which is a failure", async () => {
  await using lab = await Lab.open();
  for (const commands of [undefined, null, []]) {
    await lab.config({ ...CONFIG, recovery_cmds: commands });
    await lab.job({});
    assertEquals((await lab.stage("oemrecovery", "provision")).code, 1);
    assertStringIncludes(
      (await lab.failure("provision")).exception_message ?? "",
      "'recovery_cmds'",
    );
  }
});

Deno.test("10-oemrecovery 10: a password with blanks and dollars works, and is in no argument", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ test_data: { test_username: "me", test_password: "a b$c" } });
  await lab.fake("ssh", CLASSIC);
  const { code, stdout, stderr } = await lab.stage("oemrecovery", "provision");
  assertEquals(code, 0);
  const calls = await lab.calls();
  const passwords = calls.filter(({ program }) => program === "sshpass").map((c) => c.password);
  assertEquals(new Set(passwords), new Set(["a b$c"]));
  assert(!calls.some(({ args }) => args.some((arg) => arg.includes("a b$c"))));
  assert(!`${stdout}${stderr}`.includes("a b$c"));
});

Deno.test("ssh_public_key names the key that the device gets", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, ssh_public_key: "/keys/lab.pub" });
  await lab.job({});
  await lab.fake("ssh", CLASSIC);
  assertEquals((await lab.stage("oemrecovery", "provision")).code, 0);
  const copies = await lab.calls("ssh-copy-id");
  assertEquals(copies.map(({ args }) => args.slice(0, 2)), [
    ["-i", "/keys/lab.pub"],
    ["-i", "/keys/lab.pub"],
  ]);
});

Deno.test("the last command may lose the connection, if the device really went away", async () => {
  for (const [stays, code] of [[false, 0], [true, 1]] as const) {
    await using lab = await Lab.open();
    await lab.config(CONFIG);
    await lab.job({});
    await lab.fake(
      "ssh",
      `for last; do :; done
       case "$last" in
       *recover*) echo "Connection closed" >&2; exit 255;;
       /bin/true) ${stays ? "exit 0" : "exit 255"};;
       "snap model") echo "model generic-classic";;
       esac`,
    );
    assertEquals((await lab.stage("oemrecovery", "provision")).code, code);
  }
});

Deno.test("a device that answers for a while after the connection was lost has gone away all the same", async () => {
  for (
    const [config, meanwhile] of [
      // Its ssh server is among the last to go.
      [{}, "exit 255"],
      // It was back before anybody looked.
      [{}, "touch back"],
      [{ ready_cmd: "true" }, "exit 255"],
    ] as const
  ) {
    await using lab = await Lab.open();
    await lab.config({ ...CONFIG, recovery_cmds: ["sudo recover --now"], ...config });
    await lab.job({});
    await lab.fake(
      "ssh",
      `for last; do :; done
       case "$last" in
       *recover*) echo "Connection closed by remote host" >&2; exit 255;;
       /bin/true) looks=$(cat looks 2>/dev/null)x; echo $looks > looks
         [ "$looks" != xxx ] || { touch gone; ${meanwhile}; };;
       *boot_id) if [ -e gone ]; then echo new; else echo old; fi;;
       "snap model") echo "model  generic-classic";;
       esac`,
    );
    const { code, stderr } = await lab.stage("oemrecovery", "provision");
    assertEquals(code, 0, stderr);
    assertEquals(lab.clock.paused, [5_000, 5_000, 90_000]);
  }
});

Deno.test("10-oemrecovery correction: a recovery that does not reboot is complete when ready_cmd says so", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, ready_cmd: "test -e /ready" });
  await lab.job({});
  await lab.fake("ssh", 'case "$*" in *boot_id) echo same;; esac');
  assertEquals((await lab.stage("oemrecovery", "provision")).code, 0);
  assertEquals(lab.clock.paused, [90_000]);
  assertEquals(await remote(lab), ["sudo prepare 'it'", "sudo recover --now", "test -e /ready"]);
});

Deno.test("10-oemrecovery correction: recovery_reboots: false takes the system that answers for the recovered one", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, recovery_reboots: false });
  await lab.job({});
  await lab.fake(
    "ssh",
    'case "$*" in *boot_id) echo same;; *"snap model") echo "model generic-classic";; esac',
  );
  assertEquals((await lab.stage("oemrecovery", "provision")).code, 0);
  assertEquals(lab.clock.paused, [90_000]);
  assert(!(await remote(lab)).some((command) => command?.includes("boot_id")));
});

Deno.test("ready_cmd decides in place of snapd", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, ready_cmd: "test -e /ready" });
  await lab.job({});
  await lab.fake(
    "ssh",
    'case "$*" in *"test -e /ready") [ -e once ] || { touch once; exit 1; };; esac',
  );
  assertEquals((await lab.stage("oemrecovery", "provision")).code, 0);
  assertEquals(lab.clock.paused, [90_000, 90_000]);
  assert(!(await remote(lab)).includes("snap model"));
});

Deno.test("a program that is missing on this host fails by name, without a reset", async () => {
  for (const program of ["ssh", "sshpass", "ssh-copy-id"]) {
    await using lab = await Lab.open();
    await lab.config(CONFIG);
    await lab.job({});
    await lab.remove(program);
    assertEquals((await lab.stage("oemrecovery", "provision")).code, 1, program);
    const failure = await lab.failure("provision");
    assertEquals(failure.exception_name, "ProvisioningError");
    assertStringIncludes(failure.exception_message ?? "", program);
    assert(!await lab.has("rebooted"), program);
  }
});
