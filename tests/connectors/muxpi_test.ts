/** The connector muxpi, against a control host whose commands really run. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { parse } from "yaml";
import { imageType } from "../../connectors/support/image/image_type.ts";
import { loadConnector } from "../../connectors/registry.ts";
import { withPartitions } from "../../connectors/muxpi/storage.ts";
import { shellWords } from "../../connectors/muxpi/words.ts";
import { ControlHost, type ImagePartition } from "./support/control_host.ts";
import { Lab, type Run } from "./support/lab.ts";
import { closedPort, httpStub } from "./support/stubs.ts";

const CONFIG = {
  agent_name: "a1",
  device_ip: "10.1.1.1",
  control_host: "127.0.0.1",
  control_host_port: closedPort(),
  test_device: "/dev/sda",
};

const UBUNTU: readonly ImagePartition[] = [
  { name: "sda1", label: "system-boot" },
  {
    name: "sda2",
    label: "writable",
    files: { "etc/cloud/cloud.cfg.d/99-fake_cloud.cfg": "x", "etc/hostname": "ubuntu" },
  },
];

/** No image of a disk begins like that, but no text either. */
const IMAGE = Uint8Array.from({ length: 100_000 }, (_, i) => (i * 7) % 251);

interface Bench {
  readonly lab: Lab;
  readonly host: ControlHost;
}

/** A lab with an attached image, and a control host with a medium of `partitions`. */
async function bench(partitions: readonly ImagePartition[] = UBUNTU): Promise<Bench> {
  const lab = await Lab.open();
  const host = await ControlHost.open(lab, partitions);
  await lab.config(CONFIG);
  await attach(lab, "i.img", IMAGE);
  await lab.job({ provision_data: { use_attachment: "i.img" } });
  return { lab, host };
}

async function attach(lab: Lab, name: string, content: Uint8Array): Promise<void> {
  await Deno.mkdir(join(lab.cwd, "attachments/provision"), { recursive: true });
  await Deno.writeFile(join(lab.cwd, "attachments/provision", name), content);
}

function provision(lab: Lab): Promise<Run> {
  return lab.stage("muxpi", "provision");
}

async function message(lab: Lab): Promise<string> {
  return (await lab.failure("provision")).exception_message ?? "";
}

/** Packs bytes with a program of this host. */
async function packed(program: string, args: readonly string[]): Promise<Uint8Array> {
  const child = new Deno.Command(program, { args: [...args], stdin: "piped", stdout: "piped" })
    .spawn();
  const writer = child.stdin.getWriter();
  const writing = writer.write(IMAGE).then(() => writer.close());
  const { stdout } = await child.output();
  await writing;
  return stdout;
}

Deno.test("12-muxpi 1: an attached image is flashed, gets its user, and boots", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  const log = join(host.root, "log");
  await lab.config({ ...CONFIG, reboot_script: [`echo 'reset' >> ${log}`] });
  await lab.fake("ssh-copy-id", `echo 'key copy' >> ${log}`);
  const run = await provision(lab);
  assertEquals(run.code, 0, run.stderr);
  assertEquals(await host.done(), [
    "stm -ts",
    "lsblk -nr -o MOUNTPOINTS /dev/sda",
    "umount /dev/sda /dev/sda[0-9]* /dev/sda-part[0-9]*",
    "dd of=/dev/sda bs=16M conv=fsync",
    "sync",
    "hdparm -z /dev/sda",
    "lsblk -o NAME,LABEL,TYPE -J /dev/sda",
    "mount -o nosuid,nodev /dev/sda1 /mnt/a1/system-boot",
    "mount -o nosuid,nodev /dev/sda2 /mnt/a1/writable",
    "sync",
    "umount /mnt/a1/writable",
    "umount /mnt/a1/system-boot",
    "stm -dut",
    "reset",
    "key copy",
  ]);
  assertEquals(await host.written(), IMAGE);
  const calls = await lab.calls();
  assertEquals(calls.findLast(({ program }) => program === "sshpass")?.password, "ubuntu");
  assertEquals(calls.at(-1)?.args.at(-1), "ubuntu@10.1.1.1");
  // Detection and files, between the mounts and the first umount.
  const ssh = calls.filter(({ program }) => program === "ssh").map(({ args }) => args.at(-1) ?? "");
  const at = (part: string) => ssh.findIndex((command) => command.includes(part));
  assert(at("mount -o nosuid,nodev /dev/sda2") < at("end of facts"));
  assert(at("end of facts") < at('sudo tee "$d"/meta-data'));
  assert(at('sudo tee "$d"/meta-data') < at('sudo tee "$d"/user-data'));
  assert(at('sudo tee "$d"/user-data') < at("sudo umount /mnt/a1/writable"));
  assert(!await lab.has("device-connector-error.json"));
});

Deno.test("what is sent to the control host is left neither there nor here", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  assertEquals((await provision(lab)).code, 0);
  assertEquals(await names(join(host.root, "tmp")), []);
  assertEquals(await names(lab.cwd), [
    "attachments",
    "c.yaml",
    "device-info.json",
    "testflinger.json",
  ]);
});

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

Deno.test("12-muxpi 3: without an image the storage is never touched", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  for (
    const [data, complaint] of [
      [{}, "neither 'url' nor 'use_attachment'"],
      [null, "neither 'url' nor 'use_attachment'"],
      [{ use_attachment: "absent.img" }, "there is no such file in attachments/provision"],
      [{ use_attachment: "../../c.yaml" }, "not inside of attachments/provision"],
      [{ url: "ftp://127.0.0.1/i.img" }, "only http, https URLs are allowed"],
      [{ use_attachment: "page.img" }, "'page.img' is no image: it is a web page"],
    ] as const
  ) {
    await attach(lab, "page.img", new TextEncoder().encode("<!doctype html><p>Not found"));
    await lab.job({ provision_data: data });
    assertEquals((await provision(lab)).code, 1);
    assertStringIncludes(await message(lab), complaint);
    assertEquals(await host.done(), []);
    assertEquals(await lab.calls("ssh"), []);
  }
});

/** Two media, as `muxctl` shows them. */
async function twoMedia(host: ControlHost): Promise<void> {
  for (const name of ["sdX", "sdY"]) await Deno.writeTextFile(join(host.root, "dev", name), "");
  await host.fake(
    "muxctl",
    `case "$*" in "sdwire plug_to_self") echo /dev/sdX;; "typecmux plug_to_self") echo /dev/sdY;; esac`,
  );
}

Deno.test("12-muxpi 4: of two media the wanted one is flashed, and both are given back", async () => {
  for (const [media, device, last] of [["sd", "sdX", "sdwire"], ["usb", "sdY", "typecmux"]]) {
    const { lab, host } = await bench();
    await using _lab = lab;
    await twoMedia(host);
    await lab.config({
      ...CONFIG,
      test_device: undefined,
      control_switch_local_cmd: "sudo muxctl sdwire set TS",
    });
    await lab.job({ provision_data: { use_attachment: "i.img", media } });
    const run = await provision(lab);
    assertEquals(run.code, 0, run.stderr);
    const done = await host.done();
    assertEquals(done.slice(0, 2), ["muxctl sdwire plug_to_self", "muxctl typecmux plug_to_self"]);
    assert(done.includes(`dd of=/dev/${device} bs=16M conv=fsync`));
    assertEquals(done.filter((line) => line.includes("set DUT")).length, 2);
    assertEquals(done.at(-1), `muxctl ${last} set DUT`);
    assertEquals(await host.written(device), IMAGE);
    assertEquals(await host.written(), new Uint8Array());
    assertEquals(
      (await lab.calls("ssh")).at(-1)?.args.at(-1),
      `sudo muxctl ${last} set DUT`,
    );
    // A board with a mux of that kind needs no time to settle.
    assertEquals(lab.clock.paused, [10_000]);
  }
});

Deno.test("with return_both_media off only the medium that was used is given back", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await twoMedia(host);
  await lab.config({
    ...CONFIG,
    control_switch_local_cmd: "muxctl sdwire set TS",
    return_both_media: false,
  });
  await lab.job({ provision_data: { use_attachment: "i.img", media: "usb" } });
  assertEquals((await provision(lab)).code, 0);
  assertEquals((await host.done()).filter((line) => line.includes("set DUT")), [
    "muxctl typecmux set DUT",
  ]);
});

Deno.test("a mux that prints no device, or something else, is an error that shows it", async () => {
  for (
    const [script, complaint] of [
      ["", "printed nothing"],
      ["echo Segmentation fault", "printed 'Segmentation fault', expected the path of a block"],
      ["echo /dev/../etc/passwd", "printed '/dev/../etc/passwd'"],
      ["echo no such card >&2; exit 4", "ended with exit status 4: no such card"],
    ] as const
  ) {
    const { lab, host } = await bench();
    await using _lab = lab;
    await host.fake("muxctl", `case "$*" in *plug*) ${script || ":"};; esac`);
    await lab.config({ ...CONFIG, control_switch_local_cmd: "muxctl sdwire set TS" });
    await lab.job({ provision_data: { use_attachment: "i.img", media: "sd" } });
    assertEquals((await provision(lab)).code, 1);
    assertStringIncludes(await message(lab), "muxctl sdwire plug_to_self");
    assertStringIncludes(await message(lab), complaint);
    assertEquals((await host.done()).at(-1), "muxctl sdwire set DUT");
    assertEquals(await host.written(), new Uint8Array());
  }
});

Deno.test("12-muxpi 5: media on a board without such a mux names the configuration key", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await lab.job({ provision_data: { use_attachment: "i.img", media: "sd" } });
  assertEquals((await provision(lab)).code, 1);
  assertStringIncludes(await message(lab), "'control_switch_local_cmd'");
  assertEquals(await host.done(), []);
});

Deno.test("12-muxpi 6: an unknown medium is refused while the storage is still at the device", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await twoMedia(host);
  await lab.config({ ...CONFIG, control_switch_local_cmd: "muxctl sdwire set TS" });
  await lab.job({ provision_data: { use_attachment: "i.img", media: "floppy" } });
  assertEquals((await provision(lab)).code, 1);
  assertStringIncludes(await message(lab), "'media' is 'floppy': expected sd or usb");
  assertEquals(await host.done(), []);
});

Deno.test("12-muxpi 7: when writing fails the storage still goes back to the device", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await host.fake("dd", "echo 'dd: writing to /dev/sda: No space left on device' >&2; exit 1");
  assertEquals((await provision(lab)).code, 1);
  assertMatch(
    await message(lab),
    /^Cannot write the image to \/dev\/sda: 'cat \| dd' ended with exit status 1: .*No space left/,
  );
  assertEquals((await host.done()).at(-1), "stm -dut");
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

Deno.test("12-muxpi 10: boot_check_url decides, and every kind of failure means not yet", async () => {
  const { lab } = await bench();
  await using _lab = lab;
  let asked = 0;
  await using device = httpStub(({ path }) => {
    asked++;
    return new Response(null, { status: asked === 1 ? 503 : path === "/x" ? 200 : 404 });
  });
  await lab.config({ ...CONFIG, device_ip: "127.0.0.1" });
  await lab.job({
    provision_data: {
      use_attachment: "i.img",
      boot_check_url: `http://$DEVICE_IP:${device.port}/x`,
    },
  });
  assertEquals((await provision(lab)).code, 0);
  assertEquals(asked, 2);
  assertEquals(lab.clock.paused.slice(-2), [10_000, 10_000]);
  assertEquals(await lab.calls("ssh-copy-id"), []);
});

Deno.test("a device that never comes up is given up after 1200 s, with the last reason", async () => {
  const { lab } = await bench();
  await using _lab = lab;
  await lab.config({ ...CONFIG, device_ip: "127.0.0.1" });
  const url = `http://$DEVICE_IP:${closedPort()}/x`;
  await lab.job({ provision_data: { use_attachment: "i.img", boot_check_url: url } });
  assertEquals((await provision(lab)).code, 1);
  assertEquals(lab.clock.elapsed, 1_205_000);
  assertMatch(await message(lab), /not up 1200 s after its reset: .*refused/i);
});

Deno.test("a boot_check_url that is none is found before anything is switched", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await lab.job({ provision_data: { use_attachment: "i.img", boot_check_url: "file:///etc" } });
  assertEquals((await provision(lab)).code, 1);
  assertStringIncludes(await message(lab), "'boot_check_url' is no http or https URL");
  assertEquals(await host.done(), []);
});

Deno.test("12-muxpi 11: a control host that refuses three times is tried again every 5 s", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await lab.fake(
    "ssh",
    `if [ "$n" -le 3 ]; then echo "ssh: connect to host: Connection refused" >&2; exit 255; fi\n` +
      host.sshScript(),
  );
  assertEquals((await provision(lab)).code, 0);
  assertEquals(lab.clock.paused, [5_000, 5_000, 5_000, 5_000, 10_000]);
});

Deno.test("12-muxpi 12: a control host that always refuses is given up after 13 attempts", async () => {
  const { lab } = await bench();
  await using _lab = lab;
  await lab.fake("ssh", 'echo "ssh: connect to host: Connection refused" >&2; exit 255');
  assertEquals((await provision(lab)).code, 1);
  assertEquals((await lab.calls("ssh")).length, 13);
  assertEquals(lab.clock.elapsed, 12 * 5_000);
  assertMatch(await message(lab), /^Cannot reach the control host: 'ssh' .*Connection refused/);
});

Deno.test("12-muxpi 13: post_provision_script runs to its end, whatever its commands return", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await lab.config({ ...CONFIG, post_provision_script: ["false", "touch x"] });
  const run = await provision(lab);
  assertEquals(run.code, 0);
  assertStringIncludes(run.stderr, "'post_provision_script[0]: false' ended with exit status 1");
  assert(await exists(join(host.root, "x")));
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

Deno.test("12-muxpi correction 2: a switch command that fails is repeated, five times, 5 s apart", async () => {
  for (const [toUs, toDevice] of [[4, 0], [0, 4], [3, 2]] as const) {
    const { lab, host } = await bench();
    await using _lab = lab;
    await host.fake(
      "stm",
      `n=$(( $(cat "$R/stm$1" 2>/dev/null || echo 0) + 1 )); echo $n > "$R/stm$1"
case "$1" in -ts) least=${toUs};; *) least=${toDevice};; esac
[ $n -gt $least ] || { echo "stm: bus busy" >&2; exit 1; }`,
    );
    const { code, stderr } = await provision(lab);
    assertEquals(code, 0, stderr);
    const switched = (await host.done()).filter((call) => call.startsWith("stm"));
    assertEquals(switched, [
      ...Array(toUs + 1).fill("stm -ts"),
      ...Array(toDevice + 1).fill("stm -dut"),
    ]);
    const pauses = lab.clock.paused.filter((pause) => pause === 5_000);
    // One of them is the board's own, before it is switched.
    assertEquals(pauses.length, 1 + toUs + toDevice);
  }
});

Deno.test("12-muxpi correction 2: a switch command that never works is given up after five attempts", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await host.fake("stm", '[ "$1" != -ts ] || { echo "stm: no such device" >&2; exit 3; }');
  assertEquals((await provision(lab)).code, 1);
  assertStringIncludes(
    await message(lab),
    "Cannot give the storage medium to the control host: 'stm -ts' ended with exit status 3: " +
      "stm: no such device",
  );
  assertEquals((await host.done()).filter((call) => call === "stm -ts").length, 5);
  assertEquals((await host.done()).at(-1), "stm -dut");
});

Deno.test("12-muxpi correction 2: the multiplexer of the chosen medium is asked again, that of the other is not", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await twoMedia(host);
  await host.wrap(
    "muxctl",
    `case "$*" in
*plug_to_self) d="${host.root}/$1"; [ -e "$d" ] || { touch "$d"; echo busy; exit 1; };;
esac`,
  );
  await lab.config({ ...CONFIG, control_switch_local_cmd: "muxctl sdwire set TS" });
  await lab.job({ provision_data: { use_attachment: "i.img", media: "sd" } });
  const { code, stderr } = await provision(lab);
  assertEquals(code, 0, stderr);
  assertStringIncludes(stderr, "attempt 1 of 5");
  assertStringIncludes(stderr, "There seems to be no other medium");
});

Deno.test("12-muxpi 14: a reset that fails takes the agent offline", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await lab.config({ ...CONFIG, reboot_script: ["false"] });
  assertEquals((await provision(lab)).code, 46);
  assertEquals((await host.done()).at(-1), "stm -dut");
  assertEquals((await lab.failure("provision")).exception_name, "RecoveryError");
});

Deno.test("12-muxpi 15: an attachment's name is never read by a shell", async () => {
  for (const name of ["a b;touch pwn.img", "$(touch pwn).img", "-n", "'quoted'.img"]) {
    const { lab, host } = await bench();
    await using _lab = lab;
    await attach(lab, name, IMAGE);
    await lab.job({ provision_data: { use_attachment: name } });
    const run = await provision(lab);
    assertEquals(run.code, 0, run.stderr);
    assertEquals(await host.written(), IMAGE);
    for (const folder of [lab.cwd, host.root]) {
      for (const file of ["pwn", "pwn.img"]) assert(!await exists(join(folder, file)));
    }
  }
});

Deno.test("an attachment goes before a URL, as the documentation has it", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await lab.job({
    provision_data: { use_attachment: "i.img", url: `http://127.0.0.1:${closedPort()}/x` },
  });
  assertEquals((await provision(lab)).code, 0);
  assertEquals(await host.written(), IMAGE);
});

Deno.test("an image from a URL is downloaded, checked, flashed and removed", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  const body = await packed("xz", ["-1"]);
  await using server = httpStub(() => new Response(body.slice()));
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", body.slice())).toHex();
  await lab.job({ provision_data: { url: `${server.url}/i.img.xz?a=b&c`, sha256: sum } });
  const run = await provision(lab);
  assertEquals(run.code, 0, run.stderr);
  assertEquals(await host.written(), IMAGE);
  assertEquals((await names(lab.cwd)).filter((name) => name.startsWith(".muxpi")), []);

  await Deno.remove(join(host.root, "log"));
  await lab.job({ provision_data: { url: `${server.url}/i.img.xz`, sha256: "0".repeat(64) } });
  assertEquals((await provision(lab)).code, 1);
  assertStringIncludes(await message(lab), `it is not the right file`);
  assertEquals(await host.done(), []);
});

for (
  const [name, program, args] of [
    ["lzma", "lzma", ["-1"]],
    ["xz", "xz", ["-1"]],
    ["zstd", "zstd", ["-q"]],
    ["gzip", "gzip", []],
    ["bzip2", "bzip2", []],
  ] as const
) {
  Deno.test(`an image packed with ${name} is unpacked on the control host`, async () => {
    const { lab, host } = await bench();
    await using _lab = lab;
    // Whatever its name says.
    await attach(lab, "image.bin", await packed(program, args));
    await lab.job({ provision_data: { use_attachment: "image.bin" } });
    const run = await provision(lab);
    assertEquals(run.code, 0, run.stderr);
    assertEquals(await host.written(), IMAGE);
  });
}

Deno.test("an image that breaks off is no success, though dd itself succeeds", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  const whole = await packed("xz", ["-1"]);
  await attach(lab, "i.img.xz", whole.subarray(0, whole.length - 100));
  await lab.job({ provision_data: { use_attachment: "i.img.xz" } });
  assertEquals((await provision(lab)).code, 1);
  assertMatch(
    await message(lab),
    /^Cannot write the image to \/dev\/sda: 'unxz' cannot unpack it on the control host: .*[Uu]nexpected end/,
  );
  assertEquals((await host.done()).at(-1), "stm -dut");
});

Deno.test("a control host of old, with zstdcat alone, unpacks xz with it", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await host.remove("unxz");
  await attach(lab, "i.img.xz", await packed("xz", ["-1"]));
  await lab.job({ provision_data: { use_attachment: "i.img.xz" } });
  const run = await provision(lab);
  assertEquals(run.code, 0, run.stderr);
  assertEquals(await host.written(), IMAGE);
});

Deno.test("verify_flash reads back what was written, and notices a medium that forgets", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await lab.config({ ...CONFIG, verify_flash: true });
  await attach(lab, "i.img.xz", await packed("xz", ["-1"]));
  await lab.job({ provision_data: { use_attachment: "i.img.xz" } });
  const good = await provision(lab);
  assertEquals(good.code, 0, good.stderr);
  assertStringIncludes(good.stderr, "Read back 100000 bytes from /dev/sda");
  assert((await host.done()).includes("hdparm -f /dev/sda"));

  await host.fake("sync", 'printf x | /bin/dd of="$R/dev/sda" bs=1 seek=5000 conv=notrunc 2>&1');
  assertEquals((await provision(lab)).code, 1);
  assertStringIncludes(await message(lab), "The medium does not keep what is written to it");
  assertEquals((await host.done()).at(-1), "stm -dut");
});

Deno.test("a device that the control host runs from is never overwritten", async () => {
  for (const point of ["/", "/boot", "/boot/firmware", "[SWAP]"]) {
    const { lab, host } = await bench();
    await using _lab = lab;
    await host.fake("lsblk", `printf '\\n/home\\\\x0a${point}\\n'`);
    assertEquals((await provision(lab)).code, 1);
    assertStringIncludes(await message(lab), `itself uses it as ${point}; check 'test_device'`);
    assertEquals(await host.done(), ["stm -ts", "lsblk -nr -o MOUNTPOINTS /dev/sda", "stm -dut"]);
  }
});

Deno.test("a device that appears only seconds after the switch is waited for", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await Deno.remove(join(host.root, "dev/sda"));
  await host.fake("stm", "");
  await lab.fake(
    "ssh",
    `case "$*" in *"test -b"*) [ "$n" -ge 5 ] && : > ${host.root}/dev/sda;; esac\n` +
      host.sshScript(),
  );
  const run = await provision(lab);
  assertEquals(run.code, 0, run.stderr);
  assertEquals(lab.clock.paused, [5_000, 2_000, 2_000, 10_000]);
});

Deno.test("what never becomes a block device is given up after a minute", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await Deno.remove(join(host.root, "dev/sda"));
  assertEquals((await provision(lab)).code, 1);
  assertStringIncludes(await message(lab), "/dev/sda is no block device on the control host, 58 s");
  assertEquals(await host.done(), ["stm -ts", "stm -dut"]);
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

Deno.test("a password that nobody can type is refused before anything is switched", async () => {
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

Deno.test("a control host that goes away in the middle is not waited for endlessly", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await lab.fake(
    "ssh",
    `case "$*" in *"end of facts"*) : > ${lab.root}/gone;; esac
test -e ${lab.root}/gone && { echo "No route to host" >&2; exit 255; }
` + host.sshScript(),
  );
  const run = await provision(lab);
  assertEquals(run.code, 1);
  assertMatch(await message(lab), /Cannot find out what kind of image it is: .*No route to host/);
  assertStringIncludes(run.stderr, "Cannot put back the mount /mnt/a1/writable: ");
  assertStringIncludes(run.stderr, "Cannot put back the storage medium to the device: ");
  // 12 pauses for the step, 3 for each of two mounts, 12 for the storage.
  assertEquals(lab.clock.elapsed, 5_000 + (12 + 3 + 3 + 12) * 5_000);
});

/** What every system has: coreutils, sed, find, and a shell. */
const EVERYWHERE = [
  ...["cat", "chmod", "dd", "echo", "false", "head", "mkdir", "mkfifo", "mktemp", "realpath", "rm"],
  ...["rmdir", "ln", "sha256sum", "sync", "tee", "test", "touch", "true", "basename"],
  ...["sed", "find", "sh"],
];

Deno.test("muxpi needs nothing on the control host but what it declares, and what every system has", async () => {
  const declared = (await loadConnector("muxpi"))?.controlHostPrograms.map(({ name }) => name) ??
    [];
  for (
    const files of [
      { "etc/hostname": "ubuntu" },
      { "lib/firmware/x-tegra186": null, "boot/grub/grub.cfg": "timeout=3\n" },
      { "usr/bin/firefox": "x", "etc/os-release": 'VERSION_ID="24.04"\n' },
    ]
  ) {
    const { lab, host } = await bench([{ name: "sda2", label: "writable", files }]);
    await using _lab = lab;
    await lab.config({ ...CONFIG, verify_flash: true });
    await attach(lab, "i.img", await packed("xz", ["-1"]));
    const bin = join(host.root, "bin");
    for (const name of await names(bin)) {
      if (![...EVERYWHERE, ...declared, "stm"].includes(name)) await Deno.remove(join(bin, name));
    }
    const { code, stderr } = await provision(lab);
    assertEquals(code, 0, stderr);
  }
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

Deno.test("without reboot_script the device is not reset, which is said", async () => {
  const { lab } = await bench();
  await using _lab = lab;
  const run = await provision(lab);
  assertEquals(run.code, 0);
  assertStringIncludes(run.stderr, "The device is not reset: no 'reboot_script' is set");
});

Deno.test("the control host is rebooted once: by the hook, or else before the storage is used", async () => {
  const { lab } = await bench();
  await using _lab = lab;
  const config = {
    ...CONFIG,
    control_host_reboot_script: ["echo x >> rebooted"],
    reboot_script: ["echo x >> reset"],
    control_host_reboot_timeout: 30,
  };
  // No REST service, and nothing listens for ssh: the hook does it.
  await lab.config({ ...config, control_host_ssh_port: closedPort() });
  assertEquals((await provision(lab)).code, 0);
  assertEquals(await lab.read("rebooted"), "x\n");
  assertEquals(await lab.read("reset"), "x\n");

  // The hook finds that ssh answers, and leaves the control host alone.
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await lab.config({ ...config, control_host_ssh_port: listener.addr.port });
  lab.clock.paused.length = 0;
  const run = await provision(lab);
  assertEquals(run.code, 0, run.stderr);
  assertEquals(await lab.read("rebooted"), "x\nx\n");
  assertEquals(await lab.read("reset"), "x\nx\nx\n");
  assertEquals(lab.clock.paused, [30_000, 5_000, 10_000]);
});

Deno.test("a control host that takes its time after the reboot is asked again and again", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await lab.config({
    ...CONFIG,
    control_host_ssh_port: listener.addr.port,
    control_host_reboot_script: "true",
    control_host_reboot_timeout: 30,
  });
  await lab.fake("ssh", `[ "$n" -gt 2 ] || exit 255\n${host.sshScript()}`);
  assertEquals((await provision(lab)).code, 0);
  assertEquals(lab.clock.paused, [30_000, 5_000, 5_000, 5_000, 10_000]);

  await lab.config({
    ...CONFIG,
    control_host_ssh_port: listener.addr.port,
    control_host_reboot_script: "exit 3",
  });
  assertEquals((await provision(lab)).code, 1);
  assertMatch(
    await message(lab),
    /^Cannot reboot the control host: 'control_host_reboot_script\[0\]/,
  );
});

Deno.test("what is missing in the configuration is named before anything is done", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  for (const key of ["agent_name", "control_host", "test_device", "device_ip"] as const) {
    await lab.config({ ...CONFIG, [key]: undefined });
    assertEquals((await provision(lab)).code, 1);
    assertStringIncludes(await message(lab), `'${key}' is missing in the device configuration`);
  }
  for (
    const [wrong, complaint] of [
      [{ agent_name: "../a" }, "agent_name: is the text '../a', must be made of letters, digits"],
      [{ test_device: "sda" }, "test_device: is the text 'sda', must be an absolute path"],
    ] as const
  ) {
    await lab.config({ ...CONFIG, ...wrong });
    assertEquals((await provision(lab)).code, 1);
    assertStringIncludes(await message(lab), complaint);
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

Deno.test("commands of the configuration are taken apart as a shell does", () => {
  for (
    const [command, words] of [
      ["", []],
      ["stm -ts", ["stm", "-ts"]],
      ["  a\t'b c'\"d e\"  f\\ g ", ["a", "b cd e", "f g"]],
      ["a '' \"\" b", ["a", "", "", "b"]],
      [`"a\\"b\\c" '\\'`, ['a"b\\c', "\\"]],
      ["a 'open end", ["a", "open end"]],
      ["end\\", ["end\\"]],
    ] as const
  ) assertEquals(shellWords(command), [...words], command);
});

async function names(folder: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name } of Deno.readDir(folder)) found.push(name);
  return found.sort();
}

function exists(path: string): Promise<boolean> {
  return Deno.lstat(path).then(() => true, () => false);
}
