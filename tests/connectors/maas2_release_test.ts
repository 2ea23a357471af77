/** maas2: getting a machine ready, its firmware and TPM, and giving it back. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { networkBootOrder } from "../../connectors/maas2/firmware.ts";
import { maasCalls, maasLab, message } from "./support/maas.ts";

/** The first sample of the EFI step: booted from the network, the disk first in the order. */
const EFI_LISTING = `BootCurrent: 0002
Timeout: 1 seconds
BootOrder: 0000,0001,0002
Boot0000* ubuntu\tHD(1,GPT)
Boot0001* UEFI: PXE IPv4 card 1
Boot0002* UEFI: PXE IPv4 card 2

MirroredPercentageAbove4G: 0.00`;

/** The TPM takes the request from the nth ssh on. */
const tpmFrom = (n: number) =>
  `case "$*" in *"cat /sys"*) [ $n -ge ${n} ] && echo 5 || echo 0;; esac`;

Deno.test("03-maas2 7: a machine that is never ready is helped in vain, and needs a person", async () => {
  await using it = await maasLab({ statuses: ["Deployed"] });
  assertEquals((await it.stage("maas2", "provision")).code, 46);
  const commands = (await maasCalls(it)).filter((call) => call !== "machine read n0de");
  assertEquals(commands, [
    "machine release n0de",
    "machine mark-broken n0de",
    "machine mark-fixed n0de",
    "machine power-off n0de",
    "machine release n0de",
  ]);
  assertEquals((await it.failure("provision")).exception_name, "RecoveryError");
  assertStringIncludes(await message(it), "MAAS says 'Deployed'");
  assertEquals(it.clock.elapsed, 300_000 + 30_000 + 60_000 + 60_000);
});

Deno.test("what MAAS is still at with the machine is aborted before the last release", async () => {
  await using it = await maasLab({ statuses: ["Deploying"] });
  assertEquals((await it.stage("maas2", "cleanup")).code, 46);
  const commands = (await maasCalls(it)).filter((call) => call !== "machine read n0de");
  assertEquals(commands.slice(-3), [
    "machine power-off n0de",
    "machine abort n0de",
    "machine release n0de",
  ]);
});

Deno.test("a last release that MAAS refuses does not hide that the machine needs a person", async () => {
  await using it = await maasLab({
    statuses: ["Deployed"],
    on: {
      "machine release":
        "if [ -e .again ]; then echo Conflict >&2; exit 2; fi; touch .again; echo '{}'",
    },
  });
  assertEquals((await it.stage("maas2", "cleanup")).code, 46);
});

Deno.test("03-maas2 8: a machine that is ready once marked fixed is provisioned", async () => {
  await using it = await maasLab({
    statuses: [...Array<string>(30).fill("Deployed"), "Ready", "Deploying", "Deployed"],
  });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  const calls = await maasCalls(it);
  assert(calls.includes("machine mark-fixed n0de"));
  assert(!calls.includes("machine power-off n0de"));
});

Deno.test("a release that has failed is not waited for", async () => {
  await using it = await maasLab({ statuses: ["Failed disk erasing", "Ready"] });
  assertEquals((await it.stage("maas2", "cleanup")).code, 0);
  assertEquals((await maasCalls(it)).slice(0, 3), [
    "machine release n0de",
    "machine read n0de",
    "machine mark-broken n0de",
  ]);
});

Deno.test("release_timeout_min gives MAAS time for erasing disks", async () => {
  await using it = await maasLab({
    config: { release_timeout_min: 7 },
    statuses: [...Array<string>(40).fill("Disk erasing"), "Ready"],
  });
  assertEquals((await it.stage("maas2", "cleanup")).code, 0);
  assertEquals(it.clock.elapsed, 410_000);
});

Deno.test("03-maas2 11: reset_efi puts network boot first, in one change", async () => {
  await using it = await maasLab({
    config: { reset_efi: true },
    ssh: `case "$*" in *"efibootmgr -v") cat listing;; esac`,
  });
  await it.write("listing", EFI_LISTING);
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  const commands = (await it.calls("ssh")).map(({ args }) => args.at(-1));
  assertEquals(commands, [
    "sudo efibootmgr -v",
    "sudo efibootmgr -o 0002,0001,0000",
    "/bin/true",
  ]);
});

Deno.test("the boot order has the booted network entry first, then the others, then the rest", () => {
  const order = (text: string) => networkBootOrder(text)?.join();
  assertEquals(order(EFI_LISTING), "0002,0001,0000");
  assertEquals(
    order("BootCurrent: 0000\nBootOrder: 0000,0001,0002\nBoot0000* disk\nBoot0001* PXE IPv4\n"),
    "0001,0000,0002",
  );
  assertEquals(
    order(
      "BootCurrent: 0000\nBootOrder: 0000,0001,0002\nBoot0000* disk\nBoot0001* PXE IPv4\n" +
        "Boot0002* PXE IPv4 too\n",
    ),
    "0001,0002,0000",
  );
  // Right already, or nothing to go by.
  assertEquals(order("BootOrder: 0001,0000\nBoot0001* IPv4\nBoot0000* disk"), undefined);
  assertEquals(order("Boot0001* IPv4"), undefined);
  assertEquals(order(""), undefined);
  assertEquals(order("BootOrder:\nBootCurrent\nBoot\nBootXYZW* IPv4\nnonsense"), undefined);
});

Deno.test("reset_efi goes on where the boot order cannot be read, and installs nothing unasked", async () => {
  for (const ssh of ['[ "$n" -gt 1 ] || exit 1', '[ "$n" -gt 1 ] || hang']) {
    await using it = await maasLab({ config: { reset_efi: true }, ssh });
    const { code, stderr } = await it.stage("maas2", "provision");
    assertEquals(code, 0);
    assertStringIncludes(stderr, "Cannot read the EFI boot order: 'ssh'");
    assertEquals((await it.calls("ssh")).length, 2);
  }
});

Deno.test("reset_efi_install_tools installs efibootmgr by apt, and by snap where there is none", async () => {
  for (
    const [apt, commands] of [
      ["true", ["efibootmgr -v", "apt-get", "efibootmgr -v", "/bin/true"]],
      ["false", ["efibootmgr -v", "apt-get", "snap install", "efibootmgr -v", "/bin/true"]],
    ] as const
  ) {
    await using it = await maasLab({
      config: { reset_efi: true, reset_efi_install_tools: true },
      ssh: `case "$*" in *apt-get*) ${apt};; *efibootmgr*-v) exit 127;; esac`,
    });
    assertEquals((await it.stage("maas2", "provision")).code, 0);
    const run = (await it.calls("ssh")).map(({ args }) => args.at(-1) ?? "");
    assertEquals(run.length, commands.length);
    for (const [index, command] of commands.entries()) {
      assertStringIncludes(run[index] ?? "", command);
    }
  }
});

Deno.test("03-maas2 12: cleanup releases the machine, and asks for nothing else", async () => {
  await using it = await maasLab();
  assertEquals((await it.stage("maas2", "cleanup")).code, 0);
  assertEquals(await maasCalls(it), ["machine release n0de", "machine read n0de"]);
});

Deno.test("cleanup releases the machine also when the job file is gone", async () => {
  await using it = await maasLab();
  await Deno.remove(`${it.cwd}/testflinger.json`);
  assertEquals((await it.stage("maas2", "cleanup")).code, 0);
  assertEquals((await maasCalls(it))[0], "machine release n0de");
});

Deno.test("always_release: false leaves the machine alone when the job deployed nothing", async () => {
  for (const [job, calls] of [[{}, 0], [{ provision_data: {} }, 2]] as const) {
    await using it = await maasLab({ config: { always_release: false }, job });
    assertEquals((await it.stage("maas2", "cleanup")).code, 0);
    assertEquals((await maasCalls(it)).length, calls);
  }
});

Deno.test("debug shows what release and recovery commands print", async () => {
  for (const debug of [true, false]) {
    await using it = await maasLab({
      job: { debug },
      on: { "machine release": "echo released-now" },
    });
    const { stderr } = await it.stage("maas2", "cleanup");
    assertEquals(stderr.includes("released-now"), debug);
  }
});

Deno.test("03-maas2 13: a TPM that takes the request needs no deployment of its own", async () => {
  await using it = await maasLab({ config: { clear_tpm: true }, ssh: tpmFrom(1) });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  const deployments = (await maasCalls(it)).filter((call) => call.startsWith("machine deploy"));
  assertEquals(deployments.length, 1);
  const commands = (await it.calls("ssh")).map(({ args }) => args.at(-1));
  assertEquals(commands.slice(0, 2), [
    "echo 5 | sudo tee /sys/class/tpm/tpm0/ppi/request",
    "cat /sys/class/tpm/tpm0/ppi/request",
  ]);
});

Deno.test("a TPM that does not take the request gets a system deployed to do it", async () => {
  await using it = await maasLab({
    config: { clear_tpm: true },
    job: { provision_data: { distro: "noble" } },
    statuses: ["Ready", "Deployed", "Ready", "Deployed"],
    ssh: tpmFrom(4),
  });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  const deployments = (await maasCalls(it)).filter((call) => call.startsWith("machine deploy"));
  assertEquals(deployments.map((call) => call.split("=")[1]), ["jammy", "noble"]);
});

Deno.test("a TPM that never takes the request is a failure, also when ssh hangs", async () => {
  for (const ssh of [tpmFrom(99), 'case "$*" in *tpm0*) hang;; esac']) {
    await using it = await maasLab({
      config: { clear_tpm: true },
      statuses: ["Ready", "Deployed"],
      ssh,
    });
    assertEquals((await it.stage("maas2", "provision")).code, 1);
    assertMatch(
      await message(it),
      /Cannot clear the TPM: (.*request has '0' in it, not 5|'ssh' was ended after 30 s)/,
    );
  }
});
