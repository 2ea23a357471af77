/** Firmware from the Linux Vendor Firmware Service, by fwupd on the device itself. */
import * as z from "zod";
import type { ConnectorContext } from "../../context.ts";
import { FirmwareUpdateError } from "../errors.ts";
import { succeeded } from "../process/runner.ts";
import { quote, ssh, sshFailureText, type SshTarget } from "../ssh/ssh.ts";
import { deviceBootId, waitForReboot } from "../wait/boot.ts";

/** The versions that a job can ask for. */
export const LVFS_VERSIONS = ["latest", "previous"] as const;
export type LvfsVersion = typeof LVFS_VERSIONS[number];

const SHORT_MS = 30_000;
const REFRESH_MS = 120_000;
/** Another apt may hold the lock, on a device that has just booted for minutes. */
const INSTALL_MS = 600_000;
const LOCK_TIMEOUT_S = 300;
/** Firmware of docks and disks takes minutes to write. */
const UPGRADE_MS = 900_000;
const REBOOT_LIMIT_MS = 900_000;
const REBOOT_PAUSE_MS = 10_000;

/** Exit status of fwupdmgr for "nothing to do". */
const NOTHING_TO_DO = 2;

/** `UpdateState` of fwupd. */
const UPDATE_STATES = [
  "unknown",
  "pending",
  "success",
  "failed",
  "needs a reboot",
  "failed, try again",
] as const;
const SUCCESS = 2;
const FAILED = 3;
const NEEDS_REBOOT = 4;
const FAILED_TRANSIENT = 5;

const Release = z.looseObject({
  Version: z.string(),
  Flags: z.array(z.string()).default([]),
  /** Where to download it: older and newer fwupd. */
  Uri: z.string().optional(),
  Locations: z.array(z.string()).optional(),
});

const Device = z.looseObject({
  DeviceId: z.string(),
  Name: z.string().optional(),
  Version: z.string().default(""),
  Flags: z.array(z.string()).default([]),
  Releases: z.array(Release).default([]),
});
type Device = z.output<typeof Device>;

const Devices = z.looseObject({ Devices: z.array(Device).default([]) });

const Results = z.looseObject({
  UpdateState: z.number().optional(),
  Releases: z.array(z.looseObject({ Version: z.string() })).default([]),
});

/** A device whose firmware is to become another. */
interface Change {
  readonly device: Device;
  readonly version: string;
  /** The fwupdmgr command line that does it. */
  readonly command: string;
}

/**
 * Updates everything that fwupd can update, reboots the device where that is needed, and looks
 * whether the new versions are there.
 *
 * @throws FirmwareUpdateError when anything of it fails; the other devices are updated anyway.
 */
export async function updateByLvfs(
  ctx: ConnectorContext,
  target: SshTarget,
  wanted: LvfsVersion,
): Promise<void> {
  await installFwupd(ctx, target);
  const changes = changesFor(await readDevices(ctx, target), wanted, ctx);
  if (changes.length === 0) {
    ctx.log.info("All firmware is as wanted");
    return;
  }
  if (ctx.config.firmware_dry_run) {
    for (const { command } of changes) ctx.log.info(`firmware_dry_run is set, not run: ${command}`);
    return;
  }
  const failures: string[] = [];
  const done: Change[] = [];
  for (const change of changes) {
    const result = await ssh(ctx, target, change.command, { timeoutMs: UPGRADE_MS });
    if (succeeded(result)) done.push(change);
    else failures.push(sshFailureText(target, change.command, result));
  }
  if (done.length > 0) {
    await reboot(ctx, target);
    failures.push(...await checkResults(ctx, target, done));
  }
  if (failures.length > 0) {
    throw new FirmwareUpdateError(`Firmware is not updated: ${failures.join("; ")}`);
  }
}

async function installFwupd(ctx: ConnectorContext, target: SshTarget): Promise<void> {
  const apt =
    `sudo DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=${LOCK_TIMEOUT_S}`;
  const update = await ssh(ctx, target, `${apt} update`, { timeoutMs: INSTALL_MS });
  // Without the newest lists what is installed, or in the old lists, may still do.
  if (!succeeded(update)) ctx.log.warning(sshFailureText(target, "apt-get update", update));
  await expect(ctx, target, { command: `${apt} install -y fwupd`, timeoutMs: INSTALL_MS });
  const version = await expect(ctx, target, {
    command: "sudo fwupdmgr --version",
    timeoutMs: SHORT_MS,
  });
  ctx.log.info(`fwupd on the device: ${version.trim().split("\n")[0] ?? ""}`);
  await expect(ctx, target, {
    command: "sudo fwupdmgr refresh --force",
    timeoutMs: REFRESH_MS,
    alsoFine: NOTHING_TO_DO,
  });
}

async function readDevices(ctx: ConnectorContext, target: SshTarget): Promise<Device[]> {
  const command = "sudo fwupdmgr get-devices --json";
  const text = await expect(ctx, target, { command, timeoutMs: SHORT_MS });
  const devices = Devices.safeParse(jsonIn(text));
  if (!devices.success) {
    throw new FirmwareUpdateError(`'${command}' did not answer with the devices: ${shown(text)}`);
  }
  return devices.data.Devices.filter(({ Flags }) => Flags.includes("updatable"));
}

/** What is to be done, and in the log what there is of each device. */
function changesFor(
  devices: readonly Device[],
  wanted: LvfsVersion,
  { log }: Pick<ConnectorContext, "log">,
): Change[] {
  return devices.flatMap((device) => {
    const { DeviceId, Version, Releases } = device;
    const releasesWith = (flag: string) => Releases.filter(({ Flags }) => Flags.includes(flag));
    const versionsWith = (flag: string) =>
      releasesWith(flag).map((release) => release.Version).join(", ") || "none";
    log.info(
      `${nameOf(device)}: version ${Version || "unknown"}; upgrades: ${
        versionsWith("is-upgrade")
      }; downgrades: ${versionsWith("is-downgrade")}`,
    );
    if (wanted === "latest") {
      // Releases come newest first.
      const [newest] = Releases;
      if (newest === undefined || newest.Version === Version) return [];
      if (!newest.Flags.includes("is-upgrade")) return [];
      const command = `sudo fwupdmgr upgrade ${quote(DeviceId)} -y --no-reboot-check`;
      return [{ device, version: newest.Version, command }];
    }
    const [previous] = releasesWith("is-downgrade");
    const uri = previous?.Locations?.[0] ?? previous?.Uri;
    if (previous === undefined || uri === undefined) return [];
    const file = uri.slice(uri.lastIndexOf("/") + 1);
    const command = `cd "$(mktemp -d)" && sudo fwupdmgr download ${quote(uri)} && ` +
      `sudo fwupdmgr install ./${quote(file)} -y --no-reboot-check --allow-older`;
    return [{ device, version: previous.Version, command }];
  });
}

async function reboot(ctx: ConnectorContext, target: SshTarget): Promise<void> {
  const before = await deviceBootId(ctx, target);
  // The connection may go down before the answer comes.
  await ssh(ctx, target, "sudo reboot", { timeoutMs: SHORT_MS });
  const missing = await waitForReboot(ctx, {
    target,
    before,
    limitMs: REBOOT_LIMIT_MS,
    pauseMs: REBOOT_PAUSE_MS,
  });
  if (missing === undefined) return;
  throw new FirmwareUpdateError(
    `The device did not come back within ${REBOOT_LIMIT_MS / 1000} s after its firmware was ` +
      `updated: ${missing}`,
  );
}

/** Looks at each device; one that needs another reboot gets it, once. @returns what went wrong. */
async function checkResults(
  ctx: ConnectorContext,
  target: SshTarget,
  changes: readonly Change[],
): Promise<string[]> {
  const needReboot: Change[] = [];
  const failures: string[] = [];
  for (const change of changes) {
    const state = await resultOf(ctx, target, change);
    if (state === NEEDS_REBOOT) needReboot.push(change);
    else failures.push(...failureOf(change, state));
  }
  if (needReboot.length === 0) return failures;
  await reboot(ctx, target);
  for (const change of needReboot) {
    const state = await resultOf(ctx, target, change);
    // It had its reboot.
    const isThere = state === NEEDS_REBOOT && await hasVersion(ctx, target, change);
    failures.push(...failureOf(change, isThere ? SUCCESS : state));
  }
  return failures;
}

function failureOf({ device, version }: Change, state: number | undefined): string[] {
  if (state === SUCCESS) return [];
  const says = state === undefined ? "fwupd has no result of it" : UPDATE_STATES[state] ?? state;
  return [`${nameOf(device)} did not become version ${version}: ${says}`];
}

/**
 * The state of an update. Where the results do not say how it ended, that the device has the version now
 * is as good as success: some devices keep no results, or none of what happened at their boot.
 */
async function resultOf(
  ctx: ConnectorContext,
  target: SshTarget,
  change: Change,
): Promise<number | undefined> {
  const { device, version } = change;
  const command = `sudo fwupdmgr get-results ${quote(device.DeviceId)} --json`;
  const result = await ssh(ctx, target, command, { timeoutMs: SHORT_MS });
  const parsed = Results.safeParse(succeeded(result) ? jsonIn(result.stdout) : undefined);
  const { UpdateState: state, Releases = [] } = parsed.data ?? {};
  if (state === FAILED || state === FAILED_TRANSIENT || state === NEEDS_REBOOT) return state;
  const isSuccess = state === SUCCESS && Releases[0]?.Version === version;
  if (isSuccess || await hasVersion(ctx, target, change)) return SUCCESS;
  // A success of another version is none of this one.
  return state === SUCCESS ? undefined : state;
}

/** Does the device have the version that it was to get? */
async function hasVersion(
  ctx: ConnectorContext,
  target: SshTarget,
  { device, version }: Change,
): Promise<boolean> {
  const now = (await readDevices(ctx, target)).find(({ DeviceId }) => DeviceId === device.DeviceId);
  return now?.Version === version;
}

/** A remote command that must succeed. @returns its standard output. */
async function expect(
  ctx: ConnectorContext,
  target: SshTarget,
  { command, timeoutMs, alsoFine = 0 }: {
    readonly command: string;
    readonly timeoutMs: number;
    /** Another exit status that is no failure. */
    readonly alsoFine?: number;
  },
): Promise<string> {
  const result = await ssh(ctx, target, command, { timeoutMs });
  if (result.ended === "exited" && [0, alsoFine].includes(result.status)) return result.stdout;
  throw new FirmwareUpdateError(sshFailureText(target, command, result));
}

/** The JSON object in a program's output, which may have warnings before it. */
function jsonIn(text: string): unknown {
  const start = text.search(/^\{/m);
  if (start < 0) return undefined;
  try {
    return JSON.parse(text.slice(start));
  } catch {
    return undefined;
  }
}

function shown(text: string): string {
  const most = 200;
  const trimmed = text.trim();
  return trimmed === "" ? "nothing came" : trimmed.slice(0, most);
}

function nameOf({ Name, DeviceId }: Device): string {
  return Name ?? DeviceId;
}
