/**
 * What muxpi does when a program that it needs is missing, hangs, fails or prints rubbish: a clear
 * error that names the program and the step, the right exit status, and nothing left behind.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "node:path";
import { Stopped } from "../../connectors/support/errors.ts";
import { processesWith } from "../../lib/process/proc.ts";
import { ControlHost } from "../connectors/support/control_host.ts";
import { Lab } from "../connectors/support/lab.ts";
import { closedPort, until } from "../connectors/support/stubs.ts";

type Mode = "missing" | "hanging" | "failing" | "printing rubbish";

const MODES: readonly Mode[] = ["missing", "hanging", "failing", "printing rubbish"];

/** "works": the program is of no importance there, or its output is. */
type Outcome = RegExp | "works";

interface Case {
  /** Where the program is. */
  readonly on: "agent" | "control host";
  readonly program: string;
  /** Only calls whose arguments match this pattern of the shell. @default all */
  readonly calls?: string;
  /** What else its calls do; `exec` the real thing. @default nothing */
  readonly otherwise?: string;
  readonly image?: "raw" | "xz" | "zstd" | "qcow2";
  /** Files of the image. @default those of a plain ubuntu */
  readonly files?: Readonly<Record<string, string | null>>;
  readonly env?: Readonly<Record<string, string>>;
  /** @default 1 */
  readonly status?: number;
  readonly config?: Record<string, unknown>;
  /** Can the control host's dd read past what its host has in memory? @default true */
  readonly readsDirectly?: boolean;
  readonly outcomes: Readonly<Record<Mode, Outcome>>;
}

const SCRIPTS: Readonly<Record<Exclude<Mode, "missing">, string>> = {
  hanging: "hang",
  failing: "echo 'it went wrong' >&2; exit 9",
  "printing rubbish": "printf 'rub\\377bish {[\\n'",
};

const NOT_ASKED: Case["outcomes"] = {
  missing: "works",
  hanging: "works",
  failing: "works",
  "printing rubbish": "works",
};

const ended = (program: string, seconds: number) =>
  new RegExp(`'${program}[^']*' was ended after ${seconds} s`);

const CASES: readonly Case[] = [
  {
    on: "agent",
    program: "ssh",
    outcomes: {
      missing: /Cannot reach ubuntu@127\.0\.0\.1: 'ssh' could not be started: .*no such program/,
      hanging: /Cannot reach the control host: 'ssh' was ended after 60 s/,
      failing: /Cannot reach the control host: 'ssh' ended with exit status 9: it went wrong/,
      // It connects, it seems, but no command does anything: found at the first that is read.
      "printing rubbish": /'lsblk' printed 'rub\ufffdbish \{\[', expected mount points/,
    },
  },
  {
    on: "agent",
    program: "sshpass",
    outcomes: {
      missing: /Cannot log in to the device: .*Cannot start sshpass: no such program in PATH/,
      hanging:
        /The device was not up 1200 s after its reset: 'sshpass ssh-copy-id' was ended after 60 s/,
      failing:
        /The device was not up 1200 s .*'sshpass ssh-copy-id' ended with exit status 9: it went/,
      "printing rubbish": "works",
    },
  },
  {
    on: "agent",
    program: "ssh-copy-id",
    outcomes: {
      missing:
        /Cannot log in to the device: .*'sshpass ssh-copy-id' could not be started: .*no such/,
      hanging:
        /The device was not up 1200 s after its reset: 'sshpass ssh-copy-id' was ended after 60 s/,
      failing:
        /The device was not up 1200 s .*'sshpass ssh-copy-id' ended with exit status 9: it went/,
      "printing rubbish": "works",
    },
  },
  {
    on: "agent",
    program: "qemu-img",
    image: "qcow2",
    outcomes: {
      missing: /Cannot convert the image 'i\.img': 'qemu-img' could not be started/,
      hanging: /Cannot convert the image 'i\.img': 'qemu-img' was ended after 1800 s/,
      failing: /Cannot convert the image 'i\.img': 'qemu-img' ended with exit status 9: it went/,
      // It says that it converted, and there is no file.
      "printing rubbish": /Cannot read the image 'i\.img\.raw'/,
    },
  },
  {
    on: "agent",
    program: "power",
    status: 46,
    config: { reboot_script: ["power cycle 7"] },
    outcomes: {
      missing: /Cannot reset the device: 'reboot_script\[0\]: power' ended with exit status 127/,
      hanging: /Cannot reset the device: 'reboot_script\[0\]: power' was ended after 120 s/,
      failing: /Cannot reset the device: 'reboot_script\[0\]: power' ended with exit status 9: it/,
      "printing rubbish": "works",
    },
  },
  {
    on: "control host",
    program: "stm",
    calls: "-ts",
    outcomes: {
      missing: /Cannot give the storage medium to the control host: 'stm -ts' ended .* 127.*stm/s,
      hanging: ended("stm -ts", 60),
      failing: /Cannot give the storage medium to the control host: 'stm -ts' ended .* 9: it went/,
      "printing rubbish": "works",
    },
  },
  {
    on: "control host",
    program: "stm",
    calls: "-dut",
    outcomes: {
      missing: /'stm -ts' ended/,
      hanging: /Cannot give the storage medium back to the device: 'stm -dut' was ended after 60 s/,
      failing: /Cannot give the storage medium back to the device: 'stm -dut' ended .* 9: it went/,
      "printing rubbish": "works",
    },
  },
  {
    on: "control host",
    program: "muxctl",
    calls: "*plug_to_self",
    config: { control_switch_local_cmd: "muxctl sdwire set TS", media: "sd" },
    outcomes: {
      missing: /Cannot give the storage medium to the control host: 'muxctl sdwire plug_to_self'/,
      hanging: ended("muxctl sdwire plug_to_self", 60),
      failing: /'muxctl sdwire plug_to_self' ended with exit status 9: it went wrong/,
      "printing rubbish": /'muxctl sdwire plug_to_self' printed 'rub\ufffdbish \{\['/,
    },
  },
  {
    on: "control host",
    program: "lsblk",
    calls: "*MOUNTPOINT*",
    otherwise: 'cat "$R/lsblk.json"',
    outcomes: {
      missing: /Cannot find out what is mounted of \/dev\/sda: 'lsblk' ended .* 127: .*lsblk/,
      hanging: /Cannot find out what is mounted of \/dev\/sda: 'lsblk' was ended after 60 s/,
      failing: /Cannot find out what is mounted of \/dev\/sda: 'lsblk' ended .* 9: it went wrong/,
      "printing rubbish":
        /Cannot find out what is mounted of .*: 'lsblk' printed 'rub.*, expected mount points/,
    },
  },
  {
    on: "control host",
    program: "umount",
    calls: "*/dev/*",
    otherwise: 'rm "$1" && mkdir "$1" && rm "$R/mounts/$(basename "$1")"',
    outcomes: {
      // Then nothing can be unmounted later on, either: told as soon as it matters.
      missing: /Cannot unmount \/mnt\/a1\/writable .*umount: command not found.*still mounted/s,
      hanging: /Cannot unmount what the control host has mounted of \/dev\/sda: 'umount' was ended/,
      failing: "works",
      "printing rubbish": "works",
    },
  },
  {
    on: "control host",
    program: "dd",
    outcomes: {
      missing:
        /Cannot write the image to \/dev\/sda: 'cat \| dd' ended .* 1: sudo: dd: command not/,
      hanging: /Cannot write the image to \/dev\/sda: 'cat \| dd' was ended after 1200 s/,
      failing: /Cannot write the image to \/dev\/sda: 'cat \| dd' ended .* 9: it went wrong/,
      // Of an image that it did not read, or not all, cat may notice or may not.
      "printing rubbish": /Cannot write the image to \/dev\/sda: 'dd' did not say what .*rub/s,
    },
  },
  {
    on: "control host",
    program: "dd",
    config: { verify_flash: true },
    outcomes: {
      missing: /'cat \| dd' ended .* 127: .*dd: not found/s,
      hanging: /'cat \| dd' was ended after 3000 s/,
      failing: /'cat \| dd' ended .* 9: .*it went wrong/s,
      // That is on the medium now.
      "printing rubbish": /'dd' has written 12 bytes, and the image has \d+$/,
    },
  },
  {
    on: "control host",
    program: "sha256sum",
    config: { verify_flash: true },
    outcomes: {
      missing: /Cannot write the image to \/dev\/sda: 'cat \| dd' ended .*sha256sum: not found/s,
      hanging: /Cannot write the image to \/dev\/sda: 'cat \| dd' was ended after 3000 s/,
      failing: /Cannot write the image to \/dev\/sda: 'cat \| dd' ended .*it went wrong/s,
      // Found by what reads for it, or by what it does not say.
      "printing rubbish": /Cannot (write the image|verify what was written) to \/dev\/sda: .*dd/s,
    },
  },
  {
    on: "control host",
    program: "unxz",
    image: "xz",
    outcomes: {
      // zstdcat takes its place, and does not like what the test gives it.
      missing: /Cannot write the image to \/dev\/sda: 'unxz' cannot unpack it on the control host/,
      hanging: /Cannot write the image to \/dev\/sda: 'unxz \| dd' was ended after 1200 s/,
      failing: /Cannot write the image to \/dev\/sda: 'unxz' cannot unpack it .*: it went wrong/,
      "printing rubbish": "works",
    },
  },
  {
    on: "control host",
    program: "sync",
    outcomes: {
      missing: "works",
      hanging: "works",
      failing: "works",
      "printing rubbish": "works",
    },
  },
  {
    on: "control host",
    program: "hdparm",
    outcomes: {
      missing:
        /Cannot make the control host read .* \/dev\/sda again: 'hdparm -z' ended .* 1: sudo: h/,
      hanging:
        /Cannot make the control host read .* \/dev\/sda again: 'hdparm -z' was ended after 40/,
      failing:
        /Cannot make the control host read .* \/dev\/sda again: 'hdparm -z' ended .* 9: it we/,
      "printing rubbish": "works",
    },
  },
  {
    on: "control host",
    program: "lsblk",
    calls: "*-J*",
    outcomes: {
      missing: /'lsblk' ended with exit status 127: .*lsblk/,
      hanging: /Cannot find the partitions of \/dev\/sda: 'lsblk' was ended after 60 s/,
      failing:
        /Cannot find the partitions of \/dev\/sda: 'lsblk' ended with exit status 9: it went/,
      "printing rubbish": /Cannot find the partitions of \/dev\/sda: 'lsblk' printed 'rub/,
    },
  },
  {
    on: "control host",
    program: "mount",
    outcomes: {
      missing: /'mount' could not mount any partition of \/dev\/sda/,
      hanging: /'mount' could not mount any partition of \/dev\/sda/,
      failing: /'mount' could not mount any partition of \/dev\/sda/,
      // It says that it mounted, and did not.
      "printing rubbish": /'mount' could not mount any partition of \/dev\/sda/,
    },
  },
  {
    on: "control host",
    program: "realpath",
    outcomes: {
      missing: /Cannot write writable\/.* in the image: 'tee' ended .*realpath/,
      hanging: /Cannot write writable\/.* in the image: 'tee' was ended after 60 s/,
      failing: /Cannot write writable\/.* in the image: 'tee' ended with exit status 9: it went/,
      // Nothing that leads anywhere but into the image is written to.
      "printing rubbish": /Cannot write writable\/.* in the image: 'tee' ended .* is no path/,
    },
  },
  {
    on: "control host",
    program: "umount",
    calls: "*/mnt/*",
    otherwise: "exit 32",
    outcomes: {
      missing: /Cannot unmount \/mnt\/a1\/writable .*umount: command not found.*still mounted/s,
      hanging: /Cannot unmount \/mnt\/a1\/writable .*'umount' was ended after 20 s.*still mounted/s,
      failing: /Cannot unmount \/mnt\/a1\/writable .*'umount' ended .* 9: it went .*still mounted/s,
      // It says that it unmounted, and did not.
      "printing rubbish": /Cannot unmount \/mnt\/a1\/writable .*rub.*still mounted/s,
    },
  },
  {
    on: "agent",
    program: "cycle",
    config: { control_host_reboot_script: ["cycle --now"] },
    // The hook leaves the control host alone, so it is rebooted before its storage is used.
    env: { DISABLE_CONTROL_HOST_POWERCYCLE: "1" },
    outcomes: {
      missing: /Cannot reboot the control host: '[a-z_]+\[0\]: cycle' ended with exit status 127/,
      hanging: /Cannot reboot the control host: '[a-z_]+\[0\]: cycle' was ended after 60 s/,
      failing: /Cannot reboot the control host: '[a-z_]+\[0\]: cycle' ended .* 9: it went wrong/,
      "printing rubbish": "works",
    },
  },
  {
    on: "control host",
    program: "muxctl",
    calls: "*DUT",
    otherwise: "echo /dev/sda",
    config: { control_switch_local_cmd: "muxctl sdwire set TS", media: "sd" },
    outcomes: {
      missing: /Cannot give the storage medium to the control host: 'muxctl sdwire plug_to_self'/,
      hanging: /Cannot give the storage medium back .*: 'muxctl sdwire set DUT' was ended after 60/,
      failing:
        /Cannot give the storage medium back .*: 'muxctl sdwire set DUT' ended .* 9: it went/,
      "printing rubbish": "works",
    },
  },
  {
    on: "control host",
    program: "sudo",
    outcomes: {
      missing: /Cannot write the image to \/dev\/sda: 'cat \| dd' ended .* 127: .*sudo: not found/,
      hanging: /Cannot unmount what the control host has mounted of \/dev\/sda: 'umount' was ended/,
      failing: /Cannot write the image to \/dev\/sda: 'cat \| dd' ended .* 9: it went wrong/,
      // It says that all is done, and nothing is.
      "printing rubbish": /Cannot write the image to \/dev\/sda: 'dd' did not say what .*rub/s,
    },
  },
  {
    on: "control host",
    program: "zstdcat",
    image: "zstd",
    outcomes: {
      missing: /Cannot write the image to \/dev\/sda: 'zstdcat' cannot unpack it .*not found/,
      hanging: /Cannot write the image to \/dev\/sda: 'zstdcat \| dd' was ended after 1200 s/,
      failing: /Cannot write the image to \/dev\/sda: 'zstdcat' cannot unpack it .*: it went/,
      "printing rubbish": "works",
    },
  },
  {
    on: "control host",
    program: "mktemp",
    // What is raw is hashed here.
    image: "xz",
    config: { verify_flash: true },
    outcomes: {
      missing:
        /Cannot write the image to \/dev\/sda: 'unxz \| dd' ended .* 127: .*mktemp: not found/,
      // What is written is read back meanwhile, which has its time, too.
      hanging: /Cannot write the image to \/dev\/sda: 'unxz \| dd' was ended after 3000 s/,
      failing: /Cannot write the image to \/dev\/sda: 'unxz \| dd' ended .* 9: it went wrong/,
      "printing rubbish": /Cannot write the image to \/dev\/sda: 'unxz \| dd' ended .*rub/,
    },
  },
  {
    on: "control host",
    program: "hdparm",
    calls: "-f*",
    config: { verify_flash: true },
    readsDirectly: false,
    outcomes: {
      missing:
        /Cannot make the control host read .* \/dev\/sda again: 'hdparm -z' ended .* 1: sudo/,
      hanging:
        /Cannot verify .* to \/dev\/sda: 'hdparm -f && head \| sha256sum' was ended after 1800/,
      failing:
        /Cannot verify .* to \/dev\/sda: 'hdparm -f && head \| sha256sum' ended .* 9: it went/,
      "printing rubbish": "works",
    },
  },
  {
    on: "control host",
    program: "head",
    config: { verify_flash: true },
    readsDirectly: false,
    outcomes: {
      missing:
        /Cannot verify .* to \/dev\/sda: 'head' cannot read it: sudo: head: command not found/,
      hanging:
        /Cannot verify .* to \/dev\/sda: 'hdparm -f && head \| sha256sum' was ended after 1800/,
      failing: /Cannot verify what was written to \/dev\/sda: 'head' cannot read it: it went wrong/,
      "printing rubbish": /The medium does not keep what is written to it/,
    },
  },
  {
    on: "control host",
    program: "head",
    config: { verify_flash: true },
    outcomes: {
      missing: /Cannot verify what was written to \/dev\/sda: .* cannot read it: .*head: not found/,
      hanging: /Cannot write the image to \/dev\/sda: 'cat \| dd' was ended after 3000 s/,
      failing: /Cannot verify what was written to \/dev\/sda: 'dd' cannot read it: it went wrong/,
      "printing rubbish": /The medium does not keep what is written to it/,
    },
  },
  {
    on: "control host",
    program: "mountpoint",
    outcomes: {
      missing: /'mount' could not mount any partition of \/dev\/sda/,
      hanging: /'mount' could not mount any partition of \/dev\/sda/,
      // The partition is mounted, and unmounted for want of knowing that.
      failing: /'mount' could not mount any partition of \/dev\/sda/,
      // To it everything is mounted, even what has just been unmounted.
      "printing rubbish": /Cannot unmount \/mnt\/a1\/writable on the control host: /,
    },
  },
  {
    on: "control host",
    program: "tee",
    outcomes: {
      missing:
        /Cannot write writable\/.* in the image: 'tee' ended .* 1: sudo: tee: command not found/,
      hanging: /Cannot write writable\/.* in the image: 'tee' was ended after 60 s/,
      failing:
        /Cannot write writable\/.* in the image: 'tee' ended with exit status 9: it went wrong/,
      // It says that it wrote the file, and did not.
      "printing rubbish": /Cannot write writable\/.* in the image: 'tee' ended with exit status 1/,
    },
  },
  {
    on: "control host",
    program: "find",
    files: { "lib/firmware/x-tegra186": null, "boot/grub/grub.cfg": "set timeout=30\n" },
    outcomes: {
      missing:
        /Cannot turn off the boot menu in the image: 'sed' ended .* 1: sudo: find: command not/,
      hanging: /Cannot turn off the boot menu in the image: 'sed' was ended after 60 s/,
      failing: /Cannot turn off the boot menu in the image: 'sed' ended .* 9: it went wrong/,
      "printing rubbish": "works",
    },
  },
  {
    on: "control host",
    program: "after-flash",
    config: { post_provision_script: ["after-flash"] },
    outcomes: NOT_ASKED,
  },
];

for (const one of CASES) {
  const { on, program, calls } = one;
  const where = `${program}${calls === undefined ? "" : ` (${calls})`} on the ${on}`;
  for (const mode of MODES) {
    const outcome = one.outcomes[mode];
    Deno.test(`muxpi with ${where} ${mode}: ${outcome === "works" ? "works" : "a clear error"}`, async () => {
      await using lab = await Lab.open();
      const host = await ControlHost.open(lab, [
        { name: "sda2", label: "writable", files: one.files ?? { "etc/hostname": "ubuntu" } },
      ]);
      await prepare(lab, one);
      if (one.readsDirectly === false) {
        await host.fake("dd", 'case "$*" in *iflag=*) exit 1;; esac; exec /bin/dd "$@"');
      }
      await spoil(lab, host, one, mode);

      const run = await lab.stage("muxpi", "provision", { env: one.env ?? {} });

      const shown = (await lab.failure("provision").catch(() => ({}))) as Record<string, string>;
      if (outcome === "works") assertEquals(run.code, 0, run.stderr);
      else {
        assertEquals(run.code, one.status ?? 1, run.stderr);
        assertMatch(shown.exception_message ?? "", outcome);
        assertMatch(shown.exception_name ?? "", one.status === 46 ? /^Recovery/ : /^Provisioning/);
      }
      await assertNothingLeft(lab, host, one, mode);
    });
  }
}

/** Where SIGTERM comes: a program, which of its calls, and what the others do. */
const STOPS: readonly (readonly [on: "agent" | "control host", program: string, calls: string])[] =
  [
    ["control host", "stm", "-ts"],
    ["control host", "lsblk", "*MOUNTPOINT*"],
    ["control host", "dd", "*"],
    ["control host", "sync", "*"],
    ["control host", "hdparm", "*"],
    ["control host", "lsblk", "*-J*"],
    ["control host", "mount", "*"],
    ["control host", "tee", "*"],
    ["control host", "realpath", "*"],
    ["control host", "umount", "*/mnt/*"],
    ["control host", "stm", "-dut"],
    ["agent", "power", "*"],
    ["agent", "ssh-copy-id", "*"],
  ];

for (const [on, program, calls] of STOPS) {
  const isPuttingBack = calls === "-dut" || program === "umount";
  Deno.test(`muxpi stopped while ${program} (${calls}) runs on the ${on} leaves nothing behind`, async () => {
    await using lab = await Lab.open();
    const host = await ControlHost.open(lab, [
      { name: "sda2", label: "writable", files: { "etc/hostname": "ubuntu" } },
    ]);
    const one: Case = { on, program, outcomes: NOT_ASKED, config: { reboot_script: "power" } };
    await prepare(lab, one);
    await lab.fake("power", "");
    const place = on === "agent" ? lab : host;
    const started = join(lab.root, "started");
    const released = join(lab.root, "released");
    await place.wrap(
      program,
      // Only the first time: what is put back afterwards may need it.
      `case "$*" in ${calls}) test -e "${started}" || { : > "${started}"; ` +
        `until test -e "${released}"; do sleep 0.02; done; };; esac`,
    );
    const stop = new AbortController();
    const running = lab.stage("muxpi", "provision", { signal: stop.signal });
    await until(() => Deno.stat(started).then(() => true, () => false));
    stop.abort(new Stopped("SIGTERM"));
    // What is just being put back comes to its end.
    if (isPuttingBack) await Deno.writeTextFile(released, "");
    const run = await running;
    assertEquals(run.code, 143, run.stderr);
    assertMatch(run.stderr, /The provision stage was stopped by SIGTERM/);
    await assertNothingLeft(lab, host, one, "hanging");
  });
}

for (const program of ["ssh-import-id", "ssh-copy-id"]) {
  for (const mode of MODES) {
    Deno.test(`muxpi reserve with ${program} ${mode} says so, and lasts as long as it was asked for`, async () => {
      await using lab = await Lab.open();
      await lab.config({ agent_name: "a1", device_ip: "10.1.1.1" });
      await lab.job({ reserve_data: { ssh_keys: ["lp:me"], timeout: 7200 } });
      await lab.fake("ssh-import-id", 'echo "ssh-rsa KEY me" > "$2"');
      if (mode === "missing") await lab.remove(program);
      else await lab.fake(program, SCRIPTS[mode]);
      const run = await lab.stage("muxpi", "reserve");
      assertEquals(run.code, 0, run.stderr);
      assertEquals(lab.clock.paused.at(-1), 7_200_000);
      // ssh-copy-id has only its exit status, and that says that all is well.
      if (program === "ssh-copy-id" && mode === "printing rubbish") return;
      assertMatch(
        run.stderr,
        new RegExp(`'${program}' (could not|was ended after 30|ended|brought)`),
      );
      assertMatch(run.stdout, /WARNING: no ssh key could be installed/);
      assertEquals(await processesWith(`HOME=${lab.root}/home`), []);
    });
  }
}

Deno.test("muxpi runtest ends with the status of a program that is missing, fails, or raves", async () => {
  await using lab = await Lab.open();
  await lab.config({ agent_name: "a1", device_ip: "10.1.1.1", control_host: undefined });
  for (
    const [command, status, shown] of [
      ["no-such-program", 127, /no-such-program/],
      ["echo it went wrong >&2; exit 9", 9, /^it went wrong$/m],
      [SCRIPTS["printing rubbish"], 0, /^rub\ufffdbish \{\[$/m],
      ["kill -9 $$", 137, /^$/],
    ] as const
  ) {
    for (const commands of [command, [command]]) {
      await lab.job({ test_data: { test_cmds: commands } });
      const run = await lab.stage("muxpi", "runtest");
      assertEquals(run.code, status, command);
      assertMatch(run.stdout, shown);
    }
  }
});

Deno.test("muxpi's stages that need no program do without any", async () => {
  await using lab = await Lab.open();
  await lab.config({ agent_name: "a1", device_ip: "10.1.1.1" });
  await lab.job({});
  const env = { PATH: join(lab.root, "nowhere") };
  for (
    const [stage, status] of [["allocate", 0], ["cleanup", 0], ["firmware_update", 1]] as const
  ) {
    const run = await lab.stage("muxpi", stage, { env });
    assertEquals(run.code, status, run.stderr);
  }
  assertEquals((await lab.failure("firmware_update")).exception_name, "FirmwareUpdateError");
});

async function prepare(lab: Lab, { config = {}, image = "raw" }: Case): Promise<void> {
  const { media, ...keys } = config;
  await lab.config({
    agent_name: "a1",
    device_ip: "10.1.1.1",
    control_host: "127.0.0.1",
    control_host_port: closedPort(),
    test_device: "/dev/sda",
    ...keys,
  });
  await lab.job({ provision_data: { use_attachment: "i.img", media } });
  const heads = {
    raw: [1, 2],
    zstd: [0x28, 0xb5, 0x2f, 0xfd],
    xz: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0],
    qcow2: [0x51, 0x46, 0x49, 0xfb],
  };
  await Deno.mkdir(join(lab.cwd, "attachments/provision"), { recursive: true });
  await Deno.writeFile(
    join(lab.cwd, "attachments/provision/i.img"),
    Uint8Array.from([...heads[image], ...new Uint8Array(1000)]),
  );
}

async function spoil(lab: Lab, host: ControlHost, one: Case, mode: Mode): Promise<void> {
  const { on, program, calls = "*", otherwise = ":" } = one;
  const place = on === "agent" ? lab : host;
  if (mode === "missing") {
    await place.remove(program).catch(() => {});
    return;
  }
  // The marks are of the shell; the paths are those of the host.
  await place.fake(
    program,
    `case "$*" in ${calls.replaceAll("*", '"*"').replaceAll('"', "")}) ${
      SCRIPTS[mode]
    };; *) ${otherwise};; esac`,
  );
}

/** Neither a mount nor a process, no file that is no longer needed, and the medium at the device. */
async function assertNothingLeft(lab: Lab, host: ControlHost, one: Case, mode: Mode) {
  const done = await host.done();
  const switched = done.filter((line) => /^(stm|muxctl)/.test(line));
  // Not where it is the very program that cannot be used.
  if (switched.length > 0) assertMatch(switched.at(-1) ?? "", /^stm -dut$|set DUT$/);
  if (one.program !== "umount" || one.outcomes[mode] === "works") {
    assertEquals(await host.mounted(), []);
  }
  assertEquals(await processesWith(`HOME=${lab.root}/home`), []);
  for await (const { name } of Deno.readDir(lab.cwd)) assert(!name.startsWith(".muxpi"), name);
}
