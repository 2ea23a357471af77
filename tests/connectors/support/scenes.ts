/** A lab for each connector and stage in which all goes well, and the programs that it needs. */
import { assert, assertEquals } from "@std/assert";
import { CONNECTOR_NAMES } from "../../../connectors/registry.ts";
import { STAGES } from "../../../connectors/context.ts";
import { processesWith } from "../../../lib/process/proc.ts";
import { ControlHost } from "./control_host.ts";
import type { Lab } from "./lab.ts";
import { fakeMaas, MAAS_CONFIG } from "./maas.ts";
import type { StubRequest } from "./stubs.ts";

/** One stage of a connector. */
export interface Scene {
  readonly connector: string;
  readonly stage: string;
  /** What is special about this one. */
  readonly variant?: string;
  /** The connector brings nothing of its own to it. */
  readonly isCommon?: boolean;
  /** All programs that it calls. */
  readonly programs: readonly string[];
  /** Of these, the ones to break; muxpi_failures_test.ts has more to say of muxpi's. @default all */
  readonly broken?: readonly string[];
  /** Of these, the ones whose failure is only told: the stage goes on without. */
  readonly dispensable?: readonly string[];
  /** Of these, the ones whose failure is an answer, too, and not told. */
  readonly silent?: readonly string[];
  /** The ones of which only the exit status counts, so that babbling is no failure. */
  readonly mute?: readonly string[];
  /**
   * Makes a lab in which all goes well.
   *
   * @param port of a server that is the control host's REST service, and the Testflinger server.
   * @param more configuration.
   * @returns the control host, where there is one with storage to switch.
   */
  prepare(lab: Lab, port: number, more?: Record<string, unknown>): Promise<ControlHost | void>;
}

const DEVICE = { agent_name: "a1", device_ip: "10.1.1.1" };

/** Power-cycling the control host before provision. */
const CYCLE = { control_host_reboot_script: ["cycle"] };

/**
 * Answers for the control host's REST service, for a Testflinger server, and as the imager of a
 * device, which fetches what it is to write.
 */
export async function answerAll({ method, path }: StubRequest, raw: Request): Promise<Response> {
  if (path === "/image") return new Response(new Uint8Array(10_000));
  if (path === "/check") return new Response("Snappy Test Device Imager");
  if (path === "/writeimage") {
    const [hostname = "", port = ""] = new URL(raw.url).searchParams.get("server")?.split(":") ??
      [];
    using client = await Deno.connect({ hostname, port: Number(port) });
    for await (const _ of client.readable);
    return new Response("written");
  }
  if (path === "/api/v1/provision") return Response.json({ job_id: "j1" });
  if (path === "/api/v1/provision/j1") return Response.json({ status: "completed" });
  if (method === "POST" && path === "/v1/job") return Response.json({ job_id: "c1" });
  if (path !== "/v1/result/c1") return new Response("{}");
  return Response.json({ job_state: "allocated", device_info: { device_ip: "10.9.9.1" } });
}

/** A device with a recovery partition, which is installed without trouble. */
function oemScene(connector: string): Scene {
  return {
    connector,
    stage: "provision",
    programs: ["ssh", "scp", "sshpass", "ssh-copy-id", "git", "tar"],
    // What goes wrong by ssh is named by what was run there: see oemscript_test.ts.
    broken: ["scp", "sshpass", "ssh-copy-id", "git", "tar"],
    mute: ["scp", "sshpass", "ssh-copy-id", "tar"],
    async prepare(lab, _port, more) {
      await lab.config({ ...DEVICE, reboot_script: ["true"], ...more });
      await lab.job({ provision_data: { url: "http://127.0.0.1:1/pc-jammy.iso" } });
      await lab.fake("git", 'for folder; do :; done; mkdir -p "$folder"');
      await lab.fake("tar", 'exec /usr/bin/tar "$@"');
      const part = (name: string, mountpoint: string | null) =>
        JSON.stringify({ name, path: `/dev/${name}`, type: "part", mountpoint });
      await lab.fake(
        "ssh",
        `for command; do :; done
case "$command" in
  *boot_id) echo "boot-$n" ;;
  lsblk*) echo '{"blockdevices": [{"children": [${part("sda1", "/boot/efi")}, ${
          part("sda2", null)
        }]}]}' ;;
  *is-active*) echo inactive; exit 3 ;;
esac`,
      );
    },
  };
}

const OWN: readonly Scene[] = [
  ...["dell_oemscript", "hp_oemscript", "lenovo_oemscript", "oemscript"].map(oemScene),
  {
    connector: "cm3",
    stage: "provision",
    programs: ["ssh", "sshpass", "ssh-copy-id", "pdu"],
    // What goes wrong on the control host is in cm3_test.ts.
    broken: ["sshpass", "ssh-copy-id", "pdu"],
    mute: ["sshpass", "ssh-copy-id", "pdu"],
    async prepare(lab, _port, more) {
      const host = await prepareMuxpi(lab, _port, more);
      for (const program of ["pi3gpio", "cm3-installer", "udisksctl"]) await host.fake(program, "");
      await lab.job({ provision_data: { url: "http://images/x.img" } });
      return host;
    },
  },
  {
    connector: "control_host_kvm",
    stage: "provision",
    programs: [],
    async prepare(lab, port, more) {
      await lab.config({ ...DEVICE, ...controlHost(port), reboot_script: ["pdu"], ...more });
      await lab.job({ provision_data: { url: "http://t", robot_tasks: [] } });
    },
  },
  {
    connector: "control_host_kvm",
    stage: "provision",
    variant: "with an OEM image",
    programs: ["sshpass", "ssh", "ssh-copy-id"],
    mute: ["sshpass", "ssh", "ssh-copy-id"],
    async prepare(lab, port, more) {
      await lab.config({ ...DEVICE, ...controlHost(port), reboot_script: ["pdu"], ...more });
      await lab.job({ provision_data: { alloem_url: "http://a", robot_tasks: [] } });
    },
  },
  {
    connector: "control_host_iot",
    stage: "provision",
    variant: "after a power cycle of its control host",
    programs: ["ping", "cycle", "power", "sshpass", "ssh-copy-id"],
    dispensable: ["ping", "cycle", "power"],
    silent: ["ping"],
    mute: ["sshpass", "ssh-copy-id"],
    async prepare(lab, port, more) {
      await lab.config({
        ...DEVICE,
        ...CYCLE,
        ...controlHost(port),
        reboot_script: ["pdu"],
        poweroff_script: ["power off"],
        poweron_script: ["power on"],
        ...more,
      });
      await lab.job({ provision_data: { preset: "P" } });
      await lab.fake("cycle", "");
      await lab.fake("power", "");
      await lab.fake("ping", "exit 1");
    },
  },
  {
    connector: "fake_connector",
    stage: "provision",
    programs: [],
    async prepare(lab, _port, more) {
      await lab.config({ ...DEVICE, ...more });
      await lab.job({ provision_data: { url: "x" } });
    },
  },
  {
    connector: "fake_connector",
    stage: "provision",
    variant: "after a power cycle of its control host",
    programs: ["ping", "cycle"],
    dispensable: ["ping", "cycle"],
    silent: ["ping"],
    async prepare(lab, port, more) {
      await lab.config({ ...DEVICE, ...CYCLE, ...controlHost(port), ...more });
      await lab.job({ provision_data: { url: "x" } });
      await lab.fake("cycle", "");
      await lab.fake("ping", "exit 1");
    },
  },
  {
    connector: "oem_autoinstall",
    stage: "provision",
    programs: ["ssh", "sshpass", "ssh-copy-id"],
    // What goes wrong by ssh is named by what was run there: see oem_autoinstall_test.ts.
    broken: ["sshpass", "ssh-copy-id"],
    mute: ["sshpass", "ssh-copy-id"],
    async prepare(lab, _port, more) {
      await lab.config({ ...DEVICE, reboot_script: ["true"], ...more });
      await lab.job({ provision_data: { url: "http://127.0.0.1:1/noble.iso" } });
      const part = (name: string, keys: Record<string, string>) =>
        JSON.stringify({ name, path: `/dev/${name}`, type: "part", ...keys });
      const parts = [
        part("sda1", { parttype: "c12a7328-f81f-11d2-ba4b-00c04fc93ec9" }),
        part("sda2", { fstype: "vfat", partuuid: "r" }),
        part("sda3", { fstype: "ext4", mountpoint: "/" }),
      ].join(", ");
      await lab.fake(
        "ssh",
        `for command; do :; done
case "$command" in
  *boot_id) echo "boot-$n" ;;
  lsblk*) echo '{"blockdevices": [{"children": [${parts}]}]}' ;;
  *mime-type*) echo application/x-iso9660-image ;;
  *"-type d"*) printf '%s\\n' "'/cloud-configs/grub'" "'/sideloads'" ;;
  *"-type f"*) printf '%s\\n' "'/casper/vmlinuz'" "'/casper/initrd'" ;;
esac`,
      );
    },
  },
  {
    connector: "dragonboard",
    stage: "provision",
    programs: ["ssh", "sshpass", "ssh-copy-id"],
    // What goes wrong by ssh is named by what was run there: see dragonboard_test.ts.
    broken: ["sshpass", "ssh-copy-id"],
    // Whether the agent gets in is seen by what answers.
    dispensable: ["sshpass", "ssh-copy-id"],
    silent: ["sshpass", "ssh-copy-id"],
    mute: ["sshpass", "ssh-copy-id"],
    async prepare(lab, port, more) {
      await lab.config({
        ...DEVICE,
        test_device: "/dev/sda",
        snappy_writable_partition: "/dev/sda3",
        reboot_script: ["true"],
        select_master_script: ["true"],
        select_test_script: ["true"],
        ...more,
      });
      await lab.job({ provision_data: { url: `http://127.0.0.1:${port}/image` } });
      await lab.fake(
        "ssh",
        `for command; do :; done
case "$*" in
  *linaro@*os-release) echo ID=debian ;;
  *os-release) test -e '${lab.root}/booted' && echo ID=ubuntu ;;
  *"dd of="*) cat >/dev/null; echo "1+0 records out" >&2 ;;
  */sbin/reboot) : > '${lab.root}/booted' ;;
esac`,
      );
    },
  },
  {
    connector: "netboot",
    stage: "provision",
    programs: ["sshpass", "ssh-copy-id"],
    mute: ["sshpass", "ssh-copy-id"],
    async prepare(lab, port, more) {
      await lab.config({
        ...DEVICE,
        device_ip: "127.0.0.1",
        imager_port: port,
        test_device: "/dev/sda",
        reboot_script: ["pdu"],
        ...more,
      });
      await lab.fake("pdu", "");
      await lab.job({ provision_data: { url: `http://127.0.0.1:${port}/image` } });
    },
  },
  {
    connector: "noprovision",
    stage: "provision",
    programs: ["ssh", "pdu"],
    mute: ["ssh", "pdu"],
    async prepare(lab, _port, more) {
      await lab.config({ ...DEVICE, reboot_script: ["pdu 3 off", "pdu 3 on"], ...more });
      await lab.job({});
      await lab.fake("pdu", "");
      await lab.fake("ssh", '[ "$n" -gt 1 ]');
    },
  },
  {
    connector: "noprovision",
    stage: "provision",
    variant: "of a device that refuses the key",
    programs: ["ssh", "sshpass", "ssh-copy-id"],
    mute: ["ssh"],
    async prepare(lab, _port, more) {
      await lab.config({ ...DEVICE, ...more });
      await lab.job({ test_data: { test_password: "secret" } });
      await lab.fake("ssh-copy-id", `: > "${lab.root}/let-in"`);
      await lab.fake(
        "ssh",
        `test -e "${lab.root}/let-in" || { echo "Permission denied (publickey)." >&2; exit 255; }`,
      );
    },
  },
  {
    connector: "oemrecovery",
    stage: "provision",
    programs: ["ssh", "sshpass", "ssh-copy-id", "pdu"],
    mute: ["ssh-copy-id", "pdu"],
    async prepare(lab, _port, more) {
      await lab.config({
        ...DEVICE,
        reboot_script: ["pdu"],
        recovery_cmds: ["recover"],
        ...more,
      });
      await lab.job({});
      await lab.fake("pdu", "");
      await lab.fake("ssh-copy-id", '[ "$n" -gt 1 ]');
      await lab.fake("ssh", 'case "$*" in *"snap model") echo "model generic-classic";; esac');
    },
  },
  {
    connector: "maas2",
    stage: "provision",
    programs: ["maas", "ssh"],
    mute: ["ssh"],
    async prepare(lab, _port, more) {
      await lab.config({ ...MAAS_CONFIG, timeout_min: 5, ...more });
      await lab.job({ provision_data: { distro: "noble" } });
      await fakeMaas(lab);
    },
  },
  {
    connector: "maas2",
    stage: "cleanup",
    programs: ["maas"],
    async prepare(lab) {
      await lab.config(MAAS_CONFIG);
      await lab.job({ provision_data: { distro: "noble" } });
      await fakeMaas(lab);
    },
  },
  {
    connector: "multi",
    stage: "provision",
    programs: [],
    async prepare(lab, port, more) {
      await lab.config({
        agent_name: "a1",
        testflinger_server: `http://127.0.0.1:${port}`,
        ...more,
      });
      await lab.job({ job_id: "parent", provision_data: { jobs: [{ job_queue: "q" }] } });
    },
  },
  {
    connector: "multi",
    stage: "cleanup",
    programs: [],
    async prepare(lab, port) {
      await lab.config({ testflinger_server: `http://127.0.0.1:${port}` });
      await lab.job({});
      await lab.write("job_list.json", '[{"job_id": "c1"}]');
    },
  },
  {
    connector: "muxpi",
    stage: "provision",
    programs: ["ssh", "sshpass", "ssh-copy-id", "pdu"],
    broken: [],
    prepare: prepareMuxpi,
  },
  {
    connector: "muxpi",
    stage: "provision",
    variant: "after a power cycle of its control host",
    programs: ["ping", "cycle", "power", "ssh", "sshpass", "ssh-copy-id", "pdu"],
    broken: ["ping", "cycle", "power"],
    dispensable: ["ping", "cycle", "power"],
    silent: ["ping"],
    async prepare(lab, port) {
      await lab.fake("cycle", "");
      await lab.fake("power", "");
      await lab.fake("ping", "exit 1");
      return await prepareMuxpi(lab, port, {
        ...CYCLE,
        control_host_port: port,
        poweroff_script: ["power off"],
        poweron_script: ["power on"],
      });
    },
  },
];

/** Stages that are the same for every connector that brings none of its own. */
const COMMON: readonly Omit<Scene, "connector">[] = [
  ...["setup", "allocate", "cleanup"].map((stage) => ({
    stage,
    programs: [],
    async prepare(lab: Lab) {
      await lab.config(DEVICE);
      await lab.job({});
    },
  })),
  {
    stage: "firmware_update",
    programs: ["ssh"],
    async prepare(lab) {
      await lab.config(DEVICE);
      await lab.job({ firmware_update_data: { version: "latest" } });
      await lab.fake(
        "ssh",
        `for command; do :; done
case "$command" in
  *chassis_vendor) echo HP ;;
  *chassis_type) echo 13 ;;
  *get-devices*) echo '{"Devices": []}' ;;
esac`,
      );
    },
  },
  {
    stage: "reserve",
    programs: ["ssh-import-id", "ssh-copy-id"],
    dispensable: ["ssh-import-id", "ssh-copy-id"],
    async prepare(lab) {
      await lab.config(DEVICE);
      await lab.job({ reserve_data: { ssh_keys: ["lp:me"], timeout: 60 } });
      await lab.fake("ssh-import-id", 'echo "ssh-rsa KEY me" >> "$2"');
    },
  },
  {
    stage: "runtest",
    programs: ["tool"],
    mute: ["tool"],
    async prepare(lab) {
      await lab.config(DEVICE);
      await lab.job({ test_data: { test_cmds: "tool" } });
      await lab.fake("tool", "");
    },
  },
];

/** Every stage of every connector. */
export const SCENES: readonly Scene[] = CONNECTOR_NAMES.flatMap((connector) =>
  STAGES.flatMap((stage) => {
    const own = OWN.filter((scene) => scene.connector === connector && scene.stage === stage);
    if (own.length > 0) return own;
    return COMMON.filter((scene) => scene.stage === stage)
      .map((scene) => ({ ...scene, connector, isCommon: true }));
  })
);

/** What to call a scene in the name of a test. */
export function titleOf({ connector, stage, variant }: Scene): string {
  return `${connector} ${stage}${variant === undefined ? "" : ` ${variant}`}`;
}

/** No process, no file of ours; nothing mounted, the medium at the device, and that has its power. */
export async function assertNothingLeft(lab: Lab, host: ControlHost | void): Promise<void> {
  assertEquals(await processesWith(`HOME=${lab.root}/home`), [], "processes are left");
  for await (const { name } of Deno.readDir(lab.cwd)) assert(!name.startsWith(".muxpi"), name);
  const power = await lab.calls("power");
  if (power.length > 0) assertEquals(power.at(-1)?.args, ["on"]);
  if (!host) return;
  assertEquals(await host.mounted(), []);
  const switched = (await host.done()).filter((line) => line.startsWith("stm"));
  if (switched.length > 0) assertEquals(switched.at(-1), "stm -dut");
}

function controlHost(port: number) {
  return { control_host: "127.0.0.1", control_host_port: port };
}

async function prepareMuxpi(
  lab: Lab,
  _port: number,
  more: Record<string, unknown> = {},
): Promise<ControlHost> {
  const host = await ControlHost.open(lab, [
    { name: "sda1", label: "system-boot" },
    { name: "sda2", label: "writable", files: { "etc/hostname": "ubuntu" } },
  ]);
  await lab.config({
    ...DEVICE,
    ...controlHost(1),
    test_device: "/dev/sda",
    reboot_script: ["pdu"],
    ...more,
  });
  await Deno.mkdir(`${lab.cwd}/attachments/provision`, { recursive: true });
  await Deno.writeFile(`${lab.cwd}/attachments/provision/i.img`, new Uint8Array(10_000));
  await lab.job({ provision_data: { use_attachment: "i.img" } });
  await lab.fake("pdu", "");
  return host;
}
