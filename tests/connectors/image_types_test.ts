/**
 * Each kind of image that muxpi knows, as a real one: a partition table, file systems, written and
 * mounted over a real ssh server.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { SshServer } from "../support/sshd.ts";
import { Lab } from "./support/lab.ts";
import { LoopControlHost, testWithLoops } from "./support/loop_control_host.ts";
import {
  lookInto,
  REAL_IMAGE_TOOLS,
  type RealImage,
  realImage,
  type RealPartition,
  vfatMountsWork,
  withoutVfat,
} from "./support/real_images.ts";
import { closedPort } from "./support/stubs.ts";

const BOOT: RealPartition = {
  label: "system-boot",
  type: "vfat",
  mib: 4,
  files: { "config.txt": "arm_64bit=1\n" },
};

function writable(files: RealPartition["files"]): RealPartition {
  return { label: "writable", type: "ext4", mib: 8, files: { ...files } };
}

const FIREFOX = { "usr/bin/firefox": "->/snap/bin/firefox" };
const RELEASE = (version: string) => ({ "etc/os-release": `VERSION_ID="${version}"\n` });
const STAMP = (number: string) => ({
  ".disk/info": `iot-havana-x-lemon-classic-server-${number}-x01\n`,
  "etc/hostname": "x",
});
const SEED = "var/lib/cloud/seed/nocloud";
const SEED_NET = "var/lib/cloud/seed/nocloud-net";

interface Kind {
  readonly type: string;
  readonly variant?: string;
  readonly image: RealImage;
  /** Files by `<label>/<path>`, and what is in them. */
  readonly written: Readonly<Record<string, string>>;
  readonly gone?: readonly string[];
}

const KINDS: readonly Kind[] = [
  {
    type: "ubuntu",
    image: {
      table: "dos",
      partitions: [BOOT, writable({ "etc/cloud/cloud.cfg.d/99-fake_cloud.cfg": "x" })],
    },
    written: { [`writable/${SEED_NET}/user-data`]: "#cloud-config" },
    gone: ["writable/etc/cloud/cloud.cfg.d/99-fake_cloud.cfg"],
  },
  {
    type: "ce-oem-iot-before-24",
    image: { table: "dos", partitions: [BOOT, writable(STAMP("2204"))] },
    written: {
      "system-boot/user-data": "lock_passwd: false",
      "system-boot/config.txt": "arm_64bit=1",
      "writable/etc/sudoers.d/ubuntu": "NOPASSWD",
      [`writable/${SEED_NET}/user-data`]: "#cloud-config",
    },
  },
  {
    type: "ce-oem-iot-24-and-beyond",
    image: { table: "dos", partitions: [BOOT, writable(STAMP("2404"))] },
    written: {
      [`writable/${SEED}/user-data`]: "lock_passwd: false",
      "writable/etc/sudoers.d/ubuntu": "NOPASSWD",
      [`writable/${SEED_NET}/user-data`]: "#cloud-config",
    },
    gone: ["system-boot/user-data"],
  },
  {
    type: "tegra",
    image: {
      table: "gpt",
      partitions: [
        { label: "UEFI", type: "vfat", mib: 4 },
        writable({
          "lib/firmware/nvidia-tegra186": null,
          "boot/grub/grub.cfg": "set timeout=30\n",
          "etc/default/grub": "GRUB_TIMEOUT=5\n",
        }),
      ],
    },
    written: {
      [`writable/${SEED}/user-data`]: "#cloud-config",
      "writable/boot/grub/grub.cfg": "set timeout=0\n",
      "writable/etc/default/grub": "GRUB_TIMEOUT=0\n",
      "writable/etc/sudoers.d/ubuntu": "NOPASSWD",
    },
  },
  {
    type: "pi-desktop",
    variant: "24.04",
    image: {
      table: "dos",
      partitions: [
        BOOT,
        writable({
          ...FIREFOX,
          ...RELEASE("24.04"),
          "etc/systemd/system/multi-user.target.wants/NetworkManager.service": "->/lib/nm",
        }),
      ],
    },
    written: {
      "writable/etc/systemd/system/oem-config.service": "/preseed.cfg",
      "writable/preseed.cfg": "d-i passwd/username string",
      "writable/etc/systemd/system/oem-config.target.wants/NetworkManager.service": "->/lib/nm",
      "writable/etc/sudoers.d/ubuntu": "NOPASSWD",
    },
  },
  {
    type: "pi-desktop",
    variant: "25.10",
    image: {
      table: "dos",
      partitions: [BOOT, writable({ ...FIREFOX, ...RELEASE("25.10") })],
    },
    written: {
      [`writable/${SEED_NET}/user-data`]: "openssh-server",
      [`writable/${SEED_NET}/meta-data`]: "instance-id",
      "writable/etc/sudoers.d/ubuntu": "NOPASSWD",
    },
    gone: ["writable/preseed.cfg"],
  },
  {
    type: "core",
    image: { table: "gpt", partitions: [BOOT, writable({ "system-data/etc": null })] },
    written: { [`writable/system-data/${SEED_NET}/user-data`]: "#cloud-config" },
  },
  {
    type: "core20",
    image: {
      table: "gpt",
      partitions: [
        { label: "ubuntu-seed", type: "vfat", mib: 4, files: { "snaps/core20.snap": "x" } },
        { label: "ubuntu-boot", type: "ext4", mib: 4 },
        { label: "ubuntu-save", type: "ext4", mib: 4 },
        { label: "ubuntu-data", type: "ext4", mib: 4 },
      ],
    },
    written: {
      "ubuntu-seed/data/etc/cloud/cloud.cfg.d/99_nocloud.cfg": "datasource_list",
      "ubuntu-seed/snaps/core20.snap": "x",
    },
  },
  {
    type: "ubuntu-cpc",
    image: {
      table: "gpt",
      partitions: [
        {
          label: "cloudimg-rootfs",
          type: "ext4",
          mib: 8,
          files: { "etc/cloud/cloud.cfg": "users: []\n" },
        },
        { label: "UEFI", type: "vfat", mib: 4 },
      ],
    },
    written: {
      [`cloudimg-rootfs/${SEED_NET}/user-data`]: "#cloud-config",
      [`cloudimg-rootfs/${SEED_NET}/meta-data`]: "instance-id",
    },
  },
  {
    type: "unknown",
    image: { table: "dos", partitions: [BOOT, writable({ "opt/x": "x" })] },
    written: { [`writable/${SEED_NET}/user-data`]: "#cloud-config" },
  },
];

const hasVfat = await vfatMountsWork();

for (const { type, variant = "", image: wanted, written, gone = [] } of KINDS) {
  const image = hasVfat ? wanted : withoutVfat(wanted);
  const title = `${type}${variant && ` ${variant}`}` +
    (hasVfat ? "" : " (ext4 in place of vfat, which this kernel does not have)");
  await testWithLoops(`muxpi puts a user into a real image of the kind ${title}`, {
    tools: REAL_IMAGE_TOOLS,
    async test() {
      await using server = await SshServer.open();
      await using lab = await Lab.open();
      await using host = await LoopControlHost.open(server);
      await server.program("stm", `echo "$*" >> "${server.root}/switched"`);
      const folder = join(lab.cwd, "attachments/provision");
      await Deno.mkdir(folder, { recursive: true });
      await realImage(folder, image);
      const { size } = await Deno.stat(join(folder, "image.img"));
      const { device, file: medium } = await host.blockDevice(size);
      await lab.config({
        agent_name: server.agentName,
        device_ip: "127.0.0.1",
        ssh_port: server.port,
        control_host: "127.0.0.1",
        control_host_port: closedPort(),
        control_host_ssh_port: server.port,
        control_user: server.user,
        test_device: device,
      });
      await lab.job({
        provision_data: { use_attachment: "image.img" },
        test_data: { test_username: server.user },
      });

      const run = await lab.stage("muxpi", "provision", { env: server.env });

      assertEquals(run.code, 0, run.stderr);
      assertStringIncludes(run.stderr, `The image is of the type ${type}: `);
      // All of its partitions could be mounted, and none is any more.
      assert(!run.stderr.includes("is left out"), run.stderr);
      assertEquals(await host.mounts(), []);
      assertEquals(await Deno.readTextFile(join(server.root, "switched")), "-ts\n-dut\n");
      await host.close();
      for (const { label } of image.partitions) {
        await lookInto(medium, image, {
          label,
          async look(root) {
            for (const [path, content] of below(label, Object.entries(written))) {
              assertStringIncludes(await contentOf(join(root, path)), content, path);
            }
            for (const [path] of below(label, gone.map((path) => [path, ""]))) {
              assertEquals(await contentOf(join(root, path)), "nothing");
            }
          },
        });
      }
    },
  });
}

/** Those entries whose path begins with the label, without it. */
function below(label: string, entries: readonly (readonly [string, string])[]) {
  return entries.filter(([path]) => path.startsWith(`${label}/`))
    .map(([path, content]) => [path.slice(label.length + 1), content] as const);
}

/** What is in a file; a link's target after `->`. */
async function contentOf(path: string): Promise<string> {
  const info = await Deno.lstat(path).catch(() => undefined);
  if (info === undefined) return "nothing";
  return info.isSymlink ? `->${await Deno.readLink(path)}` : await Deno.readTextFile(path);
}
