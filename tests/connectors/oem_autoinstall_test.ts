import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "node:path";
import { parse } from "yaml";
import { readToken } from "../../connectors/oem_autoinstall/download_iso.ts";
import { Stopped } from "../../connectors/support/errors.ts";
import { resetPartitions } from "../../connectors/support/oem_partitions.ts";
import { bundledUserData } from "../../connectors/oem_autoinstall.ts";
import { ControlHostService, entry, provisionWith } from "./support/control_host_service.ts";
import { Lab } from "./support/lab.ts";
import { OEM_CONFIG, openOemDevice, provisionOem, stepsOn } from "./support/oem_device.ts";
import { until } from "./support/stubs.ts";

const ISO = "http://127.0.0.1:1/images/noble-oem.iso";
const EFI = "C12A7328-F81F-11D2-BA4B-00C04FC93EC9";

function disks(...parts: Record<string, unknown>[]): string {
  return JSON.stringify({
    blockdevices: [{ name: "sr0", path: "/dev/sr0", type: "rom" }, {
      name: "nvme0n1",
      path: "/dev/nvme0n1",
      type: "disk",
      children: parts.map((part) => ({ type: "part", path: `/dev/${part.name}`, ...part })),
    }],
  });
}

const DISKS = disks(
  { name: "nvme0n1p1", parttype: EFI, fstype: "vfat", partuuid: "efi-uuid" },
  { name: "nvme0n1p2", fstype: "vfat", label: "RESET", partuuid: "reset-uuid" },
  { name: "nvme0n1p3", fstype: "ext4", mountpoint: "/", partuuid: "root-uuid" },
);

const CONTENTS = {
  d: ["'/'", "'/casper'", "'/cloud-configs/grub'", "'/sideloads'"],
  f: ["'/casper/vmlinuz'", "'/casper/initrd'"],
};

/** A device that installs itself without trouble, but for `answers`: shell, by a word of the command. */
async function openDevice(lab: Lab, answers: Readonly<Record<string, string>> = {}): Promise<void> {
  const { cwd } = lab;
  await openOemDevice(lab, {
    url: ISO,
    disks: DISKS,
    answers,
    cases: `  *mime-type*) echo application/x-iso9660-image ;;
  *"-type d"*) printf '%s\\n' ${CONTENTS.d.map((name) => `"${name}"`).join(" ")} ;;
  *"-type f"*) printf '%s\\n' ${CONTENTS.f.map((name) => `"${name}"`).join(" ")} ;;
  *"cat > "*) { echo "== $command"; cat; echo; } >> ${cwd}/written ;;
  "sudo sh -s"*) cat > ${cwd}/script ;;`,
  });
}

const provision = (lab: Lab) => provisionOem(lab, "oem_autoinstall");

async function attach(lab: Lab, files: Readonly<Record<string, string>>): Promise<void> {
  await Deno.mkdir(join(lab.cwd, "attachments/provision"), { recursive: true });
  for (const [name, text] of Object.entries(files)) {
    await Deno.writeTextFile(join(lab.cwd, "attachments/provision", name), text);
  }
}

/** A job for which a control host boots an ISO; what the control host was asked for. */
async function boot(data: Record<string, unknown>, config: Record<string, unknown> = {}) {
  await using lab = await Lab.open();
  await using service = await ControlHostService.open({
    logs: [{ pieces: [entry("booting")] }],
    statuses: [{ status: "completed" }],
  });
  await openDevice(lab);
  const run = await provisionWith(lab, service, {
    connector: "oem_autoinstall",
    data,
    config: { device_ip: "10.1.1.1", reboot_script: ["true"], ...config },
  });
  const isPosted = service.lines.includes("POST /api/v1/provision");
  return {
    run,
    lines: service.lines,
    request: isPosted ? service.request : undefined,
    steps: await stepsOn(lab),
    message: run.code === 0 ? "" : (await lab.failure("provision")).exception_message ?? "",
  };
}

const BOOTSTRAP = {
  control_host_iso_url: "http://isos/b.iso",
  control_host_iso_type: "bootstrap",
};

Deno.test("11-oem-autoinstall 1: a control host is asked to boot an ISO", async () => {
  const { run, request } = await boot(BOOTSTRAP);
  assertEquals(run.code, 0, run.stderr);
  assertEquals(request?.method, "ProvisioningOEM");
  const { kwargs } = request!;
  assertEquals([kwargs.control_host_iso_url, kwargs.control_host_iso_type], [
    "http://isos/b.iso",
    "bootstrap",
  ]);
  assertEquals([kwargs.username, kwargs.password, kwargs.update_user_data], [
    "ubuntu",
    "insecure",
    false,
  ]);
  for (const key of ["meta_data_b64", "user_data_b64", "grub_cfg_b64"]) {
    assertEquals(kwargs[key], null);
  }
});

Deno.test("11-oem-autoinstall 2: a stock ISO comes with user data and a GRUB configuration of ours", async () => {
  const { run, request } = await boot({ ...BOOTSTRAP, control_host_iso_type: "stock" });
  assertEquals(run.code, 0, run.stderr);
  const text = (key: string) =>
    new TextDecoder().decode(Uint8Array.fromBase64(String(request?.kwargs[key])));
  assertEquals(request?.kwargs.meta_data_b64, "");
  const { autoinstall } = parse(text("user_data_b64"));
  assertEquals(autoinstall["user-data"].hostname, "stock-desktop");
  assertEquals(autoinstall["user-data"].users[0].ssh_authorized_keys, ["ssh-rsa AAAA agent"]);
  assertStringIncludes(text("grub_cfg_b64"), "autoinstall ds=nocloud\\;s=/cdrom/cloud-configs/");
});

Deno.test("11-oem-autoinstall 3: a job or a configuration that says too little is refused before any request", async () => {
  for (
    const [data, config] of [
      [{ control_host_iso_url: "http://isos/b.iso" }, {}],
      [{ ...BOOTSTRAP, control_host_iso_type: "x" }, {}],
      [BOOTSTRAP, { device_ip: null }],
    ] as const
  ) {
    const { run, request } = await boot(data, config);
    assertEquals(run.code, 1, run.stderr);
    assertEquals(request, undefined);
  }
});

Deno.test("11-oem-autoinstall 4: with both, the ISO is booted first, and the hook runs once", async () => {
  const { run, lines, steps } = await boot({ ...BOOTSTRAP, url: ISO });
  assertEquals(run.code, 0, run.stderr);
  assertEquals(lines.filter((line) => line.includes("/setup/provisioning")).length, 1);
  assert(lines.includes("POST /api/v1/provision"));
  assert(steps.includes("sudo reboot"));
});

Deno.test("11-oem-autoinstall 5: without attachments the device is installed with files of ours", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  const { code, stderr } = await provision(lab);
  assertEquals(code, 0, stderr);
  const kept = [...Deno.readDirSync(join(lab.cwd, "attachments/provision"))].map(({ name }) =>
    name
  );
  assertEquals(kept.sort(), ["default-user-data", "meta-data", "redeploy.cfg", "user-data"]);
  const done = await stepsOn(lab);
  const order = [
    "lsblk",
    `wget --no-verbose --tries=3 -O /home/ubuntu/noble-oem.iso ${ISO}`,
    "test -s /home/ubuntu/noble-oem.iso",
    "file -b --mime-type",
    "xorriso -indev",
    "mkdir -p /home/ubuntu/redeploy/cloud-configs/redeploy",
    "/home/ubuntu/redeploy/cloud-configs/redeploy/user-data",
    "/home/ubuntu/redeploy/cloud-configs/grub/redeploy.cfg",
    "sudo sh -s -- /home/ubuntu /home/ubuntu/noble-oem.iso /dev/nvme0n1p2 /dev/nvme0n1p1 reset-uuid",
    "sudo reboot",
  ].map((part) => done.findIndex((command) => command.includes(part)));
  assert(!order.includes(-1), done.join("\n"));
  assertEquals(order, [...order].sort((a, b) => a - b));
});

Deno.test("11-oem-autoinstall 6: an attachment that is not there is named before the device is touched", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  await lab.job({ provision_data: { url: ISO, user_data: "nope" } });
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "'nope'");
  assertEquals(await lab.calls(), []);
});

Deno.test("11-oem-autoinstall 7: a name that leads out of the attachments is refused", async () => {
  for (const key of ["redeploy_cfg", "user_data", "token_file", "authorized_keys"]) {
    await using lab = await Lab.open();
    await openDevice(lab);
    await attach(lab, { x: "" });
    await lab.job({ provision_data: { url: ISO, [key]: "../../../etc/passwd" } });
    const { code, message } = await provision(lab);
    assertEquals(code, 1);
    assertStringIncludes(message, "'../../../etc/passwd'");
    assertEquals(await lab.calls(), []);
  }
});

Deno.test("attachments are used under the names that the job gives, or under their fixed ones", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  await attach(lab, {
    mine: "#cloud-config\nmine: 1\n",
    "redeploy.cfg": "set timeout=9\n",
    keys: "ssh-rsa K\n",
  });
  await lab.job({ provision_data: { url: ISO, user_data: "/mine", authorized_keys: "keys" } });
  assertEquals((await provision(lab)).code, 0);
  const written = await lab.read("written");
  for (const text of ["mine: 1", "set timeout=9", "ssh-rsa K", "redeploy/authorized_keys"]) {
    assertStringIncludes(written, text);
  }
  // In the job's folder, too, they have their fixed names.
  for (
    const [name, text] of [
      ["user-data", "#cloud-config\nmine: 1\n"],
      ["redeploy.cfg", "set timeout=9\n"],
      ["authorized_keys", "ssh-rsa K\n"],
    ] as const
  ) {
    assertEquals(await lab.read(`attachments/provision/${name}`), text);
  }
});

Deno.test("11-oem-autoinstall 8: an unsigned kernel is not installed where only signed ones boot", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, { mokutil: "echo 'SecureBoot enabled'" });
  await lab.job({ provision_data: { url: "http://127.0.0.1:1/noble-edge.iso" } });
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "secure boot");
  assert(!(await stepsOn(lab)).some((command) => command.includes("wget")));
});

Deno.test("11-oem-autoinstall 9: an ISO that lacks something is deleted, and nothing is formatted", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, { "-type d": "echo \"'/cloud-configs/grub'\"" });
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "/sideloads");
  const done = await stepsOn(lab);
  assert(done.includes("sudo rm -f /home/ubuntu/noble-oem.iso"));
  assert(!done.some((command) => command.startsWith("sudo sh -s")));
});

Deno.test("what is no ISO is refused and left where it is", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, { "mime-type": "echo text/html" });
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "text/html");
  assert(!(await stepsOn(lab)).some((command) => command.includes("rm -f")));
});

Deno.test("11-oem-autoinstall 10: credentials of a token file are used and seen nowhere", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  await attach(lab, { mytoken: "username: me\ntoken: s3cr3t-t0ken\n" });
  await lab.job({ provision_data: { url: ISO, token_file: "mytoken" } });
  const { code, stderr } = await provision(lab);
  assertEquals(code, 0, stderr);
  const commandLines = (await lab.calls()).map(({ args }) => args.join(" ")).join("\n");
  assert(!`${commandLines}${stderr}`.includes("s3cr3t-t0ken"));
  assertStringIncludes(
    await lab.read("written"),
    "machine 127.0.0.1 login me password s3cr3t-t0ken",
  );
  const done = await stepsOn(lab);
  assertStringIncludes(
    done.find((command) => command.includes("wget")) ?? "",
    "--auth-no-challenge",
  );
  assert(done.some((command) => command.startsWith("rm -rf /home/ubuntu/.testflinger-netrc")));
});

Deno.test("credentials are removed from the device when the download fails, too", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, { wget: "exit 8" });
  await attach(lab, { t: "username: me\ntoken: x1\n" });
  await lab.job({ provision_data: { url: ISO, token_file: "t" } });
  assertEquals((await provision(lab)).code, 1);
  assertEquals((await stepsOn(lab)).at(-1), "rm -rf /home/ubuntu/.testflinger-netrc");
});

Deno.test("credentials are removed from the device when the stage is stopped, too", async () => {
  for (
    const { url, token, program, credentials } of [
      {
        url: ISO,
        token: "username: me\ntoken: x1\n",
        program: "wget",
        credentials: "/home/ubuntu/.testflinger-netrc",
      },
      {
        url: "https://oem-share.canonical.com/share/proj/a/noble-oem.iso",
        token: "[proj]\npass = x1\n",
        program: "rclone --config",
        credentials: "/home/ubuntu/url_token",
      },
    ]
  ) {
    await using lab = await Lab.open();
    const loading = join(lab.root, "loading");
    await openDevice(lab, { [program]: `: > "${loading}"; exec sleep 100000` });
    await attach(lab, { t: token });
    await lab.job({ provision_data: { url, token_file: "t" } });
    const stop = new AbortController();
    const running = lab.stage("oem_autoinstall", "provision", { signal: stop.signal });
    await until(() => Deno.stat(loading).then(() => true, () => false));
    stop.abort(new Stopped("SIGTERM"));
    const { code, stderr } = await running;
    assertEquals(code, 143, stderr);
    const done = await stepsOn(lab);
    const removal = done.lastIndexOf(`rm -rf ${credentials}`);
    assert(removal > done.findIndex((command) => command.includes(program)), done.join("\n"));
  }
});

Deno.test("credentials that cannot be removed from the device are told of", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, { "rm -rf /home/ubuntu/.testflinger": "echo 'read-only' >&2; exit 1" });
  await attach(lab, { t: "username: me\ntoken: x1\n" });
  await lab.job({ provision_data: { url: ISO, token_file: "t" } });
  const { code, stderr } = await provision(lab);
  assertEquals(code, 0, stderr);
  assertStringIncludes(stderr, "Cannot remove the download's credentials from the device");
});

Deno.test("images of the OEM share are copied by rclone, whose configuration is the token", async () => {
  const url = (path: string) => new URL(`https://oem-share.canonical.com/${path}`);
  const source = (path: string) => {
    const token = readToken(url(path), "[x]");
    return token?.kind === "rclone" ? token.source : "";
  };
  assertEquals(source("share/proj/a/b.iso"), "proj:a/b.iso");
  assertEquals(source("partners/proj/share/c/d.iso"), "proj:c/d.iso");

  await using lab = await Lab.open();
  await openDevice(lab);
  await attach(lab, { t: "[proj]\npass = s3cr3t\n" });
  await lab.job({
    provision_data: { url: url("share/proj/a/noble-oem.iso").href, token_file: "t" },
  });
  const { code, stderr } = await provision(lab);
  assertEquals(code, 0, stderr);
  const done = await stepsOn(lab);
  assert(
    done.includes(
      "sudo rclone --config /home/ubuntu/url_token copy proj:a/noble-oem.iso /home/ubuntu/",
    ),
  );
  assert(done.includes("rm -rf /home/ubuntu/url_token"));
});

Deno.test("an image of the OEM share is refused without a token file, before anything is asked for", async () => {
  const { run, lines, steps, message } = await boot({
    ...BOOTSTRAP,
    url: "https://oem-share.canonical.com/share/proj/a/noble-oem.iso",
  });
  assertEquals(run.code, 1);
  assertStringIncludes(message, "'token_file'");
  assertEquals([lines, steps], [[], []]);
});

Deno.test("a token file that does not say who logs in is refused", () => {
  for (const text of ["", "username: me\n", "token: x\n", "password: x\n"]) {
    assertThrows(() => readToken(new URL(ISO), text), Error, "'username: NAME'");
  }
});

Deno.test("11-oem-autoinstall 11: a copy that fails ends it, and the device is not rebooted", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, { "sudo sh -s": "echo 'rsync: No space left' >&2; exit 11" });
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "write the reset partition");
  assertStringIncludes(message, "No space left");
  assert(!(await stepsOn(lab)).includes("sudo reboot"));
});

Deno.test("11-oem-autoinstall 12: a device that cannot be reset is a matter for a person", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  await lab.config({ ...OEM_CONFIG, reboot_script: ["false"] });
  await lab.fake("ssh-copy-id", "exit 1");
  assertEquals((await provision(lab)).code, 46);
});

Deno.test("11-oem-autoinstall 13: a job that names nothing to install is refused", async () => {
  await using lab = await Lab.open();
  await openDevice(lab);
  await lab.job({ provision_data: { update_user_data: true } });
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "neither 'url' nor 'control_host_iso_url'");
  assertEquals(await lab.calls(), []);
});

Deno.test("11-oem-autoinstall 14: the partitions are found by what they are, with numbers of any length", () => {
  assertEquals(resetPartitions(DISKS, "/home/ubuntu"), {
    reset: "/dev/nvme0n1p2",
    resetUuid: "reset-uuid",
    efi: "/dev/nvme0n1p1",
  });
  const twelve = disks(
    { name: "nvme0n1p1", parttype: EFI, fstype: "vfat", partuuid: "a" },
    { name: "nvme0n1p2", fstype: "ntfs", label: "Recovery", partuuid: "b" },
    { name: "nvme0n1p12", fstype: "ext4", mountpoint: "/home/ubuntu", partuuid: "c" },
  );
  assertEquals(resetPartitions(twelve, "/home/ubuntu").reset, "/dev/nvme0n1p2");
});

Deno.test("partitions that are not what they would have to be are not formatted", () => {
  const root = { name: "sda3", fstype: "ext4", mountpoint: "/", partuuid: "r" };
  const efi = { name: "sda1", parttype: EFI, partuuid: "e" };
  for (
    const [text, says] of [
      ["rubbish", "did not say"],
      [disks(efi, { name: "sda2", fstype: "vfat" }), "no ext4 file system"],
      [disks({ name: "sda2", fstype: "vfat", partuuid: "x" }, root), "no EFI system partition"],
      [disks(efi, root), "no reset partition"],
      [
        disks(efi, { name: "sda2", fstype: "ext4", label: "data", partuuid: "x" }, root),
        "is not formatted",
      ],
      [disks(efi, { name: "sda2", fstype: "vfat" }, root), "no PARTUUID"],
    ] as const
  ) assertThrows(() => resetPartitions(text, "/home/ubuntu"), Error, says);
});

Deno.test("a device that goes on running its old system has not been installed", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, { boot_id: "echo the-same" });
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "the old system is still running");
});

Deno.test("an ISO with another checksum than the job says is not installed", async () => {
  await using lab = await Lab.open();
  await openDevice(lab, { sha256sum: `echo ${"a".repeat(64)} x` });
  await lab.job({ provision_data: { url: `${ISO}#sha256=${"b".repeat(64)}` } });
  assertStringIncludes((await provision(lab)).message, "not the right one");
  assert(!(await stepsOn(lab)).some((command) => command.startsWith("sudo sh -s")));
});

Deno.test("our user data is YAML with the job's user, whatever its password", async () => {
  const login = {
    user: "bob",
    password: `p"w: #'x\\@USER@`,
    keys: ["ssh-rsa A b", "ssh-ed25519 C"],
  };
  for (const which of ["default", "stock"] as const) {
    const text = bundledUserData(which, login);
    assert(text.startsWith("#cloud-config\n"));
    const { autoinstall } = parse(text);
    assertEquals(autoinstall.version, 1);
    const user = autoinstall["user-data"].users[0];
    assertEquals([user.name, user.plain_text_passwd], ["bob", login.password]);
    assertEquals(user.ssh_authorized_keys, login.keys);
    for (const { path, encoding, content } of autoinstall["user-data"].write_files) {
      if (encoding === "b64") {
        const file = await Deno.makeTempFile();
        await Deno.writeFile(file, Uint8Array.fromBase64(content));
        assert((await new Deno.Command("shellcheck", { args: [file] }).output()).success, path);
        await Deno.remove(file);
      }
    }
    for (const command of autoinstall["late-commands"] ?? []) {
      const { success } = await new Deno.Command("sh", { args: ["-n", "-c", command] }).output();
      assert(success, command);
    }
  }
  const { autoinstall } = parse(bundledUserData("stock", login));
  assertEquals(
    autoinstall.storage.layout.match.find(({ path }: { path: string }) => path === "/dev/sda"),
    {
      path: "/dev/sda",
      size: "largest",
    },
  );
});
