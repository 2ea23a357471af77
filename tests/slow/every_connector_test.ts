/**
 * A whole job for each device connector: submitted to a server, run by the built file through all of its
 * phases, with the device at the far end of a real ssh connection. The device's own programs are
 * stand-ins: what they are asked to do is noted and not done.
 */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { CONNECTOR_NAMES } from "../../connectors/registry.ts";
import { Lab } from "../support/lab.ts";
import { SSH_TOOLS, SshServer, testWithTools } from "../support/sshd.ts";
import { httpStub } from "../connectors/support/stubs.ts";
import { FORCE_TREE, prepareTree } from "../connectors/support/tree_control_host.ts";
import { startProgram } from "../e2e/built_program.ts";

const TOOLS = [...SSH_TOOLS, "sshpass", "ssh-copy-id", "xz", "tar", "git"];

const IMAGE = Uint8Array.from({ length: 200_000 }, (_, i) => (i * 7919) % 251);

/** What a boot id is asked for by; it differs after every reboot. */
const FORCE = `case "$SSH_ORIGINAL_COMMAND" in
  "cat /proc/sys/kernel/random/boot_id") cat {root}/boot_id ;;
  "cat /etc/os-release") cat {root}/os-release ;;
  "cat /cdrom/preseed/project.cfg") echo "d-i a/b string c" ;;
  *) exec /bin/sh -c "$SSH_ORIGINAL_COMMAND" ;;
esac`;

/** A device on which the home of its user is the server's own. */
const FORCE_HOME = `SSH_ORIGINAL_COMMAND=$(printf %s "$SSH_ORIGINAL_COMMAND" | ` +
  `sed 's#/home/ubuntu#{root}/home#g')\n${FORCE}`;

/** What root does on the device: everything that would change it is only noted. */
const SUDO = `echo "$*" >> {root}/done
while case "$1" in env|*=*|-*) true ;; *) false ;; esac; do shift; done
case "$*" in
  *chassis_vendor) echo HP ;;
  *chassis_type) echo 13 ;;
  *get-devices*) echo '{"Devices": []}' ;;
  "sh -s"*) cat >> {root}/scripts ;;
  # What writes a card and reads it back: there the card is a file.
  "sh -c LC_ALL"*) shift 2; exec sh -c "$(printf %s "$1" | sed 's#/dev/mmcblk1#{root}/card#g')" ;;
  "head -c"*/dev/mmcblk1) head -c "$3" {root}/card ;;
  "sh -c umask"*) cat >> {root}/written ;;
  "sh -c"*) case "$*" in *dell-restore*|*reboot*) {root}/bin/reboot ;; *) cat >> {root}/written ;; esac ;;
  "file -b"*) echo application/x-iso9660-image ;;
  *"-type d") printf '%s\\n' "'/cloud-configs/grub'" "'/sideloads'" ;;
  *"-type f") printf '%s\\n' "'/casper/vmlinuz'" "'/casper/initrd'" ;;
  reboot|/sbin/reboot) {root}/bin/reboot ;;
esac`;

const EFI = "c12a7328-f81f-11d2-ba4b-00c04fc93ec9";
const DISKS = JSON.stringify({
  blockdevices: [{
    children: [
      {
        name: "sda1",
        path: "/dev/sda1",
        type: "part",
        parttype: EFI,
        partuuid: "e",
        mountpoint: "/boot/efi",
      },
      {
        name: "sda2",
        path: "/dev/sda2",
        type: "part",
        fstype: "vfat",
        label: "RESET",
        partuuid: "r",
      },
      { name: "sda3", path: "/dev/sda3", type: "part", fstype: "ext4", mountpoint: "/" },
    ],
  }],
});

/** A device, and what a job on it needs. */
interface Scene {
  connector: string;
  config?: (world: World) => Record<string, unknown>;
  provisionData: (world: World) => Record<string, unknown>;
  /** What must have been done on the device. */
  done?: readonly string[];
  /** @default the one who runs the tests */
  user?: string;
  /** What the server does with each command. @default FORCE */
  force?: string;
  /** Sets up what is special about this device. */
  prepare?: (world: World) => Promise<void>;
}

interface World {
  lab: Lab;
  server: SshServer;
  /** Of a server with an image and an ISO, and of an imager. */
  port: number;
}

const OEM = {
  config: ({ lab }: World) => ({ oem_preset_dir: join(lab.folder, "presets") }),
  provisionData: ({ port }: World) => ({ url: `http://127.0.0.1:${port}/pc-jammy.iso` }),
  user: "ubuntu",
};

/** The service of a control host, and its power. */
const CONTROL_HOST = ({ server, port }: World) => ({
  control_host: "127.0.0.1",
  control_host_port: port,
  control_user: server.user,
});

/** A control host on which an image can be looked into, and that is the device as well. */
async function prepareCm3({ server }: World): Promise<void> {
  const { root } = server;
  await prepareTree(server);
  for (const program of ["pi3gpio", "cm3-installer", "udisksctl"]) {
    await server.program(program, "");
  }
  await server.program(
    "sudo",
    `echo "$*" >> ${root}/done
case "$*" in
  *chassis_vendor) echo HP ;;
  *chassis_type) echo 13 ;;
  *get-devices*) echo '{"Devices": []}' ;;
  *fwupd*) true ;;
  *) exec "$@" ;;
esac`,
  );
}

const SCENES: readonly Scene[] = [
  {
    connector: "control_host_iot",
    config: CONTROL_HOST,
    provisionData: () => ({ preset: "P", urls: ["http://images/core.img.xz"] }),
  },
  {
    connector: "control_host_kvm",
    config: CONTROL_HOST,
    provisionData: () => ({ alloem_url: "http://images/oem.iso", robot_tasks: ["a.robot"] }),
    user: "ubuntu",
    done: ["chpasswd"],
  },
  {
    connector: "cm3",
    config: (world) => ({ ...CONTROL_HOST(world), test_device: "/dev/medium" }),
    provisionData: () => ({ url: "http://images/core.img.xz" }),
    force: FORCE_TREE,
    prepare: prepareCm3,
    done: [
      "pi3gpio set high 16",
      "cm3-installer http://images/core.img.xz",
      "udisksctl power-off -b /dev/medium",
      "pi3gpio set low 16",
    ],
  },
  { connector: "fake_connector", provisionData: () => ({ url: "x" }) },
  { connector: "noprovision", provisionData: () => ({ skip: false }) },
  {
    connector: "oemrecovery",
    config: () => ({ recovery_cmds: ["sudo reboot"] }),
    provisionData: () => ({ recover: true }),
    done: ["reboot"],
  },
  { connector: "oemscript", ...OEM, done: ["sh -c nohup dell-restore-system -y"] },
  { connector: "dell_oemscript", ...OEM, done: ["sh -c nohup dell-restore-system -y"] },
  { connector: "hp_oemscript", ...OEM, done: ["sh -c nohup reboot"] },
  { connector: "lenovo_oemscript", ...OEM, done: ["sh -c nohup reboot"] },
  {
    connector: "oem_autoinstall",
    provisionData: ({ port }) => ({ url: `http://127.0.0.1:${port}/noble.iso` }),
    user: "ubuntu",
    force: FORCE_HOME,
    done: ["wget --no-verbose", "xorriso -indev", "sh -s -- ", "reboot"],
  },
  {
    connector: "dragonboard",
    config: ({ server }) => ({
      test_device: "/dev/mmcblk1",
      snappy_writable_partition: "/dev/mmcblk1p3",
      select_master_script: ["true"],
      select_test_script: [`echo ID=ubuntu > ${server.root}/after-reboot`],
    }),
    provisionData: ({ port }) => ({ url: `http://127.0.0.1:${port}/i.img` }),
    done: ["dd if=/dev/mmcblk1", "mount /dev/mmcblk1p3 /mnt", "/sbin/reboot"],
  },
  {
    connector: "netboot",
    config: ({ port }) => ({ test_device: "/dev/sda", imager_port: port }),
    provisionData: ({ port }) => ({ url: `http://127.0.0.1:${port}/i.img` }),
  },
  {
    connector: "maas2",
    config: () => ({ maas_user: "prof", node_id: "n0de" }),
    provisionData: () => ({ distro: "noble" }),
  },
];

/** The imager of a device, the service of a control host, and a server with images. */
async function answer({ path }: { path: string }, raw: Request): Promise<Response> {
  if (path === "/api/v1/provision") return Response.json({ job_id: "j1" });
  if (path === "/api/v1/provision/j1") return Response.json({ status: "completed" });
  if (path === "/api/v1/provision/j1/logs") {
    return new Response('id: 1\ndata: {"level": "INFO", "message": "flashing"}\n\n');
  }
  if (path === "/check") return new Response("Snappy Test Device Imager");
  if (path === "/writeimage") {
    const from = new URL(raw.url).searchParams.get("server")?.split(":") ?? [];
    using client = await Deno.connect({ hostname: from[0] ?? "", port: Number(from[1]) });
    let bytes = 0;
    for await (const piece of client.readable) bytes += piece.length;
    return new Response(`wrote ${bytes} bytes`);
  }
  return path.endsWith("sum") ? new Response("no", { status: 404 }) : new Response(IMAGE);
}

async function prepareDevice({ lab, server }: World): Promise<void> {
  const { root } = server;
  const script = (text: string) => text.replaceAll("{root}", root);
  await Deno.writeTextFile(join(root, "boot_id"), "first\n");
  await Deno.writeTextFile(join(root, "os-release"), "ID=debian\n");
  await server.program(
    "reboot",
    script(
      "date +%s%N > {root}/boot_id; cp {root}/after-reboot {root}/os-release 2>/dev/null; true",
    ),
  );
  await server.program("sudo", script(SUDO));
  await server.program("lsblk", `echo '${DISKS}'`);
  await server.program("systemctl", "echo inactive; exit 3");
  await server.program("rsync", "true");
  await server.program("snap", "echo '1  Done  today  today  Initialize device'");
  const presets = ["skip-storage-selecting", "no-secureboot", "misc-for-automation", "skip-oobe"];
  for (const name of presets) {
    const folder = join(lab.folder, "presets", `oem-fix-misc-cnl-${name}`);
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(join(folder, "x"), name);
  }
  // The device has users that this host does not.
  const bin = join(lab.folder, "bin");
  await Deno.mkdir(bin);
  const clientBin = server.env.PATH?.split(":")[0];
  for (const program of ["ssh", "scp"]) {
    await Deno.writeTextFile(
      join(bin, program),
      `#!/bin/sh
port=-p; [ ${program} = ssh ] || port=-P
for word; do
  shift
  case "$word" in ubuntu@*|linaro@*|admin@*) word="${server.user}@\${word#*@}" ;; esac
  set -- "$@" "$word"
done
exec ${clientBin}/${program} $port ${server.port} "$@"
`,
      { mode: 0o755 },
    );
  }
  await Deno.writeTextFile(
    join(bin, "maas"),
    `#!/bin/sh
case "$2 $3" in
  "machine read")
    status=$(cat ${root}/status 2>/dev/null || echo Ready)
    echo "{\\"status_name\\": \\"$status\\", \\"ip_addresses\\": [\\"127.0.0.1\\"]}" ;;
  "machine deploy") echo Deployed > ${root}/status; echo '{}' ;;
  "machine release") echo Ready > ${root}/status; echo '{}' ;;
  "node-script-results read"|"block-devices read"|"volume-groups read") echo '[]' ;;
  "version read") echo '{"version": "3.5.0"}' ;;
  *) echo '{}' ;;
esac
`,
    { mode: 0o755 },
  );
}

/** Tests of their own have the whole jobs of these. */
const ELSEWHERE = ["multi", "muxpi"];

Deno.test("each device connector has a whole job here or in tests/e2e", () => {
  const here = SCENES.map(({ connector }) => connector);
  assertEquals([...here, ...ELSEWHERE].toSorted(), CONNECTOR_NAMES.toSorted());
});

for (const scene of SCENES) {
  const { connector, config, provisionData, done = [], user } = scene;
  testWithTools(`a whole job runs on a device of ${connector}`, TOOLS, async () => {
    const agentId = `every-${crypto.randomUUID().slice(0, 8)}`;
    await using lab = await Lab.open({ config: { agent_id: agentId } });
    await using server = await SshServer.open({ forceCommand: scene.force ?? FORCE });
    await using stub = httpStub(answer);
    const world: World = { lab, server, port: stub.port };
    await prepareDevice(world);
    await scene.prepare?.(world);
    await Deno.writeTextFile(
      join(lab.folder, "device.yaml"),
      JSON.stringify({
        agent_name: "a1",
        device_ip: "127.0.0.1",
        reboot_script: ["true"],
        ...config?.(world),
      }),
    );
    const file = await lab.writeConfig({
      polling_interval: 0.2,
      connector,
      connector_config: "device.yaml",
    });
    await using _agent = startProgram(["-c", file], {
      env: {
        ...server.env,
        PATH: `${join(lab.folder, "bin")}:${server.env.PATH}`,
        TFDC_TIME_SCALE: "0.001",
        DENO_DIR: Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno`,
      },
    });
    const jobId = lab.submit({
      provision_data: provisionData(world),
      firmware_update_data: { version: "latest" },
      test_data: {
        test_username: user ?? server.user,
        test_cmds: "echo tested on $AGENT_NAME; mkdir -p artifacts; echo result > artifacts/r",
      },
      reserve_data: { timeout: 0 },
    });
    await lab.complete(jobId).catch((error) => {
      throw new Error(lab.sandbox.log(jobId, "output"), { cause: error });
    });
    assertEquals(
      lab.statuses(jobId),
      { setup: 0, provision: 0, firmware_update: 0, test: 0, reserve: 0, cleanup: 0 },
      lab.sandbox.log(jobId, "output"),
    );
    assertStringIncludes(lab.output(jobId, "test"), "tested on a1\n");
    assertEquals(lab.sandbox.artifact(jobId) !== undefined, true);
    const onDevice = await Deno.readTextFile(join(server.root, "done")).catch(() => "");
    for (const step of done) assertStringIncludes(onDevice, step);
    if (connector.startsWith("control_host_")) {
      assertStringIncludes(lab.output(jobId, "provision"), "[control-host] flashing");
    }
    if (connector === "dragonboard") {
      assertEquals(await Deno.readFile(join(server.root, "card")), IMAGE);
    }
  });
}
