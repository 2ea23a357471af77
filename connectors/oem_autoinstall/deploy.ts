/** Writing an OEM ISO to the device's reset partition, and installing from it. */
import { basename, join } from "../../lib/path.ts";
import type { PrepareContext } from "../context.ts";
import { attachmentPath, type Credentials } from "../support/job.ts";
import { ProvisioningError } from "../support/errors.ts";
import { makeFolder, writeFile } from "../support/files.ts";
import { checkDownload } from "../support/http/download.ts";
import { type Remote, remote } from "../support/ssh/remote.ts";
import { deviceTarget, quote } from "../support/ssh/ssh.ts";
import { deviceBootId, letIn, waitUntilBooted } from "../support/wait/boot.ts";
import type { AutoinstallContext, AutoinstallData } from "./config.ts";
import { downloadIso, readToken, type Token } from "./download_iso.ts";
import { LIST_PARTITIONS, resetPartitions } from "../support/oem_partitions.ts";
import redeployCfg from "./templates/redeploy.cfg" with { type: "text" };
import writeResetPartition from "./templates/write_reset_partition.sh" with { type: "text" };

const CHECK_TIMEOUT_MS = 600_000;
const COPY_TIMEOUT_MS = 1_800_000;
const REBOOT_TIMEOUT_MS = 60_000;
const INSTALL_PAUSE_MS = 180_000;

/** File names that need no quotes anywhere. */
const PLAIN_NAME = /^[A-Za-z0-9][A-Za-z0-9._+-]*$/;

/** Kernels of such ISOs are not signed. */
const UNSIGNED = /next|edge/i;

/** What an OEM ISO must have in it. */
const ISO_FOLDERS = ["/cloud-configs/grub", "/sideloads"];
const ISO_FILES = ["/casper/vmlinuz", "/casper/initrd"];

/** What is to be installed. */
export interface DeployPlan {
  readonly url: string;
  /** File name of the ISO. */
  readonly name: string;
  readonly sha256: string | undefined;
  readonly token: Token | undefined;
  readonly login: Credentials;
  /** What goes onto the reset partition next to the ISO, by the name that it gets there. */
  readonly files: Readonly<Record<"user-data" | "meta-data" | "redeploy.cfg", string>>;
  readonly authorizedKeys: string | undefined;
  /** The job brings no user data: ours is used. */
  readonly isDefault: boolean;
}

/**
 * What the job says about the installation.
 *
 * @param defaults.userData for jobs that bring none.
 * @throws ProvisioningError when it cannot be done.
 */
export async function deployPlan(
  ctx: PrepareContext,
  { data, url, login, userData }: {
    readonly data: AutoinstallData;
    readonly url: string;
    readonly login: Credentials;
    readonly userData: string;
  },
): Promise<DeployPlan> {
  checkDownload(ctx, { url, sha256: data.sha256 });
  const address = new URL(url);
  const name = basename(address.pathname);
  if (!PLAIN_NAME.test(name)) {
    throw new ProvisioningError(
      `Cannot install '${name}': expected the name of an ISO, of letters, digits and . _ + -`,
    );
  }
  const checksum = data.sha256 ?? /^#sha256=(.*)$/.exec(address.hash)?.[1];
  address.hash = "";
  const token = await attached(ctx, "token_file", data.token_file, "url_token");
  const ownUserData = await attached(ctx, "user_data", data.user_data, "user-data");
  return {
    url: address.href,
    name,
    sha256: checksum?.toLowerCase(),
    token: readToken(address, token),
    login,
    files: {
      "user-data": ownUserData ?? userData,
      "meta-data": await attached(ctx, "meta_data", undefined, "meta-data") ?? "",
      "redeploy.cfg": await attached(ctx, "redeploy_cfg", data.redeploy_cfg, "redeploy.cfg") ??
        redeployCfg,
    },
    authorizedKeys: await attached(ctx, "authorized_keys", data.authorized_keys, "authorized_keys"),
    isDefault: ownUserData === undefined,
  };
}

/**
 * The text of an attachment. One that has the name which it would get anyway is taken whatever the
 * job's key says, as it always was.
 */
async function attached(
  ctx: PrepareContext,
  key: string,
  name: string | undefined,
  fixedName: string,
): Promise<string | undefined> {
  const fixed = await attachmentPath(ctx, { phase: "provision", name: fixedName, key })
    .catch(() => undefined);
  if (fixed !== undefined) return await Deno.readTextFile(fixed);
  if (name === undefined) return undefined;
  const path = await attachmentPath(ctx, {
    phase: "provision",
    name: name.replace(/^\/+/, ""),
    key,
  });
  return await Deno.readTextFile(path);
}

/** @throws ProvisioningError naming the step that failed; RecoveryError when a reset fails. */
export async function deployImage(ctx: AutoinstallContext, plan: DeployPlan): Promise<void> {
  const { login } = plan;
  await letIn(ctx, login);
  await keepForThePerson(ctx, plan);
  const home = login.user === "root" ? "/root" : `/home/${login.user}`;
  const device = remote(ctx, deviceTarget(ctx, { user: login.user }));
  const partitions = resetPartitions(
    await device.must({
      step: "find the reset partition",
      program: "lsblk",
      command: LIST_PARTITIONS,
    }),
    home,
  );
  ctx.log.info(`The reset partition is ${partitions.reset}, the EFI partition ${partitions.efi}`);
  await refuseUnsigned(device, plan.name);
  const iso = `${home}/${plan.name}`;
  await downloadIso(ctx, device, { ...plan, iso, home });
  await checkIso(device, iso);
  await sendFiles(device, plan, `${home}/redeploy`);
  await device.must({
    step: "write the reset partition",
    program: "sh",
    command: `sudo sh -s -- ${
      [home, iso, partitions.reset, partitions.efi, partitions.resetUuid].map(quote).join(" ")
    }`,
    input: writeResetPartition,
    timeoutMs: COPY_TIMEOUT_MS,
    // Not again in the middle of it.
    attempts: 1,
  });
  const before = await deviceBootId(ctx, device.target);
  // The connection may go down before the answer comes.
  await device.run("sudo reboot", { timeoutMs: REBOOT_TIMEOUT_MS, attempts: 1 });
  await device.disconnect();
  ctx.log.info("The device installs itself now");
  await waitUntilBooted(ctx, { login, before, pauseMs: INSTALL_PAUSE_MS });
  // The installed system reboots once more when its first boot is over.
  await waitUntilBooted(ctx, { login, before });
}

/** The job's folder shows what was used, as it always did; credentials are not kept. */
async function keepForThePerson(
  { cwd }: AutoinstallContext,
  { files, authorizedKeys, isDefault }: DeployPlan,
): Promise<void> {
  const folder = join(cwd, "attachments", "provision");
  await makeFolder(folder);
  const shown = {
    ...files,
    ...(isDefault ? { "default-user-data": files["user-data"] } : {}),
    ...(authorizedKeys === undefined ? {} : { authorized_keys: authorizedKeys }),
  };
  for (const [name, text] of Object.entries(shown)) {
    await writeFile(join(folder, name), text, { mode: 0o600 });
  }
  await Deno.remove(join(folder, "url_token")).catch(() => {});
}

async function refuseUnsigned(device: Remote, name: string): Promise<void> {
  if (!UNSIGNED.test(name)) return;
  const result = await device.run("sudo mokutil --sb-state");
  if (!("stdout" in result) || !result.stdout.includes("SecureBoot enabled")) return;
  throw new ProvisioningError(
    `${name} has a kernel that is not signed, and the device boots only signed ones (secure boot)`,
  );
}

async function checkIso(device: Remote, iso: string): Promise<void> {
  await device.must({
    step: "install xorriso on the device",
    program: "apt-get",
    command: "command -v xorriso >/dev/null || " +
      "sudo DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y xorriso",
    timeoutMs: CHECK_TIMEOUT_MS,
  });
  const type = await device.must({
    step: "look at the ISO",
    program: "file",
    command: `sudo file -b --mime-type ${quote(iso)}`,
  });
  if (!type.includes("application/x-iso9660")) {
    throw new ProvisioningError(`What was downloaded is no ISO: it is of type ${type.trim()}`);
  }
  const missing: string[] = [];
  for (const [kind, wanted] of [["d", ISO_FOLDERS], ["f", ISO_FILES]] as const) {
    const listed = await device.must({
      step: "look into the ISO",
      program: "xorriso",
      command: `sudo xorriso -indev ${quote(iso)} -find / -type ${kind} 2>/dev/null`,
      timeoutMs: CHECK_TIMEOUT_MS,
    });
    const names = new Set(listed.split("\n").map((line) => line.trim().replace(/^'(.*)'$/, "$1")));
    missing.push(...wanted.filter((name) => !names.has(name)));
  }
  if (missing.length === 0) return;
  await device.run(`sudo rm -f ${quote(iso)}`);
  throw new ProvisioningError(`The ISO is no OEM image: it has no ${missing.join(", ")}`);
}

async function sendFiles(device: Remote, plan: DeployPlan, folder: string): Promise<void> {
  const configs = `${folder}/cloud-configs`;
  await device.must({
    step: "make a folder for the installation's configuration",
    program: "mkdir",
    command: `rm -rf ${quote(folder)} && mkdir -p ${quote(`${configs}/redeploy`)} ` +
      quote(`${configs}/grub`),
  });
  const { "user-data": userData, "meta-data": metaData, "redeploy.cfg": grub } = plan.files;
  const files: readonly (readonly [path: string, text: string])[] = [
    [`${configs}/redeploy/user-data`, userData],
    [`${configs}/redeploy/meta-data`, metaData],
    [`${configs}/grub/redeploy.cfg`, grub],
    ...(plan.authorizedKeys === undefined
      ? []
      : [[`${folder}/authorized_keys`, plan.authorizedKeys] as const]),
  ];
  for (const [path, text] of files) {
    await device.write({ step: `write ${basename(path)} on the device`, path, text, mode: 0o644 });
  }
}
