import { MaasStorageError } from "../../support/errors.ts";
import type { BlockDevice } from "./devices.ts";
import type { Disk, Layout, NamedDisk } from "./layout.ts";
import { type PartitionSizes, partitionSizes } from "./partition_sizes.ts";

/**
 * Chooses one of the machine's disks for each disk of the layout. Those that are named get what
 * they name. Of all choices for the others in which everything fits, it is the one that gives the
 * first disk (by its index, then by its place in the list) the lowest id, then the second, and so
 * on.
 *
 * @throws MaasStorageError when there is no such choice.
 */
export function assignDevices(
  layout: Layout,
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
  return `The machine has not disks enough for ${disks.map(({ id }) => `'${id}'`).join(", ")}: ` +
    `free are ${devices.map(({ id, size }) => `${id} (${size} bytes)`).join(", ") || "none"}`;
}
