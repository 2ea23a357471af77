/** 13-cm3. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { output, SSH_TOOLS, SshServer, testWithTools } from "../support/sshd.ts";
import { ControlHost, type ImagePartition } from "./support/control_host.ts";
import { Lab, type Run } from "./support/lab.ts";
import { closedPort, httpStub, until } from "./support/stubs.ts";
import { FORCE_TREE, prepareTree } from "./support/tree_control_host.ts";

const UBUNTU: readonly ImagePartition[] = [
  { name: "sda1", label: "system-boot" },
  {
    name: "sda2",
    label: "writable",
    files: { "boot/x": "", "etc/cloud/cloud.cfg.d/99-fake_cloud.cfg": "fake", "usr/x": "" },
  },
];

const ENTRY = new URL("./support/entry.ts", import.meta.url).pathname;
const CONFIG = new URL("../../deno.json", import.meta.url).pathname;

const URL_OF_IMAGE = "http://images/ubuntu.img.xz";

/** A board with its control host, on which programs write down what they are called with. */
async function board(partitions: readonly ImagePartition[] = UBUNTU) {
  const lab = await Lab.open();
  const host = await ControlHost.open(lab, partitions);
  for (const program of ["pi3gpio", "cm3-installer", "udisksctl"]) await host.fake(program, "");
  const log = join(host.root, "log");
  await lab.fake("ssh-copy-id", `echo 'key copy' >> ${log}`);
  await lab.config(config({ reboot_script: [`echo reset >> ${log}`] }));
  await lab.job({ provision_data: { url: URL_OF_IMAGE } });
  return { lab, host };
}

function config(more: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    agent_name: "a1",
    device_ip: "10.1.1.1",
    control_host: "10.1.1.2",
    control_host_port: closedPort(),
    test_device: "/dev/sda",
    reboot_script: ["true"],
    ...more,
  };
}

/** Where the control host has been given `control_host_port`, nobody listens: the hook says so. */
function provision(lab: Lab): Promise<Run> {
  return lab.stage("cm3", "provision", { env: { DISABLE_CONTROL_HOST_POWERCYCLE: "1" } });
}

/** The switches of the GPIO, and resets. */
async function switches(host: ControlHost): Promise<string[]> {
  return (await host.done()).filter((line) => /^(pi3gpio|reset)/.test(line));
}

Deno.test("13-cm3 1: the module is written by way of USB boot, gets its user, and boots", async () => {
  const { lab, host } = await board();
  await using _lab = lab;
  const run = await provision(lab);
  assertEquals(run.code, 0, run.stderr);
  const done = await host.done();
  assertEquals(done, [
    "pi3gpio set high 16",
    "reset",
    `cm3-installer ${URL_OF_IMAGE}`,
    "lsblk -o NAME,LABEL,TYPE -J /dev/sda",
    "mount -o nosuid,nodev /dev/sda1 /mnt/a1/system-boot",
    "mount -o nosuid,nodev /dev/sda2 /mnt/a1/writable",
    "sync",
    "umount /mnt/a1/writable",
    "umount /mnt/a1/system-boot",
    "sync",
    "udisksctl power-off -b /dev/sda",
    "pi3gpio set low 16",
    "reset",
    "key copy",
  ]);
  const commands = (await lab.calls("ssh")).map(({ args }) => args.at(-1) ?? "");
  assertEquals(commands[0], "test -f /dev/sda && sudo rm -f /dev/sda");
  const seed = "var/lib/cloud/seed/nocloud-net";
  assertStringIncludes(await host.read("sda2", `${seed}/user-data`), "ssh_pwauth: true");
  assert(await host.has("sda2", `${seed}/meta-data`));
  assert(!await host.has("sda2", "etc/cloud/cloud.cfg.d/99-fake_cloud.cfg"));
  assertEquals(lab.clock.paused, [5_000, 5_000, 5_000, 5_000, 10_000]);
});

Deno.test("13-cm3 2: a job without an image is refused before anything is switched", async () => {
  const { lab, host } = await board();
  await using _lab = lab;
  for (const data of [{}, { url: null }, { url: "no url" }]) {
    await lab.job({ provision_data: data });
    assertEquals((await provision(lab)).code, 1);
    const failure = await lab.failure("provision");
    assertEquals(failure.exception_name, "ProvisioningError");
    assertStringIncludes(failure.exception_message ?? "", "url");
  }
  assertEquals(await lab.calls("ssh"), []);
  assertEquals(await host.done(), []);
});

Deno.test("13-cm3 3: an image with snaps in ubuntu-seed gets its user by a cloud configuration", async () => {
  const { lab, host } = await board([
    { name: "sda1", label: "ubuntu-seed", files: { snaps: null } },
  ]);
  await using _lab = lab;
  const run = await provision(lab);
  assertEquals(run.code, 0, run.stderr);
  const text = await host.read("sda1", "data/etc/cloud/cloud.cfg.d/99_nocloud.cfg");
  assertStringIncludes(text, "NoCloud");
});

Deno.test("13-cm3 4: an image with system-data in writable gets its user below it", async () => {
  const { lab, host } = await board([
    { name: "sda1", label: "writable", files: { "system-data": null } },
  ]);
  await using _lab = lab;
  const run = await provision(lab);
  assertEquals(run.code, 0, run.stderr);
  assert(await host.has("sda1", "system-data/var/lib/cloud/seed/nocloud-net/user-data"));
});

Deno.test("13-cm3 5: a failing installer is told in its own words, and the module switched back", async () => {
  const { lab, host } = await board();
  await using _lab = lab;
  await host.fake("cm3-installer", "echo bad image; exit 1");
  const run = await provision(lab);
  assertEquals(run.code, 1);
  const failure = await lab.failure("provision");
  assertEquals(failure.exception_name, "ProvisioningError");
  assertStringIncludes(failure.exception_message ?? "", "bad image");
  assertStringIncludes(run.stdout, "bad image");
  assertEquals(await switches(host), [
    "pi3gpio set high 16",
    "reset",
    "pi3gpio set low 16",
    "reset",
  ]);
});

Deno.test("13-cm3 6: an installer that takes more than 30 min is ended", async () => {
  const { lab, host } = await board();
  await using _lab = lab;
  await host.fake("cm3-installer", "hang");
  assertEquals((await provision(lab)).code, 1);
  const failure = await lab.failure("provision");
  assertEquals(failure.exception_name, "ProvisioningError");
  assertStringIncludes(failure.exception_message ?? "", "was ended after 1800 s");
  assertEquals((await switches(host)).at(-2), "pi3gpio set low 16");
});

Deno.test("13-cm3 7: a reset that fails takes the agent offline, with the module switched back", async () => {
  const { lab, host } = await board();
  await using _lab = lab;
  await lab.config(config({ reboot_script: ["false"] }));
  assertEquals((await provision(lab)).code, 46);
  assertEquals(await switches(host), ["pi3gpio set high 16", "pi3gpio set low 16"]);
});

Deno.test("13-cm3 8: a device that never boots fails 600 s after its reset", async () => {
  const { lab } = await board();
  await using _lab = lab;
  await lab.fake("ssh-copy-id", "exit 1");
  assertEquals((await provision(lab)).code, 1);
  assertStringIncludes(
    (await lab.failure("provision")).exception_message ?? "",
    "was not up 600 s after its reset",
  );
  assertEquals(lab.clock.elapsed, 20_000 + 600_000);
});

Deno.test("13-cm3 9: all that is done is done to test_device", async () => {
  const { lab, host } = await board([{ ...UBUNTU[1], name: "sdb2", label: "writable" }]);
  await using _lab = lab;
  await host.blockDevices({ name: "sdb", children: [{ name: "sdb2", label: "writable" }] });
  await lab.config(config({ test_device: "/dev/sdb", usb_boot_gpio: 21 }));
  const run = await provision(lab);
  assertEquals(run.code, 0, run.stderr);
  const commands = (await lab.calls("ssh")).map(({ args }) => args.at(-1) ?? "");
  assert(!commands.some((command) => command.includes("sda")));
  assert(commands[0]?.startsWith("test -f /dev/sdb"));
  assert((await host.done()).includes("udisksctl power-off -b /dev/sdb"));
  assertEquals(await switches(host), ["pi3gpio set high 21", "pi3gpio set low 21"]);
});

Deno.test("13-cm3 10: whatever is in a URL, no shell reads it", async () => {
  const { lab, host } = await board();
  await using _lab = lab;
  const url = "http://x/$(touch x);'\"&`touch y`";
  await lab.job({ provision_data: { url } });
  const run = await provision(lab);
  assertEquals(run.code, 0, run.stderr);
  assert((await host.done()).includes(`cm3-installer ${url}`), (await host.done()).join("\n"));
  for (const name of ["x", "y"]) {
    assert(!await Deno.stat(join(host.root, name)).then(() => true, () => false));
  }
});

Deno.test("an image of unknown type fails, and the module boots as before", async () => {
  for (
    const [partitions, why] of [
      [[{ name: "sda1", label: "boot" }, { name: "sda2", label: "rootfs" }], "of no known type"],
      [[{ name: "sda1", label: null }], "no partition of /dev/sda has a label"],
    ] as const
  ) {
    const { lab, host } = await board(partitions);
    await using _lab = lab;
    assertEquals((await provision(lab)).code, 1);
    assertStringIncludes((await lab.failure("provision")).exception_message ?? "", why);
    assertEquals(await host.mounted(), []);
    assertEquals((await switches(host)).slice(-2), ["pi3gpio set low 16", "reset"]);
  }
});

Deno.test("SIGTERM in the middle of writing switches the module back", async () => {
  const { lab, host } = await board();
  await using _lab = lab;
  await host.fake("cm3-installer", 'echo > "$R/begun"; exec sleep 100000');
  await Deno.symlink("/usr/bin/sleep", join(host.root, "bin/sleep")).catch(() => {});
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", "--config", CONFIG, ENTRY],
      ...["cm3", "provision", "-c", "c.yaml", "testflinger.json"],
    ],
    cwd: lab.cwd,
    env: {
      ...lab.env({ TFDC_TIME_SCALE: "0.001", DISABLE_CONTROL_HOST_POWERCYCLE: "1" }),
      DENO_DIR: Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno`,
    },
    clearEnv: true,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  await until(() => Deno.stat(join(host.root, "begun")).then(() => true, () => false));
  child.kill("SIGTERM");
  assertEquals((await child.status).code, 143);
  assertEquals((await switches(host)).slice(-2), ["pi3gpio set low 16", "reset"]);
});

Deno.test("each program of the control host that is missing or fails is named", async () => {
  for (const program of ["pi3gpio", "cm3-installer", "lsblk", "mount", "udisksctl"]) {
    for (const how of ["missing", "failing", "babbling"]) {
      const { lab, host } = await board();
      await using _lab = lab;
      if (how === "missing") await host.remove(program);
      else await host.fake(program, how === "failing" ? "echo boom >&2; exit 3" : "echo '<html>'");
      const run = await provision(lab);
      // Those of which only the exit status counts.
      const mute = ["pi3gpio", "cm3-installer", "udisksctl"].includes(program);
      if (how === "babbling" && mute) {
        assertEquals(run.code, 0, `${program} ${how}: ${run.stderr}`);
        continue;
      }
      assertEquals(run.code, 1, `${program} ${how}`);
      assertStringIncludes((await lab.failure("provision")).exception_message ?? "", program);
      assertEquals(await host.mounted(), []);
    }
  }
});

Deno.test("the password is in no argument and in no log", async () => {
  const { lab, host } = await board();
  await using _lab = lab;
  await lab.job({
    provision_data: { url: URL_OF_IMAGE },
    test_data: { test_password: "s3cret pass" },
  });
  const run = await provision(lab);
  assertEquals(run.code, 0, run.stderr);
  for (const { args } of await lab.calls()) assert(!args.join(" ").includes("s3cret"));
  assert(!(run.stderr + run.stdout).includes("s3cret"));
  assertStringIncludes(
    await host.read("sda2", "var/lib/cloud/seed/nocloud-net/user-data"),
    "s3cret pass",
  );
});

testWithTools(
  "a module is provisioned over a real ssh server, with one login to the control host",
  [...SSH_TOOLS, "sshpass", "ssh-copy-id"],
  async () => {
    await using server = await SshServer.open({ forceCommand: FORCE_TREE });
    await using lab = await Lab.open();
    await prepareTree(server);
    const log = join(server.root, "called");
    for (const program of ["pi3gpio", "cm3-installer", "udisksctl"]) {
      await server.program(program, `echo "${program} $*" >> ${log}`);
    }
    await lab.config(config({
      agent_name: server.agentName,
      device_ip: "127.0.0.1",
      ssh_port: server.port,
      control_host: "127.0.0.1",
      control_host_ssh_port: server.port,
      control_user: server.user,
      test_device: "/dev/loop-of-the-test",
    }));
    await lab.job({
      provision_data: { url: URL_OF_IMAGE },
      test_data: { test_username: server.user },
    });
    const run = await lab.stage("cm3", "provision", { env: server.env });
    assertEquals(run.code, 0, run.stderr);
    assertEquals((await Deno.readTextFile(log)).trim().split("\n"), [
      "pi3gpio set high 16",
      `cm3-installer ${URL_OF_IMAGE}`,
      "udisksctl power-off -b /dev/loop-of-the-test",
      "pi3gpio set low 16",
    ]);
    const seed = join(server.root, "tree/var/lib/cloud/seed/nocloud-net/user-data");
    assertStringIncludes(await output(["cat", seed]), server.user);
    // One for all that is done on the control host; the rest is ssh-copy-id, as this is the device, too.
    assert(server.logins <= 4, `${server.logins} logins`);
  },
);

testWithTools(
  "where the configuration shows how to see the eMMC, the agent writes it: from the cache, with the block map",
  [...SSH_TOOLS, "sshpass", "ssh-copy-id"],
  async () => {
    await using server = await SshServer.open({ forceCommand: FORCE_TREE });
    await using lab = await Lab.open();
    const medium = await prepareTree(server);
    const image = Uint8Array.from({ length: 3 * 4096 }, (_, i) => (i * 7919) % 251);
    await using images = httpStub(({ path }) =>
      path === "/i.img" ? new Response(image, { headers: { etag: '"1"' } }) : new Response(
        `<bmap version="1.2"><ImageSize>12288</ImageSize><BlockSize>4096</BlockSize>` +
          `<BlocksCount>3</BlocksCount><MappedBlocksCount>2</MappedBlocksCount>` +
          `<BlockMap><Range>0</Range><Range>2</Range></BlockMap></bmap>`,
      )
    );
    const log = join(server.root, "called");
    for (const program of ["pi3gpio", "cm3-installer", "udisksctl"]) {
      await server.program(program, `echo "${program} $*" >> ${log}`);
    }
    // What stands for the eMMC is there only behind its script: a plain file is removed before.
    await server.program("rpiboot", `echo rpiboot >> ${log}; : > ${medium}`);
    await lab.config(config({
      agent_name: server.agentName,
      device_ip: "127.0.0.1",
      ssh_port: server.port,
      control_host: "127.0.0.1",
      control_host_ssh_port: server.port,
      control_user: server.user,
      test_device: medium,
      usb_boot_script: ["sudo rpiboot"],
    }));
    await lab.job({
      provision_data: { url: `${images.url}/i.img` },
      test_data: { test_username: server.user },
    });
    const cache = join(lab.root, "cache");
    const run = await lab.stage("cm3", "provision", {
      env: {
        ...server.env,
        TESTFLINGER_IMAGE_CACHE: cache,
        TESTFLINGER_IMAGE_CACHE_MAX: "1000000000",
      },
    });
    assertEquals(run.code, 0, run.stderr);
    assertEquals((await Deno.readTextFile(log)).trim().split("\n"), [
      "pi3gpio set high 16",
      "rpiboot",
      `udisksctl power-off -b ${medium}`,
      "pi3gpio set low 16",
    ]);
    assertEquals(await Deno.readFile(medium), image.map((byte, at) => at >> 12 === 1 ? 0 : byte));
    assertEquals([...Deno.readDirSync(join(cache, "content"))].length, 1);
  },
);
