/** The control host of muxpi, and the media that it switches. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { shellWords } from "../../connectors/muxpi/storage.ts";
import { ControlHost } from "./support/control_host.ts";
import { bench, CONFIG, IMAGE, message, provision } from "./support/muxpi.ts";
import { closedPort } from "./support/stubs.ts";

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
