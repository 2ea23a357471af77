/** A machine whose firmware is updated: what it says of itself, and what is run on it. */
import type { Lab } from "./lab.ts";

export const CONFIG = { agent_name: "a1", device_ip: "10.1.1.1" };

/** A machine with one device that fwupd can update, 2.90 to 2.91. */
interface Machine {
  vendor?: string;
  type?: string;
  version?: string;
  releases?: unknown[];
  /** Shell for `fwupdmgr upgrade`. */
  upgrade?: string;
  /** What get-results says. */
  results?: unknown;
}

export const NEWER = { Version: "2.91", Flags: ["is-upgrade"], Uri: "https://fw.example/2.91.cab" };
export const OLDER = {
  Version: "2.85",
  Flags: ["is-downgrade"],
  Uri: "https://fw.example/2.85.cab",
};
export const SUCCESS = { UpdateState: 2, Releases: [{ Version: "2.91" }] };

export async function openMachine(lab: Lab, machine: Machine = {}): Promise<void> {
  const { vendor = "HP", type = "13", version = "2.90", releases = [NEWER, OLDER] } = machine;
  const { upgrade = "true", results = SUCCESS } = machine;
  const devices = {
    Devices: [
      {
        Name: "System Firmware",
        DeviceId: "abc123",
        Version: version,
        Flags: ["updatable"],
        Releases: releases,
      },
      { Name: "Camera", DeviceId: "cam", Version: "1", Flags: ["internal"] },
    ],
  };
  await lab.write("devices.json", `WARNING: firmware may be old\n${JSON.stringify(devices)}`);
  await lab.write("results.json", JSON.stringify(results));
  await lab.config(CONFIG);
  await lab.fake(
    "ssh",
    `for command; do :; done
case "$command" in
  *chassis_vendor) echo '${vendor}' ;;
  *chassis_type) echo '${type}' ;;
  *boot_id) if [ -e ${lab.cwd}/rebooted ]; then echo two; else echo one; fi ;;
  *"fwupdmgr refresh"*) exit 2 ;;
  *"fwupdmgr get-devices"*) cat ${lab.cwd}/devices.json ;;
  *"fwupdmgr get-results"*) cat ${lab.cwd}/results.json ;;
  *"fwupdmgr upgrade"*) ${upgrade} ;;
  *reboot) touch ${lab.cwd}/rebooted; exit 255 ;;
esac`,
  );
}

/** What was run on the device, but for looks at it. */
export async function changes(lab: Lab): Promise<string[]> {
  return (await lab.calls("ssh")).map(({ args }) => args.at(-1) ?? "")
    .filter((command) => /fwupdmgr (upgrade|install|get-results)|reboot$/.test(command));
}

export const update = (firmware_update_data: unknown) => ({ firmware_update_data });

export async function updateOf(
  lab: Lab,
): Promise<{ code: number; message: string; stderr: string }> {
  const { code, stderr } = await lab.stage("noprovision", "firmware_update");
  const message = await lab.has("device-connector-error.json")
    ? (await lab.failure("firmware_update")).exception_message ?? ""
    : "";
  return { code, message, stderr };
}
