/** The block devices of a machine, as MAAS describes them. */
import * as z from "zod";

const filesystem = z.looseObject({
  fstype: z.string().nullish(),
  mount_point: z.string().nullish(),
}).nullish();

/** What `maas block-devices read` prints. */
export const blockDevicesSchema = z.array(
  z.looseObject({
    id: z.int(),
    type: z.string(),
    name: z.string().nullish(),
    serial: z.string().nullish(),
    /** Bytes. Virtual devices may have none: they are only deleted. */
    size: z.union([z.number(), z.string().regex(/^\d+$/)]).transform(Number).nullish(),
    filesystem,
    partitions: z.array(z.looseObject({ id: z.int(), filesystem })).nullish(),
  }).refine((device) => device.size != null || isVirtual(device), {
    path: ["size"],
    error: "a disk must have a size",
  }).transform((device) => ({ ...device, size: device.size ?? 0 })),
);

/** A block device of a machine. */
export type BlockDevice = z.output<typeof blockDevicesSchema>[number];

/** File systems that only tie a device into LVM, RAID or bcache, and go when that goes. */
const GROUP_MEMBERS: readonly string[] = [
  "bcache-backing",
  "bcache-cache",
  "lvm-pv",
  "raid",
  "raid-spare",
];

/** Is it made of other devices? */
export function isVirtual(device: { readonly type: string }): boolean {
  return device.type === "virtual";
}

/** Does something on this device belong to a volume group? */
export function hasPhysicalVolume(device: BlockDevice): boolean {
  return [device, ...(device.partitions ?? [])].some(({ filesystem }) =>
    filesystem?.fstype === "lvm-pv"
  );
}

/** Is the device's file system only its membership in something that is deleted anyway? */
export function isGroupMember(device: BlockDevice): boolean {
  return GROUP_MEMBERS.includes(device.filesystem?.fstype ?? "");
}
