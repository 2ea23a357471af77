/** Finding the partitions from which an OEM device is reinstalled, among those that lsblk lists. */
import * as z from "zod";
import { ProvisioningError } from "./errors.ts";

/** Lists the partitions of a device for `resetPartitions()` and `recoveryPartition()`. */
export const LIST_PARTITIONS =
  "lsblk -J -o NAME,PATH,TYPE,FSTYPE,LABEL,MOUNTPOINT,PARTTYPE,PARTUUID";

/** GPT type of an EFI system partition. */
const EFI_TYPE = "c12a7328-f81f-11d2-ba4b-00c04fc93ec9";
const EFI_MOUNT_POINT = "/boot/efi";
const RESET_NUMBER = 2;
/** What manufacturers call a partition to reset from. */
const RESET_LABEL = /reset|recovery|pqservice|^os$/i;

const Partition = z.looseObject({
  name: z.string(),
  path: z.string(),
  type: z.string(),
  fstype: z.string().nullish(),
  label: z.string().nullish(),
  mountpoint: z.string().nullish(),
  parttype: z.string().nullish(),
  partuuid: z.string().nullish(),
});
type Partition = z.output<typeof Partition>;

const Disks = z.looseObject({
  blockdevices: z.array(z.looseObject({ children: z.array(Partition).default([]) })),
});

/** Where the device is reinstalled from. */
export interface ResetPartitions {
  /** Path of the partition that becomes the installation medium. */
  readonly reset: string;
  readonly resetUuid: string;
  readonly efi: string;
}

/**
 * The reset partition and the EFI system partition of the disk that the device runs from.
 *
 * @param lsblk what `LIST_PARTITIONS` printed.
 * @param home the home folder of who logs in.
 * @throws ProvisioningError when they are not there, or are not what they would have to be: both are
 *   about to be formatted.
 */
export function resetPartitions(lsblk: string, home: string): ResetPartitions {
  const isStore = ({ fstype, mountpoint }: Partition) =>
    fstype === "ext4" && (mountpoint === home || mountpoint === "/");
  const partitions = partitionsByDisk(lsblk).find((all) => all.some(isStore));
  if (partitions === undefined) {
    throw new ProvisioningError(`The device has no ext4 file system on ${home} or /`);
  }
  const efi = partitions.find(isEfi);
  if (efi === undefined) throw new ProvisioningError("The device has no EFI system partition");
  const reset = partitions.find((partition) => numberOf(partition) === RESET_NUMBER);
  if (reset === undefined || reset === efi || isStore(reset)) {
    throw new ProvisioningError(
      `The device has no reset partition: it would be number ${RESET_NUMBER} of the disk of ${efi.path}`,
    );
  }
  if (reset.fstype !== "vfat" && !RESET_LABEL.test(reset.label ?? "")) {
    throw new ProvisioningError(
      `${reset.path} is not formatted: as a reset partition it would be of type vfat, or labelled as ` +
        `one, but it is of type ${reset.fstype ?? "none"} with the label '${reset.label ?? ""}'`,
    );
  }
  if (!reset.partuuid) throw new ProvisioningError(`${reset.path} has no PARTUUID`);
  return { reset: reset.path, resetUuid: reset.partuuid, efi: efi.path };
}

/**
 * The recovery partition: the one behind the EFI system partition of the disk that the device has
 * booted from.
 *
 * @param lsblk what `LIST_PARTITIONS` printed.
 * @returns its path, such as /dev/nvme0n1p2.
 * @throws ProvisioningError when there is none.
 */
export function recoveryPartition(lsblk: string): string {
  const byDisk = partitionsByDisk(lsblk);
  const isMounted = ({ mountpoint }: Partition) => mountpoint === EFI_MOUNT_POINT;
  // A stick that is plugged in may have an EFI partition, too.
  const partitions = byDisk.find((all) => all.some(isMounted)) ??
    byDisk.find((all) => all.some(isEfi));
  const efi = partitions?.find(isMounted) ?? partitions?.find(isEfi);
  if (partitions === undefined || efi === undefined) {
    throw new ProvisioningError("The device has no EFI system partition, and so no recovery one");
  }
  const recovery = partitions.find((partition) => numberOf(partition) === numberOf(efi) + 1);
  if (recovery !== undefined) return recovery.path;
  throw new ProvisioningError(
    `The device has no recovery partition: none comes behind ${efi.path}, the EFI system partition`,
  );
}

function partitionsByDisk(lsblk: string): Partition[][] {
  const disks = Disks.safeParse(jsonIn(lsblk));
  if (!disks.success) throw new ProvisioningError("'lsblk' did not say what disks the device has");
  return disks.data.blockdevices.map(({ children }) =>
    children.filter(({ type }) => type === "part")
  );
}

function isEfi({ parttype }: Partition): boolean {
  return parttype?.toLowerCase() === EFI_TYPE;
}

/** Its number on its disk; NaN where its name has none. */
function numberOf({ name }: Partition): number {
  return Number(/\d+$/.exec(name)?.[0]);
}

function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
