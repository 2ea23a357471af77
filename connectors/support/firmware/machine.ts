/** What kind of machine the device is, and so how its firmware is updated. */
import type { ConnectorContext } from "../../context.ts";
import { FirmwareUpdateError } from "../errors.ts";
import { succeeded } from "../process/runner.ts";
import { destination, ssh, sshFailureText, type SshTarget } from "../ssh/ssh.ts";
import { keyLetsIn } from "../wait/boot.ts";
import { pollUntil } from "../wait/poll.ts";
import type { FirmwareMethod } from "./config.ts";

const REACH_LIMIT_MS = 60_000;
const REACH_ATTEMPT_MS = 10_000;
const REACH_PAUSE_MS = 2_000;
const DMI_TIMEOUT_MS = 30_000;

/** Chassis types of the SMBIOS specification (DSP0134, 7.4.1) that have a way to update firmware. */
const METHODS_BY_CHASSIS: Readonly<Record<string, readonly FirmwareMethod[]>> = {
  "3": ["lvfs"], // Desktop
  "7": ["hpe"], // Tower
  "13": ["lvfs"], // All in One
  "17": ["hpe"], // Main Server Chassis
  "23": ["hpe", "lvfs"], // Rack Mount Chassis
  "25": ["hpe"], // Multi-system
  "28": ["hpe"], // Blade
  "35": ["lvfs"], // Mini PC
};

/** Vendors as their machines spell them. */
const METHOD_BY_VENDOR: Readonly<Record<string, FirmwareMethod>> = {
  "HP": "lvfs",
  "Dell Inc.": "lvfs",
  "LENOVO": "lvfs",
  "HPE": "hpe",
};

/**
 * How the firmware of a machine is updated.
 *
 * @param dmi its `chassis_vendor` and `chassis_type`, as the kernel shows them.
 * @throws FirmwareUpdateError when there is no way.
 */
function methodFor(dmi: { readonly vendor: string; readonly type: string }): FirmwareMethod {
  const method = METHOD_BY_VENDOR[dmi.vendor];
  if (method !== undefined && METHODS_BY_CHASSIS[dmi.type]?.includes(method)) return method;
  throw new FirmwareUpdateError(
    `Updating the firmware of this machine is not supported: its chassis vendor is ` +
      `'${dmi.vendor}', its chassis type ${dmi.type}. If it is known to work, set ` +
      `'firmware_method' in the device configuration`,
  );
}

/** @throws FirmwareUpdateError when the device does not answer on ssh within a minute. */
export async function waitUntilReachable(
  ctx: ConnectorContext,
  target: SshTarget,
  limitMs: number = REACH_LIMIT_MS,
): Promise<void> {
  const missing = await pollUntil(ctx, {
    waitingFor: `${destination(target)} to answer on ssh`,
    limitMs,
    pauseMs: REACH_PAUSE_MS,
    lookFirst: true,
    async look() {
      const login = await keyLetsIn(ctx, target, REACH_ATTEMPT_MS);
      return login.ok ? undefined : login.why;
    },
  });
  if (missing === undefined) return;
  throw new FirmwareUpdateError(
    `${destination(target)} did not answer on ssh within ${limitMs / 1000} s: ${missing}`,
  );
}

/**
 * Finds out how the device's firmware is updated: from its DMI data, unless the configuration says.
 *
 * @throws FirmwareUpdateError when the machine does not say what it is, or is not supported.
 */
export async function detectMethod(
  ctx: ConnectorContext,
  target: SshTarget,
): Promise<FirmwareMethod> {
  await waitUntilReachable(ctx, target);
  const configured = ctx.config.firmware_method;
  if (configured !== undefined) return configured;
  const vendor = await readDmi(ctx, target, "chassis_vendor");
  const type = await readDmi(ctx, target, "chassis_type");
  ctx.log.info(`The chassis vendor is '${vendor}', the chassis type ${type}`);
  return methodFor({ vendor, type });
}

async function readDmi(ctx: ConnectorContext, target: SshTarget, name: string): Promise<string> {
  const command = `sudo cat /sys/class/dmi/id/${name}`;
  const result = await ssh(ctx, target, command, { timeoutMs: DMI_TIMEOUT_MS });
  if (succeeded(result)) return result.stdout.trim();
  throw new FirmwareUpdateError(
    `The device does not say what machine it is, its DMI data cannot be read: ` +
      sshFailureText(target, command, result),
  );
}
