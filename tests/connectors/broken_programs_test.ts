/** Each connector and stage with each program that it calls missing, failing, babbling, hanging. */
import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { ControlHost } from "./support/control_host.ts";
import { Lab } from "./support/lab.ts";
import { fakeMaas, MAAS_CONFIG } from "./support/maas.ts";

/** What fails, to people: not our own mistakes, such as a TypeError. */
const ERRORS = ["MaasStorageError", "ProvisioningError", "RecoveryError"];

const BREAKAGES = {
  missing: undefined,
  failing: "echo 'boom: no such thing' >&2; exit 3",
  babbling: `printf '<html>\\377\\376{"a": [\\n'; exit 0`,
  hanging: "hang",
};

interface Scene {
  readonly connector: string;
  readonly stage: string;
  /** The programs that it cannot do without. */
  readonly programs: readonly string[];
  /** Of these, the ones whose failure is only told: the stage goes on without. */
  readonly dispensable?: readonly string[];
  /** The ones of which only the exit status counts, so that babbling is no failure. */
  readonly mute?: readonly string[];
  /** Makes a lab in which all goes well. */
  prepare(lab: Lab): Promise<void>;
}

const DEVICE = { agent_name: "a1", device_ip: "10.1.1.1" };

const SCENES: readonly Scene[] = [
  {
    connector: "noprovision",
    stage: "provision",
    programs: ["ssh", "pdu"],
    mute: ["ssh", "pdu"],
    async prepare(lab) {
      await lab.config({ ...DEVICE, reboot_script: ["pdu 3 off", "pdu 3 on"] });
      await lab.job({});
      await lab.fake("pdu", "");
      await lab.fake("ssh", '[ "$n" -gt 1 ]');
    },
  },
  {
    connector: "noprovision",
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
    connector: "oemrecovery",
    stage: "provision",
    programs: ["ssh", "sshpass", "ssh-copy-id", "pdu"],
    mute: ["ssh-copy-id", "pdu"],
    async prepare(lab) {
      await lab.config({ ...DEVICE, reboot_script: ["pdu"], recovery_cmds: ["recover"] });
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
    async prepare(lab) {
      await lab.config({ ...MAAS_CONFIG, timeout_min: 5 });
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
    connector: "muxpi",
    stage: "provision",
    programs: ["ssh", "scp", "ssh-copy-id", "pdu"],
    mute: ["ssh-copy-id", "pdu"],
    async prepare(lab) {
      await ControlHost.open(lab, [
        { name: "sda1", label: "system-boot" },
        { name: "sda2", label: "writable", files: { "etc/hostname": "ubuntu" } },
      ]);
      await lab.config({
        ...DEVICE,
        control_host: "127.0.0.1",
        control_host_port: 1,
        test_device: "/dev/sda",
        reboot_script: ["pdu"],
      });
      await Deno.mkdir(`${lab.cwd}/attachments/provision`, { recursive: true });
      await Deno.writeFile(`${lab.cwd}/attachments/provision/i.img`, new Uint8Array(10_000));
      await lab.job({ provision_data: { use_attachment: "i.img" } });
      await lab.fake("pdu", "");
    },
  },
];

for (const scene of SCENES) {
  const { connector, stage } = scene;

  Deno.test(`${connector} ${stage} succeeds with all the programs that the next tests break`, async () => {
    await using lab = await Lab.open();
    await scene.prepare(lab);
    const run = await lab.stage(connector, stage);
    assertEquals(run.code, 0, run.stderr);
    const called = new Set((await lab.calls()).map(({ program }) => program));
    for (const program of scene.programs) assert(called.has(program), `${program} is not called`);
  });

  for (const program of scene.programs) {
    for (const [how, script] of Object.entries(BREAKAGES)) {
      Deno.test(`${connector} ${stage} with ${program} ${how}`, async () => {
        await using lab = await Lab.open();
        await scene.prepare(lab);
        if (script === undefined) await lab.remove(program);
        else await lab.fake(program, script);
        const run = await lab.stage(connector, stage);
        assertEquals(await lab.processes(), [], "processes are left");
        if (scene.dispensable?.includes(program)) {
          assertEquals(run.code, 0, run.stderr);
          if (how !== "babbling") assertStringIncludes(run.stderr, program);
          return;
        }
        if (how === "babbling" && scene.mute?.includes(program)) {
          assertEquals(run.code, 0, run.stderr);
          return;
        }
        assertNotEquals(run.code, 0);
        const failure = await lab.failure(stage);
        assert(ERRORS.includes(failure.exception_name ?? ""), JSON.stringify(failure));
        assertEquals(run.code, failure.exception_name === "RecoveryError" ? 46 : 1);
        if (how !== "babbling") assertStringIncludes(failure.exception_message ?? "", program);
      });
    }
  }
}
