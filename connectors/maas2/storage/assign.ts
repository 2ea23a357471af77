import { MaasStorageError } from "../../support/errors.ts";
import type { BlockDevice } from "./devices.ts";
import type { Disk, NamedDisk, Partition, StorageLayout } from "./layout.ts";

/**
 * Chooses one of the machine's disks for each disk of the layout. Those that are named get what
 * they name. Of all choices for the others in which everything fits, it is the one that gives the
 * first disk (by its index, then by its place in the list) the lowest id, then the second, and so
 * on.
 *
 * @throws MaasStorageError when there is no such choice.
 */
export function assignDevices(
  layout: StorageLayout,
  devices: readonly BlockDevice[],
): ReadonlyMap<Disk, BlockDevice> {
  const fitOn = (disk: Disk, device: BlockDevice): PartitionSizes =>
    partitionSizes(layout.partitions.filter((partition) => partition.disk === disk), device.size);
  const free = devices.filter(({ type }) => type === "physical").sort((a, b) => a.id - b.id);
  const chosen = new Map<Disk, BlockDevice>();
  const take = (disk: Disk, device: BlockDevice) => {
    chosen.set(disk, device);
    free.splice(free.indexOf(device), 1);
  };

  const others: Disk[] = [];
  for (const disk of inOrder(layout.disks)) {
    const { selector } = disk;
    if (selector === undefined || selector.by === "index") {
      others.push(disk);
      continue;
    }
    const device = free.find((device) => isNamed(device, selector));
    if (device === undefined) {
      throw new MaasStorageError(
        `The machine has no disk for '${disk.id}': none that is free has the ${selector.by} ` +
          `'${selector.value}'`,
      );
    }
    const fit = fitOn(disk, device);
    if (!fit.fit) {
      throw new MaasStorageError(`'${disk.id}' does not fit on disk ${device.id}: ${fit.why}`);
    }
    take(disk, device);
  }

  /** The size of the smallest disk that is large enough. A larger one always is, too. */
  const needs = new Map(others.map((disk) => {
    const sizes = free.filter((device) => fitOn(disk, device).fit).map(({ size }) => size);
    return [disk, Math.min(...sizes)] as const;
  }));
  const fitTogether = (disks: readonly Disk[], devices: readonly BlockDevice[]) => {
    const needed = disks.map((disk) => needs.get(disk) ?? Infinity).sort((a, b) => b - a);
    const sizes = devices.map(({ size }) => size).sort((a, b) => b - a);
    return needed.every((size, index) => size <= (sizes[index] ?? -1));
  };
  for (const [index, disk] of others.entries()) {
    const rest = others.slice(index + 1);
    const device = free.find((device) =>
      fitOn(disk, device).fit && fitTogether(rest, free.filter((other) => other !== device))
    );
    if (device === undefined) throw new MaasStorageError(noChoiceText(others, free, fitOn));
    take(disk, device);
  }
  return chosen;
}

/** Disks with an index first, by their index; the others as they come. */
function inOrder(disks: readonly Disk[]): Disk[] {
  const indexOf = ({ selector }: Disk) => selector?.by === "index" ? selector.index : Infinity;
  return [...disks].sort((a, b) => compare(indexOf(a), indexOf(b)));
}

function compare(a: number, b: number): number {
  return a === b ? 0 : a < b ? -1 : 1;
}

function isNamed({ name, serial }: BlockDevice, { by, value }: NamedDisk): boolean {
  return (by !== "serial" && name === value) || (by !== "name" && serial === value);
}

function noChoiceText(
  disks: readonly Disk[],
  devices: readonly BlockDevice[],
  fitOn: (disk: Disk, device: BlockDevice) => PartitionSizes,
): string {
  const largest = devices.reduce<BlockDevice | undefined>(
    (best, device) => best === undefined || device.size > best.size ? device : best,
    undefined,
  );
  for (const disk of disks) {
    const fit = largest && fitOn(disk, largest);
    if (largest && fit?.fit === false) {
      return `'${disk.id}' fits on no disk of the machine: on the largest one that is free ` +
        `(${largest.id}, ${largest.size} bytes) ${fit.why}`;
    }
  }
  return `The machine does not have enough disks for ${
    disks.map(({ id }) => `'${id}'`).join(", ")
  }: ` +
    `free are ${devices.map(({ id, size }) => `${id} (${size} bytes)`).join(", ") || "none"}`;
}

/** MAAS lets partitions begin and end at multiples of this. */
const ALIGNMENT_BYTES = 4 * 1024 * 1024;

/** Both ends of a disk belong to the partition table. */
const TABLE_BYTES = 8 * 1024 * 1024;

/** Bytes of each partition, or why they do not fit. */
type PartitionSizes =
  | { readonly fit: true; readonly bytes: readonly number[] }
  | { readonly fit: false; readonly why: string };

/**
 * How large the partitions of one disk become on a device of `deviceBytes`. A larger device never
 * fits worse.
 *
 * A percentage is one of the whole device; but percentages that add up to 100 share what the
 * partitions of a fixed size leave.
 */
export function partitionSizes(
  partitions: readonly Partition[],
  deviceBytes: number,
): PartitionSizes {
  const usable = partitions.length === 0 ? deviceBytes : deviceBytes - TABLE_BYTES;
  const fixed = sum(partitions.map(({ size, percent }) => percent === undefined ? size ?? 0 : 0));
  const percent = sum(partitions.map(({ percent }) => percent ?? 0));
  const shared = percent === 100 ? usable - fixed : usable;
  const bytes: number[] = [];
  for (const partition of partitions) {
    if (partition.percent === undefined) {
      bytes.push(partition.size ?? 0);
      continue;
    }
    const part = Math.floor(shared / 100 * partition.percent / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
    const least = partition.size ?? ALIGNMENT_BYTES;
    if (part < least) {
      return {
        fit: false,
        why: `'${partition.id}' would have ${Math.max(0, part)} bytes, and needs ${least}`,
      };
    }
    bytes.push(part);
  }
  const total = sum(bytes);
  return total <= usable ? { fit: true, bytes } : {
    fit: false,
    why: `the partitions need ${total} bytes, and ${Math.max(0, usable)} can be had`,
  };
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
