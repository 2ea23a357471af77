/** The connector muxpi, against a control host whose commands really run: jobs, images, what is written. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { loadConnector } from "../../connectors/registry.ts";
import {
  attach,
  bench,
  CONFIG,
  exists,
  IMAGE,
  message,
  names,
  provision,
} from "./support/muxpi.ts";
import { closedPort, httpStub } from "./support/stubs.ts";

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

/** What every system has: coreutils, sed, find, and a shell. */
const EVERYWHERE = [
  ...[
    "cat",
    "chmod",
    "dd",
    "echo",
    "false",
    "head",
    "mkdir",
    "mkfifo",
    "mktemp",
    "readlink",
    "realpath",
    "rm",
  ],
  ...["rmdir", "ln", "sha256sum", "sleep", "sync", "tee", "test", "touch", "true", "basename"],
  ...["sed", "find", "sh"],
];

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

Deno.test("12-muxpi 10: boot_check_url decides, and every kind of failure means not yet", async () => {
  const { lab } = await bench();
  await using _lab = lab;
  let asked = 0;
  await using device = httpStub(({ path }) => {
    asked++;
    // However long the page is.
    const page = new Uint8Array(5_000_000);
    return new Response(page, { status: asked === 1 ? 503 : path === "/x" ? 200 : 404 });
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

Deno.test("12-muxpi 13: post_provision_script runs to its end, whatever its commands return", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await lab.config({ ...CONFIG, post_provision_script: ["false", "touch x"] });
  const run = await provision(lab);
  assertEquals(run.code, 0);
  assertStringIncludes(run.stderr, "'post_provision_script[0]: false' ended with exit status 1");
  assert(await exists(join(host.root, "x")));
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
  assertEquals(await host.written(), IMAGE);

  const spoil = 'printf x | /bin/dd of="$R/dev/sda" bs=1 seek=5000 conv=notrunc 2>/dev/null';
  await host.fake("dd", `case "$*" in *bs=1M*) /bin/dd "$@"; ${spoil};; *) /bin/dd "$@";; esac`);
  assertEquals((await provision(lab)).code, 1);
  assertStringIncludes(
    await message(lab),
    "The medium does not keep what is written to it: of 100000 bytes, /dev/sda gives back others",
  );
  assertEquals((await host.done()).at(-1), "stm -dut");

  // Only after it was read: the probe, the whole, its odd end, and its beginning.
  await host.fake(
    "dd",
    `case "$*" in *iflag=direct*) /bin/dd "$@"; s=$?; echo x >> "$R/reads"; exit "$s";; ` +
      `*if=/dev/null*) until test "$(wc -l < "$R/reads")" = 4; do sleep 0.02; done; ${spoil};; ` +
      `*) exec /bin/dd "$@";; esac`,
  );
  assertEquals((await provision(lab)).code, 1);
  assertStringIncludes(await message(lab), "after more had been written no longer");
});

Deno.test("a control host whose dd cannot read past its memory reads back in the end", async () => {
  const { lab, host } = await bench();
  await using _lab = lab;
  await lab.config({ ...CONFIG, verify_flash: true });
  await host.fake("dd", 'case "$*" in *iflag=*) exit 1;; esac; exec /bin/dd "$@"');
  const good = await provision(lab);
  assertEquals(good.code, 0, good.stderr);
  assertStringIncludes(good.stderr, "Read back 100000 bytes from /dev/sda");
  assert((await host.done()).includes("hdparm -f /dev/sda"));
  assertEquals(await host.written(), IMAGE);

  await host.fake("sync", 'printf x | /bin/dd of="$R/dev/sda" bs=1 seek=5000 conv=notrunc 2>&1');
  assertEquals((await provision(lab)).code, 1);
  assertStringIncludes(await message(lab), "The medium does not keep what is written to it");
});

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

Deno.test("without reboot_script the device is not reset, which is said", async () => {
  const { lab } = await bench();
  await using _lab = lab;
  const run = await provision(lab);
  assertEquals(run.code, 0);
  assertStringIncludes(run.stderr, "The device is not reset: no 'reboot_script' is set");
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
