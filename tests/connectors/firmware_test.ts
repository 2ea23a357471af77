import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import {
  changes,
  CONFIG,
  NEWER,
  openMachine,
  SUCCESS,
  update,
  updateOf,
} from "./support/firmware_machine.ts";
import { Lab } from "./support/lab.ts";

Deno.test("16-firmware-update 1: an update is installed, the device rebooted, the result checked", async () => {
  await using lab = await Lab.open();
  await openMachine(lab);
  await lab.job(update({ version: "latest" }));
  assertEquals((await updateOf(lab)).code, 0);
  assertEquals(await changes(lab), [
    "sudo fwupdmgr upgrade abc123 -y --no-reboot-check",
    "sudo reboot",
    "sudo fwupdmgr get-results abc123 --json",
  ]);
});

Deno.test("16-firmware-update 2: another version than latest or previous is refused before anything is installed", async () => {
  await using lab = await Lab.open();
  await openMachine(lab);
  await lab.job(update({ version: "2.85" }));
  const { code, message } = await updateOf(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "'latest'");
  assertEquals((await lab.calls("ssh")).filter(({ args }) => args.at(-1)?.includes("apt")), []);
});

Deno.test("16-firmware-update 3: ignore_failure makes a refusal a success", async () => {
  for (const ignore_failure of [true, "true"]) {
    await using lab = await Lab.open();
    await openMachine(lab);
    await lab.job(update({ version: "2.85", ignore_failure }));
    const { code, stderr } = await updateOf(lab);
    assertEquals(code, 0);
    assertStringIncludes(stderr, "ignore_failure");
  }
});

Deno.test("16-firmware-update 4: an upgrade that fails is a failure", async () => {
  await using lab = await Lab.open();
  await openMachine(lab, { upgrade: "echo 'no AC power' >&2; exit 2" });
  await lab.job(update({ version: "latest" }));
  const { code, message } = await updateOf(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "no AC power");
  assert(!await lab.has("rebooted"), "the device was rebooted for nothing");
});

Deno.test("16-firmware-update 5: a device that has the newest version is left alone", async () => {
  await using lab = await Lab.open();
  await openMachine(lab, { version: "2.91" });
  await lab.job(update({ version: "latest" }));
  assertEquals((await updateOf(lab)).code, 0);
  assertEquals(await changes(lab), []);
});

Deno.test("16-firmware-update 6: an update that failed at the boot is a failure", async () => {
  await using lab = await Lab.open();
  await openMachine(lab, { results: { UpdateState: 3, Releases: [{ Version: "2.91" }] } });
  await lab.job(update({ version: "latest" }));
  const { code, message } = await updateOf(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "System Firmware did not become version 2.91: failed");
});

Deno.test("a device that keeps no results is judged by its version", async () => {
  await using lab = await Lab.open();
  await openMachine(lab, { results: {} });
  await lab.job(update({ version: "latest" }));
  assertEquals((await updateOf(lab)).code, 1);
  await Deno.remove(join(lab.cwd, "rebooted"));
  await lab.write(
    "devices.json",
    JSON.stringify({
      Devices: [{ DeviceId: "abc123", Version: "2.90", Flags: ["updatable"], Releases: [NEWER] }],
    }),
  );
  await lab.wrap(
    "ssh",
    `for c; do :; done; case "$c" in *reboot) sed -i s/2.90/2.91/ ${lab.cwd}/devices.json ;; esac`,
  );
  assertEquals((await updateOf(lab)).code, 0);
});

Deno.test("where the results do not say how an update ended, the version that the device has decides", async () => {
  const boots = "*boot_id) wc -l < reboots 2>/dev/null || echo none; exit ;;";
  for (
    const [state, becomes, code, says, reboots] of [
      // Unknown, and pending though the boot has been.
      [0, "2.91", 0, "", 1],
      [0, "2.90", 1, "unknown", 1],
      [1, "2.91", 0, "", 1],
      [1, "2.90", 1, "pending", 1],
      // Still said after the second reboot.
      [4, "2.91", 0, "", 2],
      [4, "2.90", 1, "needs a reboot", 2],
      // These do say it.
      [3, "2.91", 1, "failed", 1],
      [5, "2.91", 1, "failed, try again", 1],
    ] as const
  ) {
    await using lab = await Lab.open();
    await openMachine(lab, { results: { UpdateState: state, Releases: [{ Version: "2.91" }] } });
    await lab.wrap(
      "ssh",
      `cd ${lab.cwd}; for c; do :; done
       case "$c" in
         ${boots}
         *reboot) echo >> reboots; sed -i 's/"Version":"2.90"/"Version":"${becomes}"/' devices.json
           exit 255 ;;
       esac`,
    );
    await lab.job(update({ version: "latest" }));
    const updated = await updateOf(lab);
    assertEquals(updated.code, code, updated.stderr);
    assertStringIncludes(updated.message, says);
    assertEquals((await lab.read("reboots")).length, reboots);
  }
});

Deno.test("an update that needs another reboot gets one", async () => {
  await using lab = await Lab.open();
  await openMachine(lab, { results: { UpdateState: 4 } });
  await lab.write("second", JSON.stringify(SUCCESS));
  await lab.wrap(
    "ssh",
    `for c; do :; done
     case "$c" in
       *boot_id) wc -l < ${lab.cwd}/reboots 2>/dev/null || echo none; exit ;;
       *reboot) echo >> ${lab.cwd}/reboots
         [ "$(wc -l < ${lab.cwd}/reboots)" -lt 2 ] || cp ${lab.cwd}/second ${lab.cwd}/results.json
         exit 255 ;;
     esac`,
  );
  await lab.job(update({ version: "latest" }));
  assertEquals((await updateOf(lab)).code, 0);
  assertEquals((await lab.read("reboots")).length, 2);
});

Deno.test("version previous installs the newest of the older releases", async () => {
  await using lab = await Lab.open();
  await openMachine(lab, { results: { UpdateState: 2, Releases: [{ Version: "2.85" }] } });
  await lab.job(update({ version: "previous" }));
  assertEquals((await updateOf(lab)).code, 0);
  assertEquals(
    (await changes(lab))[0],
    [
      'cd "$(mktemp -d)"',
      "sudo fwupdmgr download https://fw.example/2.85.cab",
      "sudo fwupdmgr install ./2.85.cab -y --no-reboot-check --allow-older",
    ].join(" && "),
  );
});

Deno.test("16-firmware-update 7: a machine of no known vendor is refused with what it says of itself", async () => {
  await using lab = await Lab.open();
  await openMachine(lab, { vendor: "Default string", type: "3" });
  await lab.job(update({ version: "latest" }));
  const { code, message } = await updateOf(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "not supported");
  assertStringIncludes(message, "'Default string'");
  assertStringIncludes(message, "type 3");
});

Deno.test("firmware_method takes the place of what the machine says of itself", async () => {
  await using lab = await Lab.open();
  await openMachine(lab, { vendor: "Default string", type: "9" });
  await lab.config({ ...CONFIG, firmware_method: "lvfs" });
  await lab.job(update({ version: "latest" }));
  assertEquals((await updateOf(lab)).code, 0);
});

Deno.test("16-firmware-update 8: a machine that cannot be read or reached is a failure with an error file", async () => {
  await using unreadable = await Lab.open();
  await openMachine(unreadable);
  await unreadable.wrap("ssh", 'case "$*" in *chassis_vendor*) exit 1 ;; esac');
  await unreadable.job(update({ version: "latest" }));
  const first = await updateOf(unreadable);
  assertEquals(first.code, 1);
  assertStringIncludes(first.message, "DMI");

  await using unreachable = await Lab.open();
  await openMachine(unreachable);
  await unreachable.fake("ssh", "echo 'Connection refused' >&2; exit 255");
  await unreachable.job(update({ version: "latest" }));
  const second = await updateOf(unreachable);
  assertEquals(second.code, 1);
  assertStringIncludes(second.message, "within 60 s");
  assertEquals(unreachable.clock.elapsed, 60_000);
});

Deno.test("16-firmware-update 9: an unknown chassis type is a failure that says so", async () => {
  await using lab = await Lab.open();
  await openMachine(lab, { type: "99" });
  await lab.job(update({ version: "latest" }));
  const { code, message } = await updateOf(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "type 99");
  assertEquals((await lab.failure("firmware_update")).exception_name, "FirmwareUpdateError");
});

Deno.test("16-firmware-update 10: an HPE server without a way to its BMC is refused", async () => {
  await using lab = await Lab.open();
  await openMachine(lab, { vendor: "HPE", type: "17" });
  await lab.job(update({ version: "latest" }));
  const { code, message } = await updateOf(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "BMC");
  assertStringIncludes(message, "'maas_user'");
});

Deno.test("16-firmware-update 13: a job without firmware_update_data is refused clearly", async () => {
  for (const job of [{}, { firmware_update_data: null }, update({ ignore_failure: false })]) {
    await using lab = await Lab.open();
    await openMachine(lab);
    await lab.job(job);
    const { code, message } = await updateOf(lab);
    assertEquals(code, 1);
    assertStringIncludes(message, "firmware_update_data");
    assertEquals(await lab.calls("ssh"), []);
  }
});

Deno.test("16-firmware-update 14: a dry run says what it would do, and does nothing", async () => {
  await using lab = await Lab.open();
  await openMachine(lab);
  await lab.config({ ...CONFIG, firmware_dry_run: true });
  await lab.job(update({ version: "latest" }));
  const { code, stderr } = await updateOf(lab);
  assertEquals(code, 0);
  assertStringIncludes(stderr, "fwupdmgr upgrade abc123");
  assertEquals(await changes(lab), []);
});

Deno.test("the device is waited for until another system answers than the one that was rebooted", async () => {
  await using lab = await Lab.open();
  await openMachine(lab);
  await lab.wrap("ssh", 'case "$*" in *boot_id) echo always-the-same; exit ;; esac');
  await lab.job(update({ version: "latest" }));
  const { code, message } = await updateOf(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "the old system is still running");
});

Deno.test("each program of the update that is missing, hangs or prints rubbish is one clear failure", async () => {
  const rubbish = "printf 'not \\377 JSON'";
  for (
    const [command, behaviour, says] of [
      ["fwupdmgr get-devices", rubbish, "did not answer with the devices"],
      ["fwupdmgr get-devices", "hang", "was ended after 30 s"],
      ["fwupdmgr --version", "echo 'sudo: fwupdmgr: command not found' >&2; exit 1", "not found"],
      ["install -y fwupd", "exit 100", "exit status 100"],
      ["fwupdmgr get-results", rubbish, "no result"],
      ["fwupdmgr upgrade", "hang", "was ended after 900 s"],
    ] as const
  ) {
    await using lab = await Lab.open();
    await openMachine(lab);
    const fake = await lab.original("ssh");
    await lab.fake("ssh", `case "$*" in *"${command}"*) ${behaviour}; exit ;; esac\n${fake}`);
    await lab.job(update({ version: "latest" }));
    const { code, message } = await updateOf(lab);
    assertEquals(code, 1, command);
    assertStringIncludes(message, says);
  }
});
