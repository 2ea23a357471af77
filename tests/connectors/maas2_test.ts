import { isRunning } from "../support/processes.ts";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { networkBootOrder } from "../../connectors/maas2/efi.ts";
import { Lab } from "./support/lab.ts";
import { until } from "./support/stubs.ts";
import { fakeMaas, MAAS_CONFIG, maasCalls, type MaasScript } from "./support/maas.ts";

/** The first sample of the EFI step: booted from the network, the disk first in the order. */
const EFI_LISTING = `BootCurrent: 0002
Timeout: 1 seconds
BootOrder: 0000,0001,0002
Boot0000* ubuntu\tHD(1,GPT)
Boot0001* UEFI: PXE IPv4 card 1
Boot0002* UEFI: PXE IPv4 card 2

MirroredPercentageAbove4G: 0.00`;

interface Setup extends MaasScript {
  readonly config?: Record<string, unknown>;
  readonly job?: Record<string, unknown>;
  readonly ssh?: string;
}

async function lab(setup: Setup = {}): Promise<Lab> {
  const lab = await Lab.open();
  await lab.config({ ...MAAS_CONFIG, ...setup.config });
  await lab.job(setup.job ?? {});
  await fakeMaas(lab, setup);
  if (setup.ssh !== undefined) await lab.fake("ssh", setup.ssh);
  return lab;
}

async function deployCall(lab: Lab): Promise<string> {
  return (await maasCalls(lab)).find((call) => call.startsWith("machine deploy")) ?? "no deploy";
}

async function message(lab: Lab, stage = "provision"): Promise<string> {
  return (await lab.failure(stage)).exception_message ?? "";
}

Deno.test("03-maas2 1: a job without wishes deploys jammy with a flat layout", async () => {
  await using it = await lab();
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  assertEquals(await maasCalls(it), [
    "machine release n0de",
    "machine read n0de",
    "machine set-storage-layout n0de storage_layout=flat",
    "machines allocate system_id=n0de",
    "node-script-results read n0de type=installation",
    "machine deploy n0de distro_series=jammy",
    "machine read n0de",
    "machine read n0de",
    "machine read n0de",
  ]);
  const calls = await it.calls();
  assertEquals(calls[0]?.args[0], "prof");
  assertEquals(calls.at(-1)?.program, "ssh");
  assertEquals(calls.at(-1)?.args.slice(-2), ["ubuntu@10.1.1.1", "/bin/true"]);
  assert(!await it.has("device-connector-error.json"));
});

Deno.test("maas2 takes provision_data that is null for one that is empty", async () => {
  await using it = await lab({ job: { provision_data: null } });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  assertEquals(await deployCall(it), "machine deploy n0de distro_series=jammy");
});

Deno.test("03-maas2 2: distro, kernel and user data reach the deployment", async () => {
  await using it = await lab({
    job: {
      provision_data: { distro: "noble", kernel: "hwe-24.04", user_data: "#cloud-config" },
    },
  });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  assertEquals(
    await deployCall(it),
    "machine deploy n0de distro_series=noble hwe_kernel=hwe-24.04 " +
      "user_data=I2Nsb3VkLWNvbmZpZw==",
  );
});

Deno.test("03-maas2 3: user data in base64 is not encoded again", async () => {
  for (
    const [given, sent] of [
      ["I2Nsb3VkLWNvbmZpZw==", "I2Nsb3VkLWNvbmZpZw=="],
      // As a block in YAML, folded and with a line break at its end.
      ["I2Nsb3Vk\nLWNvbmZpZw==\n", "I2Nsb3VkLWNvbmZpZw=="],
      [btoa("Content-Type: multipart/mixed\n"), btoa("Content-Type: multipart/mixed\n")],
      // Base64 of something that cloud-init would not take is just text.
      [btoa("hello"), btoa(btoa("hello"))],
      ["abcd", btoa("abcd")],
      ["#cloud-config é", "I2Nsb3VkLWNvbmZpZyDDqQ=="],
    ]
  ) {
    await using it = await lab({ job: { provision_data: { user_data: given } } });
    assertEquals((await it.stage("maas2", "provision")).code, 0);
    assertStringIncludes(await deployCall(it), ` user_data=${sent}`);
  }
});

Deno.test("user data that no command line can hold is refused before the machine is touched", async () => {
  await using it = await lab({ job: { provision_data: { user_data: "#".repeat(100_000) } } });
  assertEquals((await it.stage("maas2", "provision")).code, 1);
  assertMatch(await message(it), /'user_data' is too long: 133336 bytes .* at most 131061/);
  assertEquals(await maasCalls(it), []);
});

Deno.test("03-maas2 4: ephemeral is used with MAAS 3.5.0 and later, beta or not", async () => {
  for (
    const [version, wanted] of [
      ["3.5.0", true],
      ["3.4.2", false],
      ["3.6.0~beta1", true],
      ["10.0", true],
      ["2.9.9", false],
      ["newest", false],
    ] as const
  ) {
    await using it = await lab({
      job: { provision_data: { ephemeral: true } },
      on: { "version read": `echo '{"version": "${version}"}'` },
    });
    const { code, stderr } = await it.stage("maas2", "provision");
    assertEquals(code, 0);
    assertEquals((await deployCall(it)).endsWith(" ephemeral_deploy=true"), wanted, version);
    assertEquals(stderr.includes("but is deployed to disk"), !wanted, version);
  }
});

Deno.test("03-maas2 5: a failed deployment brings the log of the new installation", async () => {
  await using it = await lab({
    statuses: ["Ready", "Deploying", "Failed deployment"],
    on: {
      "node-script-results read":
        `if [ -e .asked ]; then echo '[{"id": 3}, {"id": 4}, 7]'; else touch .asked; echo '[{"id": 3}]'; fi`,
      "node-script-result download": "echo 'curtin: no such disk'",
    },
  });
  const { code, stderr } = await it.stage("maas2", "provision");
  assertEquals(code, 1);
  assertEquals((await it.failure("provision")).exception_name, "ProvisioningError");
  assertStringIncludes(await message(it), "MAAS says 'Failed deployment'");
  assert((await maasCalls(it)).includes("node-script-result download n0de 4"));
  assertStringIncludes(stderr, "curtin: no such disk");
  assertEquals(await it.read("maas-installation.log"), "curtin: no such disk\n");
});

Deno.test("an installation that was there before is not shown as this one's", async () => {
  await using it = await lab({
    statuses: ["Ready", "Failed deployment"],
    on: { "node-script-results read": `echo '[{"id": 3}]'` },
  });
  const { code, stderr } = await it.stage("maas2", "provision");
  assertEquals(code, 1);
  assert(!(await maasCalls(it)).some((call) => call.includes("download")));
  assert(!stderr.includes("Installation log"));
});

Deno.test("03-maas2 6: a machine deployed at another address fails, naming both", async () => {
  await using it = await lab({
    statuses: ["Ready", "Deployed"],
    addresses: ["10.9.9.9", "fd00::9"],
  });
  assertEquals((await it.stage("maas2", "provision")).code, 1);
  assertStringIncludes(await message(it), "not at 10.1.1.1");
  assertStringIncludes(await message(it), "10.9.9.9, fd00::9");
  // MAAS gets three looks to learn the address.
  assertEquals((await maasCalls(it)).filter((call) => call === "machine read n0de").length, 4);
  assertEquals(await it.calls("ssh"), []);
});

Deno.test("03-maas2 7: a machine that is never ready is helped in vain, and needs a person", async () => {
  await using it = await lab({ statuses: ["Deployed"] });
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
  await using it = await lab({ statuses: ["Deploying"] });
  assertEquals((await it.stage("maas2", "cleanup")).code, 46);
  const commands = (await maasCalls(it)).filter((call) => call !== "machine read n0de");
  assertEquals(commands.slice(-3), [
    "machine power-off n0de",
    "machine abort n0de",
    "machine release n0de",
  ]);
});

Deno.test("a last release that MAAS refuses does not hide that the machine needs a person", async () => {
  await using it = await lab({
    statuses: ["Deployed"],
    on: {
      "machine release":
        "if [ -e .again ]; then echo Conflict >&2; exit 2; fi; touch .again; echo '{}'",
    },
  });
  assertEquals((await it.stage("maas2", "cleanup")).code, 46);
});

Deno.test("03-maas2 8: a machine that is ready once marked fixed is provisioned", async () => {
  await using it = await lab({
    statuses: [...Array<string>(30).fill("Deployed"), "Ready", "Deploying", "Deployed"],
  });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  const calls = await maasCalls(it);
  assert(calls.includes("machine mark-fixed n0de"));
  assert(!calls.includes("machine power-off n0de"));
});

Deno.test("a release that has failed is not waited for", async () => {
  await using it = await lab({ statuses: ["Failed disk erasing", "Ready"] });
  assertEquals((await it.stage("maas2", "cleanup")).code, 0);
  assertEquals((await maasCalls(it)).slice(0, 3), [
    "machine release n0de",
    "machine read n0de",
    "machine mark-broken n0de",
  ]);
});

Deno.test("release_timeout_min gives MAAS time for erasing disks", async () => {
  await using it = await lab({
    config: { release_timeout_min: 7 },
    statuses: [...Array<string>(40).fill("Disk erasing"), "Ready"],
  });
  assertEquals((await it.stage("maas2", "cleanup")).code, 0);
  assertEquals(it.clock.elapsed, 410_000);
});

Deno.test("03-maas2 9: a call that fails on the way to MAAS is repeated after 10 and 20 s", async () => {
  await using it = await lab({
    on: {
      "machine release": `[ $n -gt 2 ] || { echo "Connection refused" >&2; exit 1; }; echo '{}'`,
    },
  });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  assertEquals(it.clock.paused.slice(0, 3), [10_000, 20_000, 10_000]);
});

Deno.test("a call that fails on the way four times fails, telling of each attempt", async () => {
  await using it = await lab({
    on: { "machine release": 'echo "503 Service Unavailable, attempt $n" >&2; exit 2' },
  });
  assertEquals((await it.stage("maas2", "cleanup")).code, 1);
  assertEquals(it.clock.paused, [10_000, 20_000, 40_000]);
  assertStringIncludes(
    await message(it, "cleanup"),
    "Cannot release the machine, after 4 attempts",
  );
  for (const attempt of [1, 2, 3, 4]) {
    assertStringIncludes(await message(it, "cleanup"), `attempt ${attempt}`);
  }
});

Deno.test("whatever says that MAAS cannot be reached, or is starting, is worth another attempt", async () => {
  for (
    const words of [
      "[Errno 111] Connection refused",
      "Connection reset by peer",
      "<urlopen error timed out>",
      "ReadTimeout",
      "HTTP Error 503",
      "<title>502 Bad Gateway</title>",
      "504 Gateway Time-out",
      "Temporary failure in name resolution",
      "No route to host",
    ]
  ) {
    await using it = await lab({
      on: { "machine release": `[ $n -gt 1 ] || { echo '${words}'; exit 1; }; echo '{}'` },
    });
    assertEquals((await it.stage("maas2", "cleanup")).code, 0, words);
  }
});

Deno.test("03-maas2 correction 1: a read is repeated whatever it fails with, four attempts in all", async () => {
  for (const words of ["Internal Server Error", "Not Found", "Traceback", ""]) {
    await using it = await lab({ on: { "machine read": `echo '${words}' >&2; exit 2` } });
    assertEquals((await it.stage("maas2", "cleanup")).code, 1);
    assertEquals(it.clock.paused, [10_000, 10_000, 20_000, 40_000], words);
    assertStringIncludes(
      await message(it, "cleanup"),
      "Cannot read the machine's status, after 4 attempts",
    );
  }
});

Deno.test("03-maas2 correction 1: one Internal Server Error does not end a deployment", async () => {
  for (const call of ["machine read", "machine release", "machines allocate", "machine deploy"]) {
    await using it = await lab({
      on: {
        [call]: `if [ ! -e .failed ]; then touch .failed; echo "Internal Server Error"; exit 2; fi
          count .r; [ $i -gt 1 ] && s=Deployed || s=Ready
          echo "{\\"status_name\\": \\"$s\\", \\"ip_addresses\\": [\\"10.1.1.1\\"]}"`,
      },
    });
    const { code, stderr } = await it.stage("maas2", "provision");
    assertEquals(code, 0, `${call}: ${stderr}`);
    assertStringIncludes(stderr, "trying again in 10 s");
  }
});

Deno.test("03-maas2 correction 1: a change that MAAS refuses for good is not repeated", async () => {
  for (
    const words of [
      "Not Found",
      "HTTP 409: locked",
      "Conflict: the machine is locked",
      "unrecognised arguments",
      "No available machine matches constraints: status 409",
      "Machine cannot be allocated in its current state",
      '{"distro_series": ["not one of them"]}',
      "Authorization Error: Invalid API key.",
      "usage: maas prof machines",
    ]
  ) {
    await using it = await lab({ on: { "machines allocate": `echo '${words}'; exit 2` } });
    assertEquals((await it.stage("maas2", "provision")).code, 1);
    assertStringIncludes(
      await message(it),
      "Cannot allocate the machine: 'maas machines allocate'",
    );
    assertStringIncludes(await message(it), `exit status 2: ${words}`);
    assertEquals(it.clock.paused, [10_000]);
  }
});

Deno.test("a deployment whose answer was lost is not asked for again", async () => {
  await using it = await lab({
    statuses: ["Ready", "Deploying", "Deploying", "Deployed"],
    on: { "machine deploy": "echo 'Gateway Timeout'; exit 2" },
  });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  const calls = await maasCalls(it);
  assertEquals(calls.filter((call) => call.startsWith("machine deploy")).length, 1);
});

Deno.test("warnings and banners around the JSON of maas do no harm", async () => {
  await using it = await lab({
    on: {
      "machine read": `echo "[notice] {old} client"; echo "deprecated: {}" >&2
        count .r; [ $i -gt 1 ] && s=Deployed || s=Ready
        echo "Success: {\\"status_name\\": \\"$s\\", \\"ip_addresses\\": [\\"10.1.1.1\\"]}"`,
    },
  });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
});

Deno.test("03-maas2 10: a deployment that does not end is given up after timeout_min", async () => {
  await using it = await lab({
    config: { timeout_min: 2 },
    statuses: ["Ready", "Deploying"],
    on: { "machine deploy": 'echo \'{"deploy": "answer"}\'' },
  });
  const { code, stderr } = await it.stage("maas2", "provision");
  assertEquals(code, 1);
  assertEquals(it.clock.elapsed, 10_000 + 120_000);
  assertStringIncludes(await message(it), "not ready 2 min after");
  assertStringIncludes(await message(it), "MAAS says 'Deploying'");
  assertStringIncludes(stderr, '{"deploy": "answer"}');
});

Deno.test("the time that an ssh takes which hangs counts for timeout_min", async () => {
  await using it = await lab({
    config: { timeout_min: 2 },
    statuses: ["Ready", "Deployed"],
    ssh: "hang",
  });
  assertEquals((await it.stage("maas2", "provision")).code, 1);
  // 15 s + 60 s, 15 s + 60 s: the third look would be beyond.
  assertEquals(it.clock.elapsed, 10_000 + 150_000);
  assertStringIncludes(await message(it), "'ssh' was ended after 60 s");
});

Deno.test("a machine that cannot get deployed any more is not waited for", async () => {
  for (const status of ["Broken", "Failed disk erasing", "Failed testing", "Rescue mode"]) {
    await using it = await lab({ statuses: ["Ready", "Deploying", status] });
    assertEquals((await it.stage("maas2", "provision")).code, 1);
    assertStringIncludes(await message(it), `MAAS says '${status}'`);
    assertEquals(it.clock.elapsed, 10_000 + 30_000);
  }
});

Deno.test("03-maas2 11: reset_efi puts network boot first, in one change", async () => {
  await using it = await lab({
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
    await using it = await lab({ config: { reset_efi: true }, ssh });
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
    await using it = await lab({
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
  await using it = await lab();
  assertEquals((await it.stage("maas2", "cleanup")).code, 0);
  assertEquals(await maasCalls(it), ["machine release n0de", "machine read n0de"]);
});

Deno.test("cleanup releases the machine also when the job file is gone", async () => {
  await using it = await lab();
  await Deno.remove(`${it.cwd}/testflinger.json`);
  assertEquals((await it.stage("maas2", "cleanup")).code, 0);
  assertEquals((await maasCalls(it))[0], "machine release n0de");
});

Deno.test("always_release: false leaves the machine alone when the job deployed nothing", async () => {
  for (const [job, calls] of [[{}, 0], [{ provision_data: {} }, 2]] as const) {
    await using it = await lab({ config: { always_release: false }, job });
    assertEquals((await it.stage("maas2", "cleanup")).code, 0);
    assertEquals((await maasCalls(it)).length, calls);
  }
});

Deno.test("debug shows what release and recovery commands print", async () => {
  for (const debug of [true, false]) {
    await using it = await lab({
      job: { debug },
      on: { "machine release": "echo released-now" },
    });
    const { stderr } = await it.stage("maas2", "cleanup");
    assertEquals(stderr.includes("released-now"), debug);
  }
});

/** The TPM takes the request from the nth ssh on. */
const tpmFrom = (n: number) =>
  `case "$*" in *"cat /sys"*) [ $n -ge ${n} ] && echo 5 || echo 0;; esac`;

Deno.test("03-maas2 13: a TPM that takes the request needs no deployment of its own", async () => {
  await using it = await lab({ config: { clear_tpm: true }, ssh: tpmFrom(1) });
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
  await using it = await lab({
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
    await using it = await lab({
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

Deno.test("03-maas2 14: a deployed machine that does not let us in yet is asked again", async () => {
  await using it = await lab({ statuses: ["Ready", "Deployed"], ssh: "[ $n -ge 3 ]" });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  assertEquals((await it.calls("ssh")).length, 3);
  assertEquals(it.clock.elapsed, 10_000 + 45_000);
});

Deno.test("the job's own user is tried first, and ubuntu where the image has no such user", async () => {
  await using it = await lab({
    job: { test_data: { test_username: "me" } },
    ssh: 'case "$*" in *me@*) echo "Permission denied (publickey)." >&2; exit 255;; esac',
  });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  const users = (await it.calls("ssh")).map(({ args }) => args.at(-2));
  assertEquals(users, ["me@10.1.1.1", "ubuntu@10.1.1.1"]);
});

Deno.test("03-maas2 correction 2: a cloud image that sends root away lets ubuntu in at once", async () => {
  await using it = await lab({
    job: { test_data: { test_username: "root" } },
    ssh: `case "$*" in *root@*)
      echo 'Please login as the user "ubuntu" rather than the user "root".'; exit 142;; esac`,
  });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  const users = (await it.calls("ssh")).map(({ args }) => args.at(-2));
  assertEquals(users, ["root@10.1.1.1", "ubuntu@10.1.1.1"]);
});

Deno.test("03-maas2 correction 2: no other user is tried on a machine that ssh cannot connect to", async () => {
  for (const words of ["connect to host 10.1.1.1 port 22: Connection refused", "reset by peer"]) {
    await using it = await lab({
      job: { test_data: { test_username: "root" } },
      ssh: `[ $n -gt 2 ] || { echo '${words}' >&2; exit 255; }`,
    });
    assertEquals((await it.stage("maas2", "provision")).code, 0);
    const users = (await it.calls("ssh")).map(({ args }) => args.at(-2));
    assertEquals(users, ["root@10.1.1.1", "root@10.1.1.1", "root@10.1.1.1"]);
  }
});

Deno.test("maas2 names the configuration key that it misses, in provision and in cleanup", async () => {
  for (const key of ["maas_user", "node_id"]) {
    for (const stage of ["provision", "cleanup"]) {
      await using it = await lab({ config: { [key]: null } });
      assertEquals((await it.stage("maas2", stage)).code, 1);
      assertStringIncludes(await message(it, stage), `'${key}' is missing`);
      assertEquals(await it.calls(), []);
    }
  }
  await using it = await lab({ config: { node_id: "--help" } });
  assertEquals((await it.stage("maas2", "provision")).code, 1);
  assertStringIncludes(await message(it), "node_id");
});

Deno.test("a provision that is stopped ends what runs, and starts nothing more", async () => {
  await using it = await lab({ on: { "machine deploy": "echo $$ > pid; : > deploying; hang" } });
  const stop = new AbortController();
  const running = it.stage("maas2", "provision", { signal: stop.signal });
  await until(() => it.has("deploying"));
  stop.abort(new Error("enough"));
  assertEquals((await running).code, 1);
  assertEquals((await maasCalls(it)).at(-1)?.split(" ")[1], "deploy");
  assert(!await isAlive(await it.read("pid")));
});

async function isAlive(pid: string): Promise<boolean> {
  return await isRunning(Number(pid));
}

/** Ways in which a program can let us down. */
const TROUBLE = {
  missing: { script: undefined, words: "could not be started" },
  hanging: { script: "echo $$ >> pids; hang", words: "was ended after" },
  failing: { script: "echo broken >&2; exit 3", words: "ended with exit status 3: broken" },
} as const;

Deno.test("each stage of maas2 says which program let it down, and leaves nothing running", async () => {
  for (const [stage, step] of [["provision", "release"], ["cleanup", "release"]] as const) {
    for (const [kind, { script, words }] of Object.entries(TROUBLE)) {
      await using it = await lab();
      if (script === undefined) await it.remove("maas");
      else await it.fake("maas", script);
      assertEquals((await it.stage("maas2", stage)).code, 1, `${stage} ${kind}`);
      const text = await message(it, stage);
      assertStringIncludes(text, `Cannot ${step} the machine`);
      assertStringIncludes(text, `'maas machine release' ${words}`);
      await assertNothingRuns(it, kind === "hanging" ? 4 : 0);
    }
  }
  for (const stage of ["allocate", "reserve", "runtest"]) {
    await using it = await lab({
      job: { test_data: { test_cmds: "true" }, reserve_data: { timeout: 1 } },
    });
    await it.remove("maas");
    assertEquals((await it.stage("maas2", stage)).code, 0, stage);
  }
});

/** What the calls of a provision need to succeed, by their first two words. */
const STEPS: Readonly<Record<string, string>> = {
  "machine read": "read the machine's status",
  "machines allocate": "allocate the machine",
  "machine deploy": "deploy the machine",
};

Deno.test("each call of maas that hangs or fails is named with its step", async () => {
  for (const [call, step] of Object.entries(STEPS)) {
    for (const kind of ["hanging", "failing"] as const) {
      await using it = await lab({ statuses: ["Ready"], on: { [call]: TROUBLE[kind].script } });
      assertEquals((await it.stage("maas2", "provision")).code, 1, `${call} ${kind}`);
      assertStringIncludes(await message(it), `Cannot ${step}`);
      assertStringIncludes(await message(it), `'maas ${call}' ${TROUBLE[kind].words}`);
      await assertNothingRuns(it, kind === "hanging" ? 4 : 0);
    }
  }
});

Deno.test("maas machine read that prints rubbish is named, with what it printed", async () => {
  for (
    const [rubbish, words] of [
      ["echo '<html>sorry</html>'", "printed what is not JSON: <html>sorry</html>"],
      ["true", "printed nothing"],
      ["echo '{\"status_name\": 6}'", "printed an unexpected answer: status_name: "],
      ["printf '\\377\\376{'", "printed what is not JSON: \ufffd\ufffd{"],
    ] as const
  ) {
    await using it = await lab({ on: { "machine read": rubbish } });
    assertEquals((await it.stage("maas2", "provision")).code, 1, rubbish);
    assertStringIncludes(
      await message(it),
      `Cannot read the machine's status: 'maas machine read' ${words}`,
    );
  }
});

Deno.test("what provisioning can do without is allowed to hang, to fail and to print rubbish", async () => {
  const optional = [
    ["machine set-storage-layout", "Cannot set the flat storage layout"],
    ["node-script-results read", "Cannot list the machine's installations"],
    ["version read", "Cannot read the version of MAAS"],
  ] as const;
  for (const [call, words] of optional) {
    for (const trouble of [TROUBLE.hanging.script, TROUBLE.failing.script, "echo rubbish"]) {
      await using it = await lab({
        job: { provision_data: { ephemeral: true } },
        on: { [call]: trouble },
      });
      const { code, stderr } = await it.stage("maas2", "provision");
      assertEquals(code, 0, `${call}: ${trouble}`);
      // Nobody reads what setting the layout prints.
      const silent = call === "machine set-storage-layout" && trouble === "echo rubbish";
      assertEquals(stderr.includes(`${words}`), !silent, `${call}: ${trouble}`);
      await assertNothingRuns(it, trouble === TROUBLE.hanging.script ? 4 : 0);
    }
  }
});

Deno.test("an ssh that is missing, hangs or fails is named, and never waited for too long", async () => {
  for (const [kind, { script, words }] of Object.entries(TROUBLE)) {
    await using it = await lab({
      config: { timeout_min: 3, reset_efi: true },
      statuses: ["Ready", "Deployed"],
    });
    if (script === undefined) await it.remove("ssh");
    else await it.fake("ssh", script);
    assertEquals((await it.stage("maas2", "provision")).code, 1, kind);
    assertStringIncludes(await message(it), `ubuntu@10.1.1.1: 'ssh' ${words}`);
    assert(it.clock.elapsed <= 60_000 + 10_000 + 240_000, kind);
    await assertNothingRuns(it, kind === "hanging" ? 4 : 0);
  }
});

/** All programs that hung, as many as there should have been, are gone. */
async function assertNothingRuns(lab: Lab, count: number): Promise<void> {
  const pids = (await lab.read("pids").catch(() => "")).split("\n").filter((pid) => pid !== "");
  assertEquals(pids.length, count);
  for (const pid of pids) assert(!await isAlive(pid), `process ${pid} is still there`);
}
