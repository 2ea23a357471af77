import { access, constants } from "node:fs/promises";
import { join } from "../../../lib/path.ts";

/** A program that a connector calls on the agent's host, or on a control host. */
export interface ProgramNeed {
  readonly name: string;
  /** How it gets there. */
  readonly install: string;
  /** What it is called with to say its version; undefined where it does not. */
  readonly version?: readonly string[];
  /** Undefined: the connector cannot do without it. */
  readonly onlyFor?: string;
  /** Needed only where the device configuration has one of these keys. */
  readonly onlyWithKeys?: readonly string[];
}

const OPENSSH = "apt install openssh-client";

/** Programs that more than one connector calls. */
export const SSH: ProgramNeed = { name: "ssh", install: OPENSSH, version: ["-V"] };
export const SCP: ProgramNeed = { name: "scp", install: OPENSSH };
export const SSH_COPY_ID: ProgramNeed = { name: "ssh-copy-id", install: OPENSSH };
export const SSHPASS: ProgramNeed = {
  name: "sshpass",
  install: "apt install sshpass",
  version: ["-V"],
};
export const QEMU_IMG: ProgramNeed = {
  name: "qemu-img",
  install: "apt install qemu-utils",
  version: ["--version"],
  onlyFor: "qcow2 images",
};
export const GIT: ProgramNeed = { name: "git", install: "apt install git", version: ["--version"] };
export const TAR: ProgramNeed = { name: "tar", install: "apt install tar", version: ["--version"] };
export const MAAS: ProgramNeed = { name: "maas", install: "snap install maas" };

/** What is needed on a control host to look into an image and to change it; see `mountImage`. */
export const IMAGE_PROGRAMS: readonly ProgramNeed[] = [
  { name: "sudo", install: "apt install sudo, and a rule that asks for no password" },
  { name: "lsblk", install: "apt install util-linux" },
  { name: "mount", install: "apt install mount" },
  { name: "umount", install: "apt install mount" },
  { name: "mountpoint", install: "apt install util-linux" },
];

/** What is needed on a control host to write an image; see `flash`. */
export const FLASH_PROGRAMS: readonly ProgramNeed[] = [
  { name: "hdparm", install: "apt install hdparm" },
  {
    name: "zstdcat",
    install: "apt install zstd",
    onlyFor: "zstd images, and for packed ones whose own program is not there",
  },
  { name: "unxz", install: "apt install xz-utils", onlyFor: "xz images" },
  { name: "unlzma", install: "apt install xz-utils", onlyFor: "lzma images" },
  { name: "zcat", install: "apt install gzip", onlyFor: "gzip images" },
  { name: "bunzip2", install: "apt install bzip2", onlyFor: "bzip2 images" },
  { name: "lz4cat", install: "apt install lz4", onlyFor: "lz4 images" },
  { name: "funzip", install: "apt install unzip", onlyFor: "zip images" },
];

/** What images are unpacked with on this host, where that is not left to the control host. */
export const UNPACK_PROGRAMS: readonly ProgramNeed[] = [
  { name: "xz", install: "apt install xz-utils", onlyFor: "xz images that are unpacked here" },
  { name: "zstd", install: "apt install zstd", onlyFor: "zstd images that are unpacked here" },
];

/** The address of a server's iLO is in the device configuration, or known to MAAS. */
const BMC_KEYS = ["bmc", "maas_user"];

/** What the stages call that all connectors have. */
export const COMMON_PROGRAMS: readonly ProgramNeed[] = [
  { ...SSH_COPY_ID, onlyFor: "reservations" },
  {
    name: "ssh-import-id",
    install: "apt install ssh-import-id",
    onlyFor: "reservations with keys of lp: or gh:",
  },
  {
    name: "ping",
    install: "apt install iputils-ping",
    version: ["-V"],
    onlyFor: "control_host_reboot_script",
    onlyWithKeys: ["control_host_reboot_script", ...BMC_KEYS],
  },
  { ...SSH, onlyFor: "firmware updates" },
  {
    name: "ilorest",
    install: "HPE's ilorest 5.3 or later",
    version: ["--version"],
    onlyFor: "firmware of HPE servers",
    onlyWithKeys: BMC_KEYS,
  },
];

/** Each of the programs once, the more urgent need first. */
export function mergePrograms(needs: Iterable<ProgramNeed>): ProgramNeed[] {
  return [...Map.groupBy(needs, ({ name }) => name).values()].flatMap(([first, ...rest]) => {
    if (first === undefined) return [];
    const same = [first, ...rest];
    const purposes = new Set(same.flatMap(({ onlyFor }) => onlyFor ?? []));
    const always = same.find(({ onlyFor }) => onlyFor === undefined);
    if (always !== undefined) return [always];
    const { onlyWithKeys: _, ...need } = first;
    const isConditional = same.every(({ onlyWithKeys }) => onlyWithKeys !== undefined);
    const keys = new Set(same.flatMap(({ onlyWithKeys }) => onlyWithKeys ?? []));
    return [{
      ...need,
      onlyFor: [...purposes].join(", "),
      ...isConditional && { onlyWithKeys: [...keys] },
    }];
  });
}

/** Is there a program of this name in the connector's PATH? */
export async function hasProgram(
  { env }: { readonly env: Readonly<Record<string, string>> },
  name: string,
): Promise<boolean> {
  for (const folder of (env.PATH ?? "/usr/bin:/bin").split(":")) {
    const found = await access(join(folder || ".", name), constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return true;
  }
  return false;
}
