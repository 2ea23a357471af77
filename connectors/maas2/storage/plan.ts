import { assignDevices, partitionSizes } from "./assign.ts";
import { type BlockDevice, hasPhysicalVolume, isGroupMember, isVirtual } from "./devices.ts";
import type { Disk, Format, Mount, Partition, StorageLayout } from "./layout.ts";

/** A word of a command; that of a partition is only known when MAAS has created it. */
export type Word = string | { readonly partition: Partition };

/** One command of the `maas` client. */
export interface StorageStep {
  /** What it is for, as the object of "Cannot". */
  readonly step: string;
  readonly words: readonly Word[];
  /** It creates this partition on this device. */
  readonly creates?: { readonly partition: Partition; readonly device: number };
}

/** All that makes a machine's storage what a layout says. */
export interface StoragePlan {
  /** Removes what there is. */
  readonly clear: readonly StorageStep[];
  readonly apply: readonly StorageStep[];
}

/** The machine that the layout is for. */
export interface StorageMachine {
  /** System id. */
  readonly node: string;
  readonly devices: readonly BlockDevice[];
  /** Ids of its LVM volume groups. */
  readonly volumeGroups: readonly number[];
}

/**
 * Plans how to get from what is on a machine to a layout. Asks nobody, changes nothing.
 *
 * @throws MaasStorageError when the layout does not fit on the machine.
 */
export function planStorage(layout: StorageLayout, machine: StorageMachine): StoragePlan {
  const devices = assignDevices(layout, machine.devices);
  return { clear: clearSteps(machine), apply: applySteps(layout, machine.node, devices) };
}

/** What is made of other things goes before them: logical volumes may lie on a RAID. */
function clearSteps({ node, devices, volumeGroups }: StorageMachine): StorageStep[] {
  const virtual = devices.filter(isVirtual);
  const isPart = (device: BlockDevice) => isGroupMember(device) || hasPhysicalVolume(device);
  const deleteDevice = ({ id }: BlockDevice): StorageStep => ({
    step: `delete the virtual block device ${id}`,
    words: ["block-device", "delete", node, String(id)],
  });
  return [
    ...virtual.filter((device) => !isPart(device)).map(deleteDevice),
    ...volumeGroups.map((id) => ({
      step: `delete the volume group ${id}`,
      words: ["volume-group", "delete", node, String(id)],
    })),
    ...virtual.filter(isPart).map(deleteDevice),
    ...devices.filter((device) => !isVirtual(device))
      .flatMap((device) => clearDevice(node, device)),
  ];
}

function clearDevice(node: string, device: BlockDevice): StorageStep[] {
  const id = String(device.id);
  const steps: StorageStep[] = (device.partitions ?? []).map((partition) => ({
    step: `delete the old partition ${partition.id} of disk ${id}`,
    words: ["partition", "delete", node, id, String(partition.id)],
  }));
  if (!device.filesystem || isGroupMember(device)) return steps;
  if (device.filesystem.mount_point) {
    steps.push({
      step: `unmount the old file system of disk ${id}`,
      words: ["block-device", "unmount", node, id],
    });
  }
  steps.push({
    step: `remove the old file system of disk ${id}`,
    words: ["block-device", "unformat", node, id],
  });
  return steps;
}

function applySteps(
  layout: StorageLayout,
  node: string,
  devices: ReadonlyMap<Disk, BlockDevice>,
): StorageStep[] {
  /** The words that name a disk or a partition to MAAS. */
  const place = (volume: Disk | Partition): [string, ...Word[]] =>
    volume.type === "disk"
      ? ["block-device", node, idOf(volume)]
      : ["partition", node, idOf(volume.disk), { partition: volume }];
  const idOf = (disk: Disk) => String(deviceOf(disk).id);
  const deviceOf = (disk: Disk): BlockDevice => {
    const device = devices.get(disk);
    if (device === undefined) throw new Error(`No device was chosen for the disk '${disk.id}'`);
    return device;
  };
  const boot = bootDisk(layout);

  const diskSteps = (disk: Disk): StorageStep[] => [
    ...(disk === boot
      ? [{
        step: `make the disk '${disk.id}' the boot disk`,
        words: ["block-device", "set-boot-disk", node, idOf(disk)],
      }]
      : []),
    ...(disk.name === undefined ? [] : [{
      step: `name the disk '${disk.id}'`,
      words: ["block-device", "update", node, idOf(disk), `name=${disk.name}`],
    }]),
  ];
  const partitionSteps = (disk: Disk): StorageStep[] => {
    const partitions = layout.partitions.filter((partition) => partition.disk === disk)
      .sort((a, b) => a.number === b.number ? 0 : a.number < b.number ? -1 : 1);
    const device = deviceOf(disk);
    const sizes = partitionSizes(partitions, device.size);
    if (!sizes.fit) throw new Error(`The device chosen for '${disk.id}' is too small`);
    return partitions.map((partition, index) => ({
      step: `create the partition '${partition.id}'`,
      words: ["partitions", "create", node, String(device.id), `size=${sizes.bytes[index]}`],
      creates: { partition, device: device.id },
    }));
  };
  const formatStep = ({ id, volume, fstype, label }: Format): StorageStep => {
    const [kind, ...where] = place(volume);
    const options = [`fstype=${fstype}`, ...(label === undefined ? [] : [`label=${label}`])];
    return { step: `make the file system '${id}'`, words: [kind, "format", ...where, ...options] };
  };
  const mountStep = ({ id, format, path, options }: Mount): StorageStep => {
    const [kind, ...where] = place(format.volume);
    const words = [`mount_point=${path}`, ...(options ? [`mount_options=${options}`] : [])];
    return { step: `mount '${id}' at ${path}`, words: [kind, "mount", ...where, ...words] };
  };
  return [
    ...layout.disks.flatMap(diskSteps),
    ...layout.disks.flatMap(partitionSteps),
    ...layout.formats.map(formatStep),
    ...layout.mounts.map(mountStep),
  ];
}

/** The disk that says so; else the one with the boot partition, the EFI one first; else the root's. */
function bootDisk({ disks, mounts }: StorageLayout): Disk | undefined {
  const explicit = disks.find(({ boot }) => boot);
  if (explicit !== undefined) return explicit;
  const mount = mounts.find(({ path }) => /^\/boot\/efi\/*$/.test(path)) ??
    mounts.find(({ path }) => /^\/boot(?:\/|$)/.test(path)) ??
    mounts.find(({ path }) => path === "/");
  const volume = mount?.format.volume;
  return volume?.type === "partition" ? volume.disk : volume;
}
