/** A PC that is installed from itself: what is run on it by ssh is answered as a test wants. */
import type { Lab } from "./lab.ts";

/** Its device configuration. */
export const OEM_CONFIG = {
  agent_name: "a1",
  device_ip: "10.1.1.1",
  reboot_script: ["touch reset"],
};

/** How it answers. */
export interface OemDevice {
  /** The ISO that its job wants. */
  readonly url: string;
  /** What lsblk prints there. */
  readonly disks: string;
  /** Cases of a shell for what is run on it, by a pattern for its command. */
  readonly cases: string;
  /** What goes otherwise in this test; shell, by a word of the command. */
  readonly answers: Readonly<Record<string, string>>;
}

/** Sets up the device and its job. All goes well, but for the answers. */
export async function openOemDevice(lab: Lab, device: OemDevice): Promise<void> {
  await lab.config(OEM_CONFIG);
  await lab.job({ provision_data: { url: device.url } });
  await lab.write("disks.json", device.disks);
  const own = Object.entries(device.answers).map(([word, script]) => `  *"${word}"*) ${script} ;;`);
  await lab.fake(
    "ssh",
    `case "$*" in *"-O exit"*) exit 0 ;; esac
for command; do :; done
case "$command" in
${own.join("\n")}
  *boot_id) echo boot-$n ;;
  lsblk*) cat ${lab.cwd}/disks.json ;;
${device.cases}
esac`,
  );
}

/** What was run on the device, in order; looks at it left out. */
export async function stepsOn(lab: Lab): Promise<string[]> {
  return (await lab.calls("ssh")).map(({ args }) => args.at(-1) ?? "")
    .filter((command) => !/boot_id|@10\.1\.1\.1$/.test(command));
}

/** Provisions it. */
export async function provisionOem(lab: Lab, connector: string) {
  const { code, stderr, stdout } = await lab.stage(connector, "provision");
  const message = code === 0 ? "" : (await lab.failure("provision")).exception_message ?? "";
  return { code, stderr, stdout, message };
}
