import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { rebootingPreset } from "../../connectors/oemscript/presets.ts";
import checkFreeSpace from "../../connectors/oemscript/templates/check_free_space.sh" with {
  type: "text",
};
import { recoveryPartition } from "../../connectors/support/oem_partitions.ts";
import { mayMount, SmallDisk } from "../support/small_disk.ts";
import { isInstalled } from "../support/sshd.ts";
import { Lab } from "./support/lab.ts";
import { OEM_CONFIG, openOemDevice, provisionOem, stepsOn } from "./support/oem_device.ts";
import { rawHttpStub } from "./support/stubs.ts";

const ISO = "http://127.0.0.1:1/images/dell-bto-jammy-X10.iso";

const EFI = "c12a7328-f81f-11d2-ba4b-00c04fc93ec9";
const DISKS = JSON.stringify({
  blockdevices: [{
    name: "nvme0n1",
    path: "/dev/nvme0n1",
    type: "disk",
    children: [
      {
        name: "nvme0n1p1",
        path: "/dev/nvme0n1p1",
        type: "part",
        parttype: EFI,
        mountpoint: "/boot/efi",
      },
      { name: "nvme0n1p2", path: "/dev/nvme0n1p2", type: "part", parttype: null, mountpoint: null },
      { name: "nvme0n1p3", path: "/dev/nvme0n1p3", type: "part", parttype: null, mountpoint: "/" },
    ],
  }],
});

/** A device that is installed without trouble, but for `answers`: shell, by a word of the command. */
async function openDevice(lab: Lab, answers: Readonly<Record<string, string>> = {}): Promise<void> {
  const { cwd } = lab;
  await openOemDevice(lab, {
    url: ISO,
    disks: DISKS,
    answers,
    cases: `  "sudo sh -s"*) cat >> ${cwd}/scripts ;;
  *project.cfg*) printf 'ubiquity ubiquity/poweroff boolean true\\nubiquity a/b string c\\n' ;;
  *is-active*) echo inactive; exit 3 ;;`,
  });
  await lab.fake(
    "scp",
    `for to; do :; done; cp "$(eval echo \\\${$(($# - 1))})" "${cwd}/\${to##*:}"`,
  );
  await lab.fake(
    "git",
    `for folder; do :; done; mkdir -p "$folder/.git"; echo "$*" > "$folder/preset"; : > "$folder/.git/x"`,
  );
  await lab.fake("tar", 'exec /usr/bin/tar "$@"');
}

const provision = (lab: Lab, connector = "dell_oemscript") => provisionOem(lab, connector);

Deno.test("09-oemscript 1: Dell's way downloads on the device, pushes presets and restores", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  const { code, stderr } = await provision(lab);
  assertEquals(code, 0, stderr);
  const done = await stepsOn(lab);
  const position = (part: string) => done.findIndex((command) => command.includes(part));
  const order = [
    "sudo reboot",
    `wget --no-verbose --tries=3 -O /home/ubuntu/dell-bto-jammy-X10.iso ${ISO}`,
    "lsblk",
    "sudo sh -s -- /home/ubuntu/dell-bto-jammy-X10.iso /dev/nvme0n1p2",
    "sudo cp -r push_preseed/. /cdrom/",
    "dell-restore-system -y",
    "is-active ubiquity",
    "purge -y ubiquity",
  ].map(position);
  assertEquals(order, [...order].sort((a, b) => a - b));
  assert(!order.includes(-1), done.join("\n"));
  const clones = (await lab.calls("git")).map(({ args }) => args.join(" "));
  assertEquals(clones.length, 4);
  assertStringIncludes(clones.at(-1) ?? "", "-b jammy https://git.launchpad.net/");
  assertStringIncludes(clones.at(-1) ?? "", "oem-fix-misc-cnl-skip-oobe");
  assertStringIncludes(await lab.read("scripts"), "rsync -al --delete");
});

Deno.test("09-oemscript 2: Ubuntu's recovery gets its own presets, a boot entry and a reboot", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  await lab.job({ provision_data: { url: "http://127.0.0.1:1/pc-focal.iso" } });
  const { code, stderr } = await provision(lab, "hp_oemscript");
  assertEquals(code, 0, stderr);
  const clones = (await lab.calls("git")).map(({ args }) => args.join(" ")).join("\n");
  assert(!/no-secureboot|skip-storage/.test(clones), clones);
  const scripts = await lab.read("scripts");
  for (
    const line of [
      'GRUB_DEFAULT="ubuntu-recovery restore"',
      "GRUB_TIMEOUT_STYLE=menu",
      "GRUB_TIMEOUT=5",
    ]
  ) {
    assertStringIncludes(scripts, line);
  }
  assertStringIncludes(scripts, "update-grub");
  const done = await stepsOn(lab);
  assert(done.some((command) => command.includes("nohup reboot")), done.join("\n"));
  assert(!done.some((command) => command.includes("dell-restore-system")));

  // What arrived on the device, unpacked as it does it.
  const unpacked = join(lab.root, "unpacked");
  await Deno.mkdir(unpacked);
  const { success } = await new Deno.Command("tar", {
    args: ["-C", unpacked, "-xzf", join(lab.cwd, "ubuntu-recovery.tar.gz")],
  }).output();
  assert(success);
  const hook = join(unpacked, "scripts/chroot-scripts/fish/00-testflinger-repository");
  assertEquals((await Deno.stat(hook)).mode! & 0o777, 0o755);
  const project = await Deno.readTextFile(join(unpacked, "preseed/project.cfg"));
  assertStringIncludes(project, "ubiquity a/b string c\n");
  assertStringIncludes(project, "ubiquity ubiquity/poweroff boolean false\n");
});

Deno.test("09-oemscript 3: an ISO of a project with Ubuntu's recovery is installed by it, whatever the connector", async () => {
  for (const name of ["stella-jammy.iso", "pc-sutton-X1.iso"]) {
    await using lab = await Lab.open();
    await openDevice(lab);
    await lab.job({ provision_data: { url: `http://127.0.0.1:1/${name}` } });
    assertEquals((await provision(lab, "oemscript")).code, 0);
    assertStringIncludes(await lab.read("scripts"), "ubuntu-recovery restore");
  }
});

Deno.test("09-oemscript 4: a job without an ISO is refused before the device is touched", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  await lab.job({ provision_data: { other: 1 } });
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "'url'");
  assertEquals(await lab.calls(), []);
});

Deno.test("09-oemscript 5: a device that does not let the agent in is reset and waited for", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  await lab.fake("ssh-copy-id", '[ "$n" -gt 1 ]');
  const { code, stderr } = await provision(lab);
  assertEquals(code, 0, stderr);
  assert(await lab.has("reset"));
  assertEquals(lab.clock.paused[0], 90_000);
  assert(!(await stepsOn(lab)).includes("sudo reboot"));
});

Deno.test("09-oemscript 6: a device that cannot be reset is a matter for a person", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  await lab.config({ ...OEM_CONFIG, reboot_script: ["false"] });
  await lab.fake("ssh-copy-id", "exit 1");
  assertEquals((await provision(lab)).code, 46);
});

Deno.test("09-oemscript 7: a device that never returns is given up after 90 minutes", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  await lab.fake("ssh-copy-id", "echo 'No route to host' >&2; exit 1");
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertEquals(lab.clock.elapsed, 5_400_000);
  assertStringIncludes(message, "within 5400 s");
});

Deno.test("a device that goes on running its old system has not rebooted", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, { boot_id: "echo the-same" });
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "the old system is still running");
});

/** Boot ids of a device that reboots when it is told to, and does nothing else that would replace it. */
const REBOOTS_ONCE = {
  "sudo reboot": "touch rebooted",
  boot_id: "ls rebooted 2>/dev/null || echo up",
};

Deno.test("a recovery that never happens is a failure, though the old system takes the key", async () => {
  for (const connector of ["dell_oemscript", "hp_oemscript"]) {
    await using lab = await Lab.open();
    await openDevice(lab, REBOOTS_ONCE);
    const { code, message } = await provision(lab, connector);
    assertEquals(code, 1);
    assertStringIncludes(message, "did not bring up a system within 3600 s");
    assertStringIncludes(message, "the old system is still running");
    assert(!(await stepsOn(lab)).some((command) => command.includes("purge")));
  }
});

Deno.test("an operator's own script that does not recover the device is a failure, too", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, REBOOTS_ONCE);
  await lab.fake("recover", "");
  await lab.config({ ...OEM_CONFIG, oem_recovery_script: "recover" });
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "the old system is still running");
});

Deno.test("a device that does not say which boot it is in has not been seen to reboot", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, { boot_id: "if [ -e asked ]; then exit 255; fi; touch asked; echo first" });
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "it does not say which boot it is in");
});

Deno.test("09-oemscript 8: a download that fails on the device ends it before the recovery", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, { wget: "echo 'ERROR 404: Not Found.' >&2; exit 8" });
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "download the ISO");
  assertStringIncludes(message, "404");
  assert(!(await stepsOn(lab)).some((command) => command.includes("dell-restore-system")));
});

Deno.test("an ISO that the device has no room for is not downloaded", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, { [`sh -s -- ${ISO}`]: "echo 'there is room for 5' >&2; exit 28" });
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertEquals(message, "Cannot download the ISO on the device: there is room for 5");
  assert(!(await stepsOn(lab)).some((command) => command.includes("wget")));
});

Deno.test("an ISO is downloaded where nobody can say whether there is room for it", async () => {
  for (const trouble of ["echo 'sh: not found' >&2; exit 127", "hang"]) {
    await using lab = await Lab.open();
    await openDevice(lab, { [`sh -s -- ${ISO}`]: trouble });
    const { code, stderr } = await provision(lab);
    assertEquals(code, 0, stderr);
  }
});

/** What the device says of its room for a download to which a server gives these answers. */
async function roomFor(file: string, ...answers: readonly string[][]) {
  await using server = rawHttpStub((request) => ({
    head: answers[request.includes(" /moved ") ? 1 : 0] ?? ["HTTP/1.1 404 Not Found"],
    body: new Uint8Array(),
  }));
  const sh = new Deno.Command("sh", {
    args: ["-s", "--", `http://127.0.0.1:${server.port}/a.iso`, file],
    env: { no_proxy: "*" },
    stdin: "piped",
    stderr: "piped",
  }).spawn();
  await new Blob([checkFreeSpace]).stream().pipeTo(sh.stdin);
  const { code, stderr } = await sh.output();
  return { code, said: new TextDecoder().decode(stderr) };
}

Deno.test({
  name: "the room for a download is what is free, and what is there already under its name",
  ignore: !mayMount || !isInstalled("wget"),
  async fn() {
    await using lab = await Lab.open();
    await using disk = await SmallDisk.mount(lab.cwd);
    await disk.leave({ blocks: 100 });
    const file = join(lab.cwd, "a.iso");
    const sized = (bytes: number) => ["HTTP/1.1 200 OK", `Content-Length: ${bytes}`];
    const room = 100 * 4096;
    assertEquals(await roomFor(file, sized(room)), { code: 0, said: "" });
    assertEquals(await roomFor(file, sized(room + 1)), {
      code: 28,
      said: `the ISO has ${room + 1} bytes, and there is room for ${room} in ${lab.cwd}\n`,
    });
    // The redirection is short; what it leads to is not.
    const moved = ["HTTP/1.1 302 Found", "Location: /moved", "Content-Length: 5"];
    assertEquals((await roomFor(file, moved, sized(room + 1))).code, 28);
    await lab.write("a.iso", "x".repeat(10 * 4096));
    assertEquals((await roomFor(file, sized(room))).code, 0);
    assertEquals((await roomFor(file, sized(room + 1))).code, 28);
    // Nobody says how large it is, or how much room there is.
    for (const answers of [[["HTTP/1.1 200 OK"]], []]) {
      assertEquals(await roomFor(file, ...answers), { code: 0, said: "" });
    }
    assertEquals((await roomFor("/nowhere/a.iso", sized(room))).code, 0);
  },
});

Deno.test("09-oemscript 9: a fresh system that never takes the key is given up after an hour", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  // The ones before the recovery are without -f.
  await lab.fake("ssh-copy-id", 'case "$*" in "-f "*) exit 1 ;; esac');
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "within 3600 s");
  const forced = (await lab.calls("ssh-copy-id")).filter(({ args }) => args[0] === "-f");
  assertEquals(forced.length, 21);
  assertEquals(forced[0]?.password, "u");
});

Deno.test("09-oemscript 10: the installer is waited for, and purged once", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, {
    "is-active": `c=$(cat ${lab.cwd}/asked 2>/dev/null | wc -l); echo >> ${lab.cwd}/asked
      if [ "$c" -lt 2 ]; then echo active; else echo inactive; exit 3; fi`,
  });
  const { code, stderr } = await provision(lab);
  assertEquals(code, 0, stderr);
  const done = await stepsOn(lab);
  assertEquals(done.filter((command) => command.includes("is-active")).length, 3);
  assertEquals(done.filter((command) => command.includes("purge")).length, 1);
  assertEquals(lab.clock.paused.filter((pause) => pause === 180_000), [180_000, 180_000]);
});

Deno.test("an installer that cannot be purged does not fail the job", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, { purge: "exit 100" });
  const { code, stderr } = await provision(lab);
  assertEquals(code, 0, stderr);
  assertStringIncludes(stderr, "WARNING: DEVICE CONNECTOR: The installer stays on the device");
});

Deno.test("09-oemscript 11: shell characters in the address of the ISO do nothing", async () => {
  for (const url of ["http://127.0.0.1:1/a.iso;touch x", "http://127.0.0.1:1/$(touch x).iso"]) {
    await using lab = await Lab.open();
    await openDevice(lab);
    await lab.job({ provision_data: { url } });
    const { code, message } = await provision(lab);
    assertEquals(code, 1);
    assertStringIncludes(message, "expected the name of an ISO");
    assertEquals(await lab.calls(), []);
  }
  await using lab = await Lab.open();
  await openDevice(lab);
  await lab.job({ provision_data: { url: "http://127.0.0.1:1/a.iso?x=1;touch%20x&y='" } });
  assertEquals((await provision(lab)).code, 0);
  const wget = (await stepsOn(lab)).find((command) => command.includes("wget")) ?? "";
  const words = await new Deno.Command("sh", {
    args: ["-c", `sudo() { shift; for word; do echo "$word"; done; }; ${wget.split(" && ")[0]}`],
  }).output();
  assertStringIncludes(
    new TextDecoder().decode(words.stdout),
    "\nhttp://127.0.0.1:1/a.iso?x=1;touch%20x&y=%27\n",
  );
});

Deno.test("09-oemscript 12: a key copy that hangs is a failure, and the device is reset", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  await lab.fake("ssh-copy-id", '[ "$n" -gt 1 ] || hang');
  const { code, stderr } = await provision(lab);
  assertEquals(code, 0, stderr);
  assert(await lab.has("reset"));
});

Deno.test("whatever goes wrong with a command on the device is named by the command", async () => {
  for (
    const [word, script, says] of [
      ["wget", "hang", "'wget' was ended after 3600 s"],
      ["lsblk", "printf '\\377rubbish'", "'lsblk' did not say what disks the device has"],
      ["sudo sh -s", "echo 'mount: wrong fs type' >&2; exit 32", "wrong fs type"],
      ["cp -r push", "hang", "copy the presets to the recovery partition: 'cp' was ended"],
      ["dell-restore", "echo 'command not found' >&2; exit 127", "command not found"],
      ["is-active", "hang", "The installer did not end within 3600 s"],
    ] as const
  ) {
    await using lab = await Lab.open();
    await openDevice(lab, { [word]: script });
    const { code, message } = await provision(lab);
    assertEquals(code, 1, word);
    assertStringIncludes(message, says);
  }
  await using lab = await Lab.open();
  await openDevice(lab);
  await lab.remove("ssh");
  assertStringIncludes((await provision(lab)).message, "no such program in PATH");
});

Deno.test("another user than ubuntu, which is all that there is after a recovery, is refused", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  await lab.job({ provision_data: { url: ISO }, test_data: { test_username: "bob" } });
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "'bob'");
  assertEquals(await lab.calls(), []);
});

Deno.test("an ISO with another checksum than the job says is not installed", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, { sha256sum: `echo ${"a".repeat(64)}  x.iso` });
  await lab.job({ provision_data: { url: `${ISO}#sha256=${"b".repeat(64)}` } });
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "is not the right one");
  await lab.job({ provision_data: { url: ISO, sha256: "A".repeat(64) } });
  assertEquals((await provision(lab)).code, 0);
});

Deno.test("certificates are checked unless the job says otherwise, which the log repeats", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  await lab.job({ provision_data: { url: ISO, insecure_download: true } });
  const { stderr } = await provision(lab);
  assertStringIncludes(stderr, "insecure_download is set");
  const wget = (await stepsOn(lab)).find((command) => command.includes("wget")) ?? "";
  assertStringIncludes(wget, "--no-check-certificate");

  // The official server refuses the job's key; a lab has the configuration's.
  await using other = await Lab.open();
  await openDevice(other);
  await other.config({ ...OEM_CONFIG, insecure_download: true });
  assertStringIncludes((await provision(other)).stderr, "insecure_download is set");
});

Deno.test("a local copy of the presets is used without the network", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  const copies = join(lab.root, "presets");
  for (
    const name of [
      "oem-fix-misc-cnl-skip-storage-selecting",
      "oem-fix-misc-cnl-no-secureboot",
      "oem-fix-misc-cnl-misc-for-automation",
      "oem-fix-misc-cnl-skip-oobe-jammy",
    ]
  ) {
    await Deno.mkdir(join(copies, name), { recursive: true });
    await Deno.writeTextFile(join(copies, name, "x"), name);
  }
  await lab.config({ ...OEM_CONFIG, oem_preset_dir: copies });
  const { code, stderr } = await provision(lab);
  assertEquals(code, 0, stderr);
  assertEquals(await lab.calls("git"), []);
  await Deno.remove(join(copies, "oem-fix-misc-cnl-no-secureboot"), { recursive: true });
  assertStringIncludes((await provision(lab)).message, "'oem-fix-misc-cnl-no-secureboot'");
});

Deno.test("an operator's own recovery script is called as the established one was", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  const script = join(lab.root, "bin", "recovery-from-iso.sh");
  await lab.fake("recovery-from-iso.sh", "echo recovering");
  await lab.config({ ...OEM_CONFIG, oem_recovery_script: script });
  const { code, stdout } = await provision(lab, "lenovo_oemscript");
  assertEquals(code, 0);
  assertStringIncludes(stdout, "recovering");
  assertEquals((await lab.calls("recovery-from-iso.sh"))[0]?.args, [
    "--ubr",
    "--dut-iso-url",
    ISO,
    "--inject-ssh-key",
    join(lab.root, "home/.ssh/id_rsa.pub"),
    "-t",
    "10.1.1.1",
  ]);
});

Deno.test("the passwords are in no command line", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  await lab.job({ provision_data: { url: ISO }, test_data: { test_password: "pass-word-7" } });
  assertEquals((await provision(lab)).code, 0);
  for (const { program, args } of await lab.calls()) {
    assert(!args.join(" ").includes("pass-word-7"), `${program} ${args.join(" ")}`);
  }
});

Deno.test("the recovery partition is the one behind the EFI partition of the disk in use", () => {
  assertEquals(recoveryPartition(DISKS), "/dev/nvme0n1p2");
  const part = (name: string, more = {}) => ({ name, path: `/dev/${name}`, type: "part", ...more });
  const disks = (...all: unknown[][]) =>
    JSON.stringify({ blockdevices: all.map((children) => ({ children })) });
  assertEquals(
    recoveryPartition(disks(
      [part("sda1", { parttype: EFI }), part("sda2")],
      [part("sdb10", { mountpoint: "/boot/efi" }), part("sdb11"), part("sdb2")],
    )),
    "/dev/sdb11",
  );
  for (
    const [text, says] of [
      ["rubbish", "did not say"],
      [disks([part("sda1")]), "no EFI system partition"],
      [disks([part("sda1", { parttype: EFI })]), "no recovery partition"],
    ] as const
  ) {
    try {
      recoveryPartition(text);
      throw new Error("was taken");
    } catch (error) {
      assertStringIncludes(String(error), says);
    }
  }
});

Deno.test("an ISO's presets are changed so that the device reboots at the end", () => {
  assertEquals(
    rebootingPreset("# x\nubiquity ubiquity/reboot boolean false\nd-i a/b string c"),
    "# x\nd-i a/b string c\nubiquity ubiquity/reboot boolean true\nubiquity ubiquity/poweroff boolean false\n",
  );
});
