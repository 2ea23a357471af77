/** Finding the recovery partition among the device's disks. */
import * as z from "zod";
import { ProvisioningError } from "../support/errors.ts";

/** GPT type of an EFI system partition. */
const EFI_TYPE = "c12a7328-f81f-11d2-ba4b-00c04fc93ec9";
const EFI_MOUNT_POINT = "/boot/efi";

/** What lsblk is to say. */
export const LSBLK = "lsblk -J -o NAME,PATH,TYPE,PARTTYPE,MOUNTPOINT";

const Partition = z.looseObject({
  name: z.string(),
  path: z.string(),
  type: z.string(),
  parttype: z.string().nullish(),
  mountpoint: z.string().nullish(),
});

const Disks = z.looseObject({
  blockdevices: z.array(z.looseObject({ children: z.array(Partition).default([]) })),
});

/**
 * The recovery partition: the one behind the EFI system partition of the disk that the device has
 * booted from.
 *
 * @param lsblk what `LSBLK` printed.
 * @returns its path, such as /dev/nvme0n1p2.
 * @throws ProvisioningError when there is none.
 */
export function recoveryPartition(lsblk: string): string {
  const disks = Disks.safeParse(jsonIn(lsblk));
  if (!disks.success) throw new ProvisioningError("'lsblk' did not say what disks the device has");
  const byDisk = disks.data.blockdevices.map(({ children }) =>
    children.filter(({ type }) => type === "part")
  );
  const isEfi = ({ parttype }: z.output<typeof Partition>) => parttype?.toLowerCase() === EFI_TYPE;
  const isMounted = ({ mountpoint }: z.output<typeof Partition>) => mountpoint === EFI_MOUNT_POINT;
  // A stick that is plugged in may have an EFI partition, too.
  const partitions = byDisk.find((all) => all.some(isMounted)) ??
    byDisk.find((all) => all.some(isEfi));
  const efi = partitions?.find(isMounted) ?? partitions?.find(isEfi);
  if (partitions === undefined || efi === undefined) {
    throw new ProvisioningError("The device has no EFI system partition, and so no recovery one");
  }
  const recovery = partitions.find(({ name }) => numberOf(name) === numberOf(efi.name) + 1);
  if (recovery !== undefined) return recovery.path;
  throw new ProvisioningError(
    `The device has no recovery partition: none comes behind ${efi.path}, the EFI system partition`,
  );
}

function numberOf(name: string): number {
  return Number(/\d+$/.exec(name)?.[0]);
}

function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
