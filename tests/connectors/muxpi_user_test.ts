/** What muxpi knows of images, and how their user comes into them. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { parse } from "yaml";
import { withPartitions } from "../../connectors/muxpi/storage.ts";
import { imageType } from "../../connectors/support/image/image_type.ts";
import { ControlHost } from "./support/control_host.ts";
import { bench, CONFIG, exists, message, names, provision, UBUNTU } from "./support/muxpi.ts";

/** What some kinds of images have in their files. */
const contents: Record<string, (host: ControlHost) => Promise<void>> = {
  async tegra(host) {
    assertEquals(
      await host.read("sda1", "boot/grub/grub.cfg"),
      "set timeout=0\nset timeout_style=menu\n set timeout=0\n",
    );
    assertEquals(
      await host.read("sda1", "etc/default/grub"),
      "GRUB_TIMEOUT=0\nGRUB_TIMEOUT_STYLE=x\n",
    );
    assertEquals(await host.read("sda1", "etc/default/grub.d/50-x.cfg"), "GRUB_TIMEOUT=0\n");
  },
  async "pi-desktop"(host) {
    if (!await host.has("sda1", "preseed.cfg")) {
      const data = parse(await host.read("sda1", "var/lib/cloud/seed/nocloud-net/user-data"));
      assertEquals(data.packages, ["openssh-server"]);
      assertStringIncludes(data.write_files[0].content, "AutomaticLogin=ubuntu");
      return;
    }
    const answers = await host.read("sda1", "preseed.cfg");
    assertStringIncludes(answers, "d-i passwd/user-password password ubuntu\n");
    assertStringIncludes(answers, "d-i passwd/username string ubuntu\n");
    const unit = await host.read("sda1", "etc/systemd/system/oem-config.service");
    assertStringIncludes(unit, "debconf-set-selections /preseed.cfg; do sleep 30; done");
    const link = join(
      host.root,
      "parts/sda1/etc/systemd/system/oem-config.target.wants/NetworkManager.service",
    );
    assertEquals(await Deno.readLink(link), "/lib/nm");
  },
  async core20(host) {
    const config = parse(await host.read("sda1", "data/etc/cloud/cloud.cfg.d/99_nocloud.cfg"));
    assertEquals(config.datasource_list, ["NoCloud", "None"]);
    const [user] = parse(config.datasource.NoCloud["user-data"]).users;
    assertEquals(user.name, "ubuntu");
    assertEquals(user.plain_text_passwd, "ubuntu");
    assertEquals(user.sudo, "ALL=(ALL) NOPASSWD:ALL");
  },
};

Deno.test("12-muxpi 2: an ubuntu image is recognized without any waiting", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  const run = await provision(lab);
  assertStringIncludes(run.stderr, "The image is of the type ubuntu: creating user ubuntu");
  // The settling of the hardware, and the pause before the boot check: nothing in between.
  assertEquals(lab.clock.paused, [5_000, 10_000]);
  const seed = "var/lib/cloud/seed/nocloud-net";
  assertEquals(parse(await host.read("sda2", `${seed}/user-data`)), {
    password: "ubuntu",
    chpasswd: { expire: false },
    ssh_pwauth: true,
    ssh_authorized_keys: ["ssh-rsa AAAA agent"],
  });
  assertMatch(await host.read("sda2", `${seed}/user-data`), /^#cloud-config\n/);
  assertMatch(await host.read("sda2", `${seed}/meta-data`), /^instance-id: \S+\n$/);
  assert(!await host.has("sda2", "etc/cloud/cloud.cfg.d/99-fake_cloud.cfg"));
  assertEquals(await host.read("sda2", "etc/hostname"), "ubuntu");
});

for (
  const [number, type] of [
    ["2404", "ce-oem-iot-24-and-beyond"],
    ["2204", "ce-oem-iot-before-24"],
    ["24", "ce-oem-iot-24-and-beyond"],
    ["20", "ce-oem-iot-before-24"],
  ]
) {
  Deno.test(`12-muxpi 8: an IoT image with the build stamp ${number} is ${type}`, async () => {
    const facts = (stamp: string) => ({ signs: new Set<string>(), stamp, version: "" });
    for (const kind of ["classic-desktop", "core"]) {
      assertEquals(imageType(facts(`iot-havana-x-lemon-${kind}-${number}-x01`)), type);
    }
    const { lab, host } = await bench([
      { name: "sda1", label: "system-boot" },
      {
        name: "sda2",
        label: "writable",
        files: {
          ".disk/info": `Built today\niot-havana-x-lemon-classic-server-${number}-x01-20240101\n`,
          "etc/hostname": "x",
        },
      },
    ]);
    await using _lab = lab;
    const run = await provision(lab);
    assertEquals(run.code, 0, run.stderr);
    assertStringIncludes(run.stderr, `of the type ${type}:`);
    const userData = type === "ce-oem-iot-before-24"
      ? await host.read("sda1", "user-data")
      : await host.read("sda2", "var/lib/cloud/seed/nocloud/user-data");
    const [user] = parse(userData).users;
    assertEquals([user.name, user.uid, user.shell], ["ubuntu", 1000, "/bin/bash"]);
    assertEquals(user.lock_passwd, false);
    for (const group of ["adm", "dialout", "sudo", "render"]) assert(user.groups.includes(group));
    assertEquals(
      await host.read("sda2", "etc/sudoers.d/ubuntu"),
      "ubuntu ALL=(ALL) NOPASSWD:ALL\n",
    );
    // The row of plain ubuntu images, too.
    assertStringIncludes(
      await host.read("sda2", "var/lib/cloud/seed/nocloud-net/user-data"),
      "password: ubuntu",
    );
  });
}

Deno.test("12-muxpi 9: with create_user false nothing is mounted", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await lab.job({ provision_data: { use_attachment: "i.img", create_user: false } });
  assertEquals((await provision(lab)).code, 0);
  const done = await host.done();
  assert(!done.some((line) => line.startsWith("mount") || line.includes("-J")), done.join("\n"));
  assertEquals(done.at(-1), "stm -dut");
});

Deno.test("12-muxpi correction 1: mounted_image_script finds the image mounted, post_provision_script does not", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await lab.config({
    ...CONFIG,
    mounted_image_script: ["cp /mnt/a1/writable/etc/hostname seen; echo looked in"],
    post_provision_script: ["ls /mnt/a1/writable > after; stm -x"],
  });
  const { code, stdout } = await provision(lab);
  assertEquals(code, 0);
  assertStringIncludes(stdout, "looked in\n");
  assertEquals(await Deno.readTextFile(join(host.root, "seen")), "ubuntu");
  assertEquals(await Deno.readTextFile(join(host.root, "after")), "");
  assertEquals((await host.done()).slice(-2), ["stm -x", "stm -dut"]);
});

Deno.test("12-muxpi correction 1: mounted_image_script has the image mounted also without a user to create", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await lab.config({ ...CONFIG, mounted_image_script: ["touch /mnt/a1/writable/patched"] });
  await lab.job({ provision_data: { use_attachment: "i.img", create_user: false } });
  assertEquals((await provision(lab)).code, 0);
  assert(await host.has("sda2", "patched"));
  assert(!await host.has("sda2", "var/lib/cloud/seed/nocloud-net/user-data"));
  assertEquals(await host.mounted(), []);
});

Deno.test("the job's user and password are those of the image, and its password stays secret", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  const password = "s3cret: 'x' \"y\" #z";
  await lab.job({
    provision_data: { use_attachment: "i.img" },
    test_data: { test_username: "bob", test_password: password },
  });
  const run = await provision(lab);
  assertEquals(run.code, 0, run.stderr);
  const text = await host.read("sda2", "var/lib/cloud/seed/nocloud-net/user-data");
  const data = parse(text);
  assertEquals(data.users[0], "default");
  assertEquals(data.users[1].name, "bob");
  assertEquals(data.users[1].ssh_authorized_keys, ["ssh-rsa AAAA agent"]);
  assertEquals(data.users[1].plain_text_passwd, password);
  assertEquals(data.chpasswd, { expire: false, list: [`bob:${password}`] });
  const calls = await lab.calls();
  assertEquals(calls.findLast(({ program }) => program === "sshpass")?.password, password);
  assertEquals(calls.at(-1)?.args.at(-1), "bob@10.1.1.1");
  assert(!calls.some(({ args }) => args.join(" ").includes("s3cret")));
  assert(!run.stderr.includes("s3cret") && !run.stdout.includes("s3cret"));
});

Deno.test("a password that cannot be typed is refused before anything is switched", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await lab.job({
    provision_data: { use_attachment: "i.img" },
    test_data: { test_password: "a\nb" },
  });
  assertEquals((await provision(lab)).code, 1);
  assertStringIncludes(await message(lab), "'test_password' has control characters");
  assertEquals(await host.done(), []);
});

Deno.test("each kind of image gets what makes it create the user", async (t) => {
  const nm = { "etc/systemd/system/multi-user.target.wants/NetworkManager.service": "->/lib/nm" };
  const os = (version: string) => ({ "etc/os-release": `NAME=Ubuntu\nVERSION_ID="${version}"\n` });
  const cases: readonly {
    type: string;
    label: string;
    files: Record<string, string | null>;
    written: readonly string[];
    not?: readonly string[];
  }[] = [
    {
      type: "tegra",
      label: "writable",
      files: {
        "lib/firmware/nvidia-tegra186": null,
        "boot/grub/grub.cfg": "set timeout=30\nset timeout_style=menu\n set timeout=-1\n",
        "etc/default/grub": "GRUB_TIMEOUT=5\nGRUB_TIMEOUT_STYLE=x\n",
        "etc/default/grub.d/50-x.cfg": 'GRUB_TIMEOUT="10"\n',
      },
      written: ["var/lib/cloud/seed/nocloud/user-data", "etc/sudoers.d/ubuntu"],
      not: ["var/lib/cloud/seed/nocloud/meta-data"],
    },
    {
      type: "pi-desktop",
      label: "writable",
      files: { "usr/bin/firefox": "->/snap/bin/firefox", ...os("24.04"), ...nm },
      written: [
        "etc/systemd/system/oem-config.service",
        "preseed.cfg",
        "etc/systemd/system/oem-config.target.wants/NetworkManager.service",
        "etc/sudoers.d/ubuntu",
      ],
      not: ["var/lib/cloud/seed/nocloud-net/user-data"],
    },
    {
      type: "pi-desktop",
      label: "writable",
      files: {
        "usr/bin/firefox": "x",
        ...os("25.04"),
        "etc/cloud/cloud.cfg.d/99-fake-cloud.cfg": "x",
      },
      written: [
        "var/lib/cloud/seed/nocloud-net/user-data",
        "var/lib/cloud/seed/nocloud-net/meta-data",
        "etc/sudoers.d/ubuntu",
      ],
      not: [
        "preseed.cfg",
        "etc/cloud/cloud.cfg.d/99-fake-cloud.cfg",
        "etc/systemd/system/oem-config.target.wants",
      ],
    },
    {
      type: "pi-desktop",
      label: "writable",
      files: { "usr/bin/firefox": "x", ...os("100.04") },
      written: ["var/lib/cloud/seed/nocloud-net/user-data"],
      not: ["preseed.cfg"],
    },
    {
      type: "core",
      label: "writable",
      files: { "system-data/etc": null },
      written: [
        "system-data/var/lib/cloud/seed/nocloud-net/user-data",
        "system-data/var/lib/cloud/seed/nocloud-net/meta-data",
      ],
    },
    {
      type: "core20",
      label: "ubuntu-seed",
      files: { snaps: null },
      written: ["data/etc/cloud/cloud.cfg.d/99_nocloud.cfg"],
    },
    {
      type: "ubuntu-cpc",
      label: "cloudimg-rootfs",
      files: { "etc/cloud/cloud.cfg": "x" },
      written: [
        "var/lib/cloud/seed/nocloud-net/user-data",
        "var/lib/cloud/seed/nocloud-net/meta-data",
      ],
    },
    {
      type: "unknown",
      label: "writable",
      files: { "opt/x": "x" },
      written: ["var/lib/cloud/seed/nocloud-net/user-data"],
    },
  ];
  for (const { type, label, files, written, not = [] } of cases) {
    await t.step(`${type} ${files["etc/os-release"]?.split("\n")[1] ?? ""}`, async () => {
      const { lab, host } = await bench([{ name: "sda1", label, files }]);
      await using _lab = lab;
      const run = await provision(lab);
      assertEquals(run.code, 0, run.stderr);
      assertStringIncludes(run.stderr, `of the type ${type}:`);
      for (const file of written) assert(await host.has("sda1", file), `${file} is missing`);
      for (const file of not) assert(!await host.has("sda1", file), `${file} is there`);
      await contents[type]?.(host);
    });
  }
});

Deno.test("an image cannot make the control host write to its own files, nor hand them out", async () => {
  const { lab, host } = await bench([{
    name: "sda2",
    label: "writable",
    files: { "usr/bin/firefox": "x", "etc/sudoers.d": "->/@/victim" },
  }]);
  await using _lab = lab;
  const victim = join(host.root, "victim");
  await Deno.mkdir(victim);
  const link = join(host.root, "parts/sda2/etc/sudoers.d");
  await Deno.remove(link);
  await Deno.symlink(victim, link);
  assertEquals((await provision(lab)).code, 1);
  assertStringIncludes(await message(lab), "is not in the image");
  assertEquals(await names(victim), []);
  assertEquals(await host.mounted(), []);
  assertEquals((await host.done()).at(-1), "stm -dut");
});

Deno.test("a file of the image that is a link is replaced, not followed", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  const victim = join(host.root, "victim");
  await Deno.writeTextFile(victim, "mine");
  const seed = join(host.root, "parts/sda2/var/lib/cloud/seed/nocloud-net");
  await Deno.mkdir(seed, { recursive: true });
  await Deno.symlink(victim, join(seed, "user-data"));
  assertEquals((await provision(lab)).code, 0);
  assertEquals(await Deno.readTextFile(victim), "mine");
  assertStringIncludes(await Deno.readTextFile(join(seed, "user-data")), "#cloud-config");
});

Deno.test("labels that are no names of folders are left alone", async () => {
  const { lab, host } = await bench([
    { name: "sda1", label: "../../etc" },
    { name: "sda3", label: "$(touch pwned) ;'\"" },
    ...UBUNTU.slice(1),
  ]);
  await using _lab = lab;
  const run = await provision(lab);
  assertEquals(run.code, 0, run.stderr);
  assertStringIncludes(run.stderr, "sda1 is not mounted: its label '../../etc' is no name");
  assert(!await exists(join(host.root, "pwned")));
  assertEquals(await host.mounted(), []);
});

Deno.test("a partition that cannot be mounted is left out, and the next one is not", async () => {
  const { lab, host } = await bench([{ name: "sda1", label: "system-boot" }, ...UBUNTU.slice(1)]);
  await using _lab = lab;
  await Deno.remove(join(host.root, "parts/sda1"), { recursive: true });
  const run = await provision(lab);
  assertEquals(run.code, 0, run.stderr);
  assertStringIncludes(run.stderr, "/dev/sda1 is left out: 'mount' ended with exit status 32");
  assert(await host.has("sda2", "var/lib/cloud/seed/nocloud-net/user-data"));
});

Deno.test("12-muxpi 16: an image with the labels boot and rootfs gets a warning and no user, and is booted", async () => {
  const { lab, host } = await bench([
    { name: "sda1", label: "boot" },
    { name: "sda2", label: "rootfs", files: { "etc/hostname": "raspberrypi" } },
  ]);
  await using _lab = lab;
  const { code, stderr } = await provision(lab);
  assertEquals(code, 0, stderr);
  assertMatch(stderr, /WARNING: .*gets no user: it is of no known type.* boot, rootfs/);
  assertEquals(await host.mounted(), []);
  assertEquals((await host.done()).at(-1), "stm -dut");
  assertEquals((await lab.calls("scp")).length, 0);

  await lab.fake("ssh-copy-id", "exit 1");
  assertEquals((await provision(lab)).code, 1);
  assertStringIncludes(await message(lab), "The device was not up 1200 s after its reset");
});

Deno.test("12-muxpi 16: an image without any label gets a warning and no user, and is booted", async () => {
  const { lab, host } = await bench([{ name: "sda1", label: null }]);
  await using _lab = lab;
  const { code, stderr } = await provision(lab);
  assertEquals(code, 0, stderr);
  assertStringIncludes(stderr, "finds no partition with a label on /dev/sda");
  assertEquals(await host.mounted(), []);
  assertEquals((await host.done()).at(-1), "stm -dut");
});

Deno.test("an image of a known type without the partition that its user belongs to leaves the control host alone", async () => {
  const { lab, host } = await bench([{
    name: "sda2",
    label: "writable",
    files: { ".disk/info": "iot-limerick-classic-server-2204" },
  }]);
  await using _lab = lab;
  assertEquals((await provision(lab)).code, 1);
  assertMatch(
    await message(lab),
    /of the type ce-oem-iot-before-24: it has no partition 'system-boot'.*writable/,
  );
  assertEquals((await host.done()).slice(-2), ["umount /mnt/a1/writable", "stm -dut"]);
});

Deno.test("labels that come late are looked for once more", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await host.fake(
    "lsblk",
    `case "$*" in *-J*) ;; *) exit 0;; esac
test -e "$R/looked" && { echo '${
      JSON.stringify({
        blockdevices: [{ name: "sda", children: [{ name: "sda2", label: "writable" }] }],
      })
    }'; exit; }
touch "$R/looked"
echo '{"blockdevices": [{"name": "sda", "label": null, "children": [{"name": "sda2", "label": null}]}]}'`,
  );
  const run = await provision(lab);
  assertEquals(run.code, 0, run.stderr);
  assertEquals(lab.clock.paused, [5_000, 10_000, 10_000]);
});

Deno.test("volumes within partitions, and an image that is one file system, are found too", async () => {
  for (
    const [device, path] of [
      [{ name: "sda", label: "writable" }, "/dev/sda"],
      [
        {
          name: "sda",
          children: [{
            name: "sda2",
            children: [{ name: "vg-root", label: "writable", type: "lvm" }],
          }],
        },
        "/dev/mapper/vg-root",
      ],
    ] as const
  ) {
    const { lab, host } = await bench();
    await using _lab = lab;
    await host.blockDevices(device);
    await Deno.rename(
      join(host.root, "parts/sda2"),
      join(host.root, "parts", path.split("/").at(-1) ?? ""),
    );
    const run = await provision(lab);
    assertEquals(run.code, 0, run.stderr);
    assert((await host.done()).includes(`mount -o nosuid,nodev ${path} /mnt/a1/writable`));
  }
});

Deno.test("what cannot be unmounted is detached, and the job fails with the storage given back", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await host.fake(
    "umount",
    `[ "$1" = -l ] || { echo "umount: $1: target is busy." >&2; exit 32; }
rm "$2" && mkdir "$2" && rm "$R/mounts/$(basename "$2")"`,
  );
  assertEquals((await provision(lab)).code, 1);
  assertMatch(await message(lab), /Cannot unmount \/mnt\/a1\/writable .*target is busy.*detached/s);
  assertEquals(await host.mounted(), []);
  assertEquals((await host.done()).at(-1), "stm -dut");
});

Deno.test("a password of which cloud-init would make another one is refused before anything is done", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  for (const password of ["R", "RANDOM", "$6$salt$hash"]) {
    await lab.job({
      provision_data: { use_attachment: "i.img" },
      test_data: { test_password: password },
    });
    assertEquals((await provision(lab)).code, 1);
    assertStringIncludes(await message(lab), "'test_password' is a word or a hash");
    assert(!(await message(lab)).includes("$6$"));
  }
  assertEquals(await host.done(), []);
});

Deno.test("only the medium's own partitions are unmounted, whatever else begins like it", async () => {
  const folder = await Deno.makeTempDir();
  const all = [
    "sda",
    "sda1",
    "sda12",
    "sdaa",
    "sdaa1",
    "mmcblk1",
    "mmcblk1p1",
    "mmcblk10",
    "loop1p",
  ]
    .concat([
      "mmcblk10p1",
      "mmcblk1boot0",
      "usb-x-0:0",
      "usb-x-0:0-part1",
      "usb-x-0:01",
      "a b",
      "a b1",
    ]);
  for (const name of all) await Deno.writeTextFile(join(folder, name), "");
  for (
    const [device, partitions] of [
      ["sda", ["sda", "sda1", "sda12"]],
      ["mmcblk1", ["mmcblk1", "mmcblk1p1"]],
      ["usb-x-0:0", ["usb-x-0:0", "usb-x-0:0-part1"]],
      ["a b", ["a b", "a b1"]],
    ] as const
  ) {
    const pattern = withPartitions(join(folder, device));
    const { stdout } = await new Deno.Command("sh", {
      args: ["-c", `for f in ${pattern}; do if test -e "$f"; then basename "$f"; fi; done`],
    }).output();
    assertEquals(new TextDecoder().decode(stdout).trim().split("\n"), [...partitions]);
  }
  await Deno.remove(folder, { recursive: true });
});
