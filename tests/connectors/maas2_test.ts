/** maas2: what is deployed, and by which calls. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Lab } from "./support/lab.ts";
import { maasCalls, maasLab, message } from "./support/maas.ts";

async function deployCall(lab: Lab): Promise<string> {
  return (await maasCalls(lab)).find((call) => call.startsWith("machine deploy")) ?? "no deploy";
}

Deno.test("03-maas2 1: a job without wishes deploys jammy with a flat layout", async () => {
  await using it = await maasLab();
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
  await using it = await maasLab({ job: { provision_data: null } });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  assertEquals(await deployCall(it), "machine deploy n0de distro_series=jammy");
});

Deno.test("03-maas2 2: distro, kernel and user data reach the deployment", async () => {
  await using it = await maasLab({
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
    await using it = await maasLab({ job: { provision_data: { user_data: given } } });
    assertEquals((await it.stage("maas2", "provision")).code, 0);
    assertStringIncludes(await deployCall(it), ` user_data=${sent}`);
  }
});

Deno.test("user data that no command line can hold is refused before the machine is touched", async () => {
  await using it = await maasLab({ job: { provision_data: { user_data: "#".repeat(100_000) } } });
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
    await using it = await maasLab({
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
  await using it = await maasLab({
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
  await using it = await maasLab({
    statuses: ["Ready", "Failed deployment"],
    on: { "node-script-results read": `echo '[{"id": 3}]'` },
  });
  const { code, stderr } = await it.stage("maas2", "provision");
  assertEquals(code, 1);
  assert(!(await maasCalls(it)).some((call) => call.includes("download")));
  assert(!stderr.includes("Installation log"));
});

Deno.test("03-maas2 6: a machine deployed at another address fails, naming both", async () => {
  await using it = await maasLab({
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

Deno.test("03-maas2 14: a deployed machine that does not let us in yet is asked again", async () => {
  await using it = await maasLab({ statuses: ["Ready", "Deployed"], ssh: "[ $n -ge 3 ]" });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  assertEquals((await it.calls("ssh")).length, 3);
  assertEquals(it.clock.elapsed, 10_000 + 45_000);
});

Deno.test("the job's own user is tried first, and ubuntu where the image has no such user", async () => {
  await using it = await maasLab({
    job: { test_data: { test_username: "me" } },
    ssh: 'case "$*" in *me@*) echo "Permission denied (publickey)." >&2; exit 255;; esac',
  });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  const users = (await it.calls("ssh")).map(({ args }) => args.at(-2));
  assertEquals(users, ["me@10.1.1.1", "ubuntu@10.1.1.1"]);
});

Deno.test("03-maas2 correction 2: a cloud image that sends root away lets ubuntu in at once", async () => {
  await using it = await maasLab({
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
    await using it = await maasLab({
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
      await using it = await maasLab({ config: { [key]: null } });
      assertEquals((await it.stage("maas2", stage)).code, 1);
      assertStringIncludes(await message(it, stage), `'${key}' is missing`);
      assertEquals(await it.calls(), []);
    }
  }
  await using it = await maasLab({ config: { node_id: "--help" } });
  assertEquals((await it.stage("maas2", "provision")).code, 1);
  assertStringIncludes(await message(it), "node_id");
});
