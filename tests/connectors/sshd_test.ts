/** Connectors against a real OpenSSH server, as device and as control host. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import {
  diskImage,
  fileSystemImage,
  fileSystemOf,
  IMAGE_TOOLS,
  incompressible,
  readFrom,
  WRITABLE_OFFSET,
  xz,
} from "../support/disk_images.ts";
import { isRunning } from "../support/processes.ts";
import { output, SSH_TOOLS, SshServer, testWithTools } from "../support/sshd.ts";
import { Lab, type Run } from "./support/lab.ts";
import { LoopControlHost, testWithLoops } from "./support/loop_control_host.ts";
import { FORCE_TREE, prepareTree } from "./support/tree_control_host.ts";
import { closedPort, httpStub, until } from "./support/stubs.ts";

const ENTRY = new URL("./support/entry.ts", import.meta.url).pathname;
const CONFIG = new URL("../../deno.json", import.meta.url).pathname;

const FLASH_TOOLS = [...SSH_TOOLS, "sshpass", "ssh-copy-id", "xz"];

const MIB = 1024 * 1024;

/** A configuration in which one server is the device and its control host. */
function configFor(server: SshServer, more: Record<string, unknown>): Record<string, unknown> {
  return {
    agent_name: server.agentName,
    device_ip: "127.0.0.1",
    ssh_port: server.port,
    control_host: "127.0.0.1",
    control_host_port: closedPort(),
    control_host_ssh_port: server.port,
    control_user: server.user,
    ...more,
  };
}

/** A job whose tests log in as the one who may. */
function jobFor(server: SshServer, provisionData: Record<string, unknown>) {
  return { provision_data: provisionData, test_data: { test_username: server.user } };
}

function provision(lab: Lab, server: SshServer, connector = "muxpi"): Promise<Run> {
  return lab.stage(connector, "provision", { env: server.env });
}

/** Makes a multiplexer that writes down how it was switched. */
async function multiplexer(server: SshServer): Promise<() => Promise<string>> {
  const log = join(server.root, "switched");
  await server.program("stm", `echo "$*" >> "${log}"`);
  return async () => (await Deno.readTextFile(log)).trim().split("\n").join(" ");
}

/** Attaches an image of `bytes`, packed with xz. */
async function attachPacked(lab: Lab, image: string): Promise<void> {
  const folder = join(lab.cwd, "attachments/provision");
  await Deno.mkdir(folder, { recursive: true });
  await Deno.rename(await xz(image), join(folder, "image.xz"));
}

async function sameBytes(file: string, other: string): Promise<void> {
  await output(["cmp", file, other]);
}

testWithTools("noprovision finds that a real ssh server answers", SSH_TOOLS, async () => {
  await using server = await SshServer.open();
  await using lab = await Lab.open();
  await lab.config(configFor(server, { control_host: undefined, reboot_script: "touch reset" }));
  await lab.job({ test_data: { test_username: server.user } });
  const run = await provision(lab, server, "noprovision");
  assertEquals(run.code, 0, run.stderr);
  assert(!await lab.has("reset"));
});

testWithTools("noprovision resets a device whose ssh server knows nobody", SSH_TOOLS, async () => {
  await using server = await SshServer.open();
  await using lab = await Lab.open();
  const keys = join(server.home, ".ssh/authorized_keys");
  await Deno.rename(keys, `${keys}.away`);
  await lab.config(
    configFor(server, { control_host: undefined, reboot_script: `mv ${keys}.away ${keys}` }),
  );
  await lab.job({ test_data: { test_username: server.user } });
  const run = await provision(lab, server, "noprovision");
  assertEquals(run.code, 0, run.stderr);
  assertStringIncludes(run.stderr, "Permission denied (publickey)");
  assertEquals(lab.clock.paused, [60_000, 10_000]);
});

testWithTools(
  "oemrecovery runs its commands on a real device over one login, and sees it come up by others",
  [...SSH_TOOLS, "sshpass", "ssh-copy-id"],
  async () => {
    await using server = await SshServer.open({
      // Another boot from the moment on when the device has been told to recover.
      forceCommand: `case "$SSH_ORIGINAL_COMMAND" in *boot_id) ` +
        `test -e {root}/recovered && echo new || echo old; exit;; esac; ` +
        `cd {root} && exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"`,
    });
    await using lab = await Lab.open();
    await server.program("snap", 'test "$1" = model && echo "model generic-classic"');
    await lab.config(
      configFor(server, {
        control_host: undefined,
        recovery_cmds: [
          "echo one >> done",
          "echo two >> done",
          "echo three >> done",
          "touch recovered",
        ],
      }),
    );
    await lab.job({ provision_data: { a: 1 }, test_data: { test_username: server.user } });
    const run = await provision(lab, server, "oemrecovery");
    assertEquals(run.code, 0, run.stderr);
    assertEquals(await Deno.readTextFile(join(server.root, "done")), "one\ntwo\nthree\n");
    // Two of ssh-copy-id, two for boot ids, one for snapd, and one for all the commands.
    assertEquals(server.logins, 6);
  },
);

testWithTools(
  "reserve lets in whoever's key is served, and nobody else",
  [...SSH_TOOLS, "ssh-copy-id", "ssh-import-id"],
  async () => {
    await using server = await SshServer.open();
    await using lab = await Lab.open();
    const alice = await server.makeKey("alice");
    const mallory = await server.makeKey("mallory");
    await using keys = httpStub(({ path }) =>
      path === "/alice" ? new Response(alice.publicKey) : new Response("?", { status: 404 })
    );
    await lab.config(configFor(server, { control_host: undefined }));
    await lab.job({
      test_data: { test_username: server.user },
      reserve_data: { ssh_keys: ["lp:alice", "lp:nobody"], timeout: 30 },
    });
    // Where ssh-import-id looks for the keys of Launchpad's users.
    const env = { ...server.env, URL: `${keys.url}/%s` };
    const run = await lab.stage("noprovision", "reserve", { env });
    assertEquals(run.code, 0, run.stderr);
    assertStringIncludes(run.stdout, "*** TESTFLINGER SYSTEM RESERVED ***");
    assertStringIncludes(run.stdout, `${server.user}@127.0.0.1\n`);
    assert(!run.stdout.includes("WARNING"), run.stdout);
    const login = (key: string) =>
      output([
        "ssh",
        ...["-F", "none", "-i", key, "-p", String(server.port)],
        ...["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes"]
          .flatMap((option) => ["-o", option]),
        ...["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"],
        `${server.user}@127.0.0.1`,
        "echo in",
      ]);
    assertEquals(await login(alice.file), "in");
    assertEquals(await login(mallory.file).catch(() => "out"), "out");
  },
);

testWithTools(
  "muxpi writes a real image of 64 MiB over ssh, byte by byte, and its user into a tree",
  FLASH_TOOLS,
  async () => {
    await using server = await SshServer.open({ forceCommand: FORCE_TREE });
    await using lab = await Lab.open();
    const switched = await multiplexer(server);
    const medium = await prepareTree(server);
    const image = join(lab.root, "image");
    // Half of it is as packed programs are, half is empty.
    const bytes = new Uint8Array(64 * MIB);
    bytes.set(incompressible(32 * MIB), 16 * MIB);
    await Deno.writeFile(image, bytes);
    await attachPacked(lab, image);
    await lab.config(
      configFor(server, { test_device: medium, verify_flash: true }),
    );
    await lab.job(jobFor(server, { use_attachment: "image.xz" }));

    const run = await provision(lab, server);

    assertEquals(run.code, 0, run.stderr);
    await sameBytes(medium, image);
    assertStringIncludes(run.stderr, `Read back ${64 * MIB} bytes`);
    assertEquals(await switched(), "-ts -dut");
    const seed = join(server.root, "tree/var/lib/cloud/seed/nocloud-net");
    const userData = await Deno.readTextFile(join(seed, "user-data"));
    assertStringIncludes(userData, "#cloud-config");
    assertStringIncludes(
      userData,
      (await Deno.readTextFile(join(server.clientHome, ".ssh/id_ed25519.pub"))).trim(),
    );
    const { mode } = await Deno.stat(join(seed, "user-data"));
    assertEquals((mode ?? 0) & 0o777, 0o600);
  },
);

testWithTools(
  "muxpi logs in on the control host once, whatever it does there",
  FLASH_TOOLS,
  async () => {
    await using server = await SshServer.open({ forceCommand: FORCE_TREE });
    await using lab = await Lab.open();
    await using device = httpStub(() => new Response("up"));
    await multiplexer(server);
    const image = join(lab.root, "image");
    await Deno.writeFile(image, incompressible(MIB));
    await attachPacked(lab, image);
    await lab.config(
      configFor(server, {
        test_device: await prepareTree(server),
        verify_flash: true,
        mounted_image_script: "true",
        post_provision_script: ["true", "false"],
      }),
    );
    await lab.job(
      jobFor(server, { use_attachment: "image.xz", boot_check_url: `${device.url}/ready` }),
    );
    const run = await provision(lab, server);
    assertEquals(run.code, 0, run.stderr);
    assertEquals(server.logins, 1);
  },
);

await testWithLoops("muxpi finds the partitions of a real image, and puts the user in", {
  tools: [...FLASH_TOOLS, ...IMAGE_TOOLS, "hdparm"],
  async test() {
    await using server = await SshServer.open();
    await using lab = await Lab.open();
    await using host = await LoopControlHost.open(server);
    const switched = await multiplexer(server);
    const image = await diskImage(lab.root);
    const { device, file: medium } = await host.blockDevice((await Deno.stat(image)).size);
    await attachPacked(lab, image);
    await lab.config(configFor(server, { test_device: device }));

    // As it came: every byte of it.
    await lab.job(jobFor(server, { use_attachment: "image.xz", create_user: false }));
    const plain = await provision(lab, server);
    assertEquals(plain.code, 0, plain.stderr);
    await sameBytes(medium, image);

    // With a user: the file system is whole, and says so.
    await lab.job(jobFor(server, { use_attachment: "image.xz" }));
    const run = await provision(lab, server);
    assertEquals(run.code, 0, run.stderr);
    assertStringIncludes(run.stderr, "The image is of the type ubuntu");
    assertEquals(await switched(), "-ts -dut -ts -dut");
    assertEquals(await host.mounts(), []);
    await host.close();
    const fileSystem = await fileSystemOf(medium, WRITABLE_OFFSET);
    const seed = "/var/lib/cloud/seed/nocloud-net";
    const userData = await readFrom(fileSystem, `${seed}/user-data`);
    assertStringIncludes(userData, "#cloud-config");
    assertStringIncludes(userData, server.user);
    const fake = await readFrom(fileSystem, "/etc/cloud/cloud.cfg.d/99-fake_cloud.cfg");
    assertEquals(fake, "");
  },
});

await testWithLoops(
  "muxpi writes to a real block device, reads it back, and mounts what is on it",
  {
    tools: [...FLASH_TOOLS, ...IMAGE_TOOLS, "hdparm"],
    async test() {
      await using server = await SshServer.open();
      await using lab = await Lab.open();
      await using host = await LoopControlHost.open(server);
      const switched = await multiplexer(server);
      const image = await fileSystemImage(lab.root, 16 * MIB);
      const { device, file } = await host.blockDevice(16 * MIB);
      await attachPacked(lab, image);
      await lab.config(configFor(server, { test_device: device, verify_flash: true }));
      await lab.job(jobFor(server, { use_attachment: "image.xz" }));
      // As desktops do it as soon as a medium appears.
      await output(["mkfs.ext4", "-q", device]);
      const auto = join(server.root, "auto");
      await Deno.mkdir(auto);
      await output(["mount", device, auto]);
      const run = await provision(lab, server);
      const isMounted = await output(["mountpoint", auto]).then(() => true, () => false);
      if (isMounted) await output(["umount", auto]);
      assert(!isMounted, "the medium was written to while it was mounted");
      assertEquals(run.code, 0, run.stderr);
      assertEquals(await switched(), "-ts -dut");
      assertStringIncludes(run.stderr, `Read back ${16 * MIB} bytes from ${device}`);
      assertEquals(await host.mounts(), []);
      await host.close();
      const path = "/var/lib/cloud/seed/nocloud-net/user-data";
      const userData = await readFrom(await fileSystemOf(file, 0), path);
      assertStringIncludes(userData, "#cloud-config");
    },
  },
);

/**
 * Starts muxpi in a process of its own, and stops it when the file `started` is there.
 *
 * @returns what it logged.
 */
async function stopWhen(
  started: string,
  { lab, server, signal }: { lab: Lab; server: SshServer; signal: keyof typeof STOP_STATUS },
): Promise<string> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", "--config", CONFIG, ENTRY],
      ...["muxpi", "provision", "-c", "c.yaml", "testflinger.json"],
    ],
    cwd: lab.cwd,
    env: {
      ...server.env,
      TFDC_TIME_SCALE: "0.001",
      DENO_DIR: Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno`,
    },
    clearEnv: true,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const stderr = new Response(child.stderr).text();
  await until(() => Deno.stat(started).then(() => true, () => false));
  child.kill(signal);
  const { code } = await child.status;
  assertEquals(code, STOP_STATUS[signal], await stderr);
  assertStringIncludes(await stderr, `stopped by ${signal}`);
  for await (const { name } of Deno.readDir(lab.cwd)) assert(!name.startsWith(".muxpi"), name);
  return await stderr;
}

const STOP_STATUS = { SIGTERM: 143, SIGINT: 130, SIGHUP: 129 };

for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
  testWithTools(
    `${signal} in the middle of writing ends it, and gives the storage back`,
    FLASH_TOOLS,
    async () => {
      await using server = await SshServer.open({ forceCommand: FORCE_TREE });
      await using lab = await Lab.open();
      const switched = await multiplexer(server);
      const medium = await prepareTree(server);
      // A medium that takes nothing more after its first block, until it is switched away.
      const pid = join(server.root, "dd.pid");
      const away = join(server.root, "away");
      await server.program(
        "dd",
        `head -c 65536 > "${medium}"; echo $$ > "${pid}.part"; mv "${pid}.part" "${pid}"; ` +
          `until test -e "${away}"; do sleep 0.05; done; cat > "${server.root}/rest"`,
      );
      await server.program(
        "stm",
        `echo "$*" >> "${server.root}/switched"; test "$1" = -ts || touch "${away}"`,
      );
      const image = join(lab.root, "image");
      await Deno.writeFile(image, incompressible(8 * MIB));
      await attachPacked(lab, image);
      await lab.config(configFor(server, { test_device: medium }));
      await lab.job(jobFor(server, { use_attachment: "image.xz" }));
      await stopWhen(pid, { lab, server, signal });
      assertEquals(await switched(), "-ts -dut");
      // What wrote on the control host has noticed, and is gone.
      const writer = Number(await Deno.readTextFile(pid));
      await until(async () => !await isRunning(writer));
    },
  );

  await testWithLoops(
    `${signal} when a partition has just been mounted unmounts it, and gives the storage back`,
    {
      tools: [...FLASH_TOOLS, ...IMAGE_TOOLS, "hdparm"],
      async test() {
        await using server = await SshServer.open();
        await using lab = await Lab.open();
        await using host = await LoopControlHost.open(server);
        const switched = await multiplexer(server);
        const image = await fileSystemImage(lab.root, 8 * MIB);
        const { device } = await host.blockDevice(8 * MIB);
        // It mounts, and does not come back before it is unmounted.
        const pid = join(server.root, "mount.pid");
        await server.program("sudo", 'exec "$@"');
        await server.program(
          "mount",
          `for to; do :; done; /usr/bin/mount "$@" || exit; echo $$ > "${pid}.part"; ` +
            `mv "${pid}.part" "${pid}"; while mountpoint -q "$to"; do sleep 0.05; done`,
        );
        await attachPacked(lab, image);
        await lab.config(configFor(server, { test_device: device }));
        await lab.job(jobFor(server, { use_attachment: "image.xz" }));
        const log = await stopWhen(pid, { lab, server, signal });
        assert(!log.includes("Cannot put back"), log);
        assertEquals(await host.mounts(), []);
        assertEquals(await switched(), "-ts -dut");
        const mounter = Number(await Deno.readTextFile(pid));
        await until(async () => !await isRunning(mounter));
      },
    },
  );
}
