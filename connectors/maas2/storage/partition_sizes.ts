import type { Partition } from "./layout.ts";

/** MAAS lets partitions begin and end at multiples of this. */
const ALIGNMENT_BYTES = 4 * 1024 * 1024;

/** Both ends of a disk belong to the partition table. */
const TABLE_BYTES = 8 * 1024 * 1024;

/** Bytes of each partition, or why they do not fit. */
export type PartitionSizes =
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
