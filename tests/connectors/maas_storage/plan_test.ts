/** The storage planner: a function, so no MAAS is needed. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { assignDevices, partitionSizes } from "../../../connectors/maas2/storage/assign.ts";
import { type BlockDevice, blockDevicesSchema } from "../../../connectors/maas2/storage/devices.ts";
import {
  parseLayout,
  type Partition,
  type StorageLayout,
} from "../../../connectors/maas2/storage/layout.ts";
import { planStorage, type StorageStep } from "../../../connectors/maas2/storage/plan.ts";
import { MaasStorageError } from "../../../connectors/support/errors.ts";

const GB = 1e9;
const MIB = 2 ** 20;

/** Sizes that must fit. */
function sizesOn(deviceBytes: number, partitions: readonly Partition[]): readonly number[] {
  const sizes = partitionSizes(partitions, deviceBytes);
  if (!sizes.fit) throw new Error(sizes.why);
  return sizes.bytes;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((a, b) => a + b, 0);
}

Deno.test("100 percent fit, also beside partitions of a fixed size", () => {
  const layout = parseLayout([
    { type: "disk", id: "d" },
    { type: "partition", id: "efi", device: "d", size: "500M" },
    { type: "partition", id: "a", device: "d", alloc_pct: "25" },
    { type: "partition", id: "b", device: "d", alloc_pct: 75, size: "10G" },
  ], "disks");
  const sizes = sizesOn(100 * GB, layout.partitions);
  assertEquals(sizes[0], 5e8);
  const total = sum(sizes);
  assert(total <= 100 * GB - 5 * MIB && total > 100 * GB - 20 * MIB);
  assertThrows(() => sizesOn(10 * GB, layout.partitions), Error, "'b' would have");
});

Deno.test("swap space is mounted at none", () => {
  parseLayout([
    { type: "disk", id: "d" },
    { type: "format", id: "f", volume: "d", fstype: "swap" },
    { type: "mount", id: "m", device: "f", path: "none" },
  ], "disks");
});

const entryArbitrary = fc.record({
  type: fc.constantFrom("disk", "partition", "format", "mount", "lvm", 1),
  id: fc.constantFrom("a", "b", "c", 1, "1", null),
  disk: fc.constantFrom(0, 1, "sda", { name: "sda" }, {}, -1),
  device: fc.constantFrom("a", "b", "c", 1, []),
  volume: fc.constantFrom("a", "b", "c", 1),
  number: fc.constantFrom(1, 2, null, "x"),
  size: fc.constantFrom("1G", "10M", "x", 5_000_000, null, -1),
  alloc_pct: fc.constantFrom(10, 50, 100, 101, 1.5, null),
  fstype: fc.constantFrom("ext4", "swap", ""),
  path: fc.constantFrom("/", "/boot", "none", "x"),
  boot: fc.constantFrom(true, false, null, "yes"),
}, { requiredKeys: ["type"] });

Deno.test("whatever stands in a list, it is a layout or a MaasStorageError, soon", () => {
  const anything = fc.oneof({ weight: 5, arbitrary: entryArbitrary }, fc.jsonValue());
  fc.assert(fc.property(fc.array(anything, { maxLength: 8 }), (entries) => {
    try {
      const layout = parseLayout(entries, "disks");
      planStorage(layout, { node: "n", devices: devicesOf([10, 20]), volumeGroups: [] });
    } catch (error) {
      assert(error instanceof MaasStorageError, String(error));
    }
  }));
});

function devicesOf(gigabytes: readonly number[]): BlockDevice[] {
  return blockDevicesSchema.parse(
    gigabytes.map((size, index) => ({ id: index + 1, type: "physical", size: size * GB })),
  );
}

/** Layouts without mistakes: disks, some partitioned, some formatted, some of that mounted. */
const layoutArbitrary = fc.array(
  fc.record({
    index: fc.option(fc.nat(3), { nil: undefined }),
    partitions: fc.array(
      fc.record({
        size: fc.integer({ min: 4, max: 12_000 }),
        percent: fc.option(fc.integer({ min: 1, max: 33 }), { nil: undefined }),
        number: fc.option(fc.nat(4), { nil: undefined }),
        formatted: fc.boolean(),
        mounted: fc.boolean(),
      }),
      { maxLength: 3 },
    ),
    formatted: fc.boolean(),
  }),
  { minLength: 1, maxLength: 4 },
).map((disks) =>
  disks.flatMap(({ index, partitions, formatted }, d) => [
    { type: "disk", id: `d${d}`, disk: index, name: `disk-${d}` },
    ...(formatted && partitions.length === 0
      ? [{ type: "format", id: `df${d}`, volume: `d${d}`, fstype: "xfs" }]
      : []),
    ...partitions.flatMap(({ size, percent, number, formatted, mounted }, p) => [
      {
        type: "partition",
        id: `d${d}p${p}`,
        device: `d${d}`,
        number,
        size: `${size}MiB`,
        alloc_pct: percent,
      },
      ...(formatted
        ? [{ type: "format", id: `f${d}.${p}`, volume: `d${d}p${p}`, fstype: "ext4" }]
        : []),
      ...(formatted && mounted
        ? [{ type: "mount", id: `m${d}.${p}`, device: `f${d}.${p}`, path: `/mnt/${d}/${p}` }]
        : []),
    ]),
  ])
);

const deviceArbitrary = fc.uniqueArray(
  fc.record({
    id: fc.integer({ min: 1, max: 9 }),
    type: fc.constantFrom("physical", "physical", "physical", "virtual"),
    size: fc.constantFrom(1, 5, 20, 50, 100).map((gigabytes) => gigabytes * GB),
    filesystem: fc.constantFrom(null, { fstype: "ext4" }, { fstype: "ext4", mount_point: "/" }),
    partitions: fc.uniqueArray(fc.integer({ min: 1, max: 50 }), { maxLength: 2 })
      .map((ids) => ids.map((id) => ({ id }))),
  }),
  { selector: ({ id }) => id, minLength: 1, maxLength: 5 },
).map((devices) => blockDevicesSchema.parse(devices));

/** Of all ways to give each disk a device of its own on which it fits, the first; slowly. */
function firstChoice(layout: StorageLayout, devices: readonly BlockDevice[]): number[] | undefined {
  const rank = ({ selector }: StorageLayout["disks"][number]) =>
    selector?.by === "index" ? selector.index : Number.MAX_SAFE_INTEGER;
  const disks = [...layout.disks].sort((a, b) => rank(a) - rank(b));
  const candidates = devices.filter(({ type }) => type === "physical").sort((a, b) => a.id - b.id);
  const search = (at: number, taken: readonly BlockDevice[]): number[] | undefined => {
    const disk = disks[at];
    if (disk === undefined) return taken.map(({ id }) => id);
    const partitions = layout.partitions.filter((partition) => partition.disk === disk);
    for (const device of candidates) {
      if (taken.includes(device) || !partitionSizes(partitions, device.size).fit) continue;
      const found = search(at + 1, [...taken, device]);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  const found = search(0, []);
  // In the order of the list again.
  return found && layout.disks.map((disk) => found[disks.indexOf(disk)] ?? NaN);
}

Deno.test("the choice of disks is the first possible one, and is missed only where there is none", () => {
  fc.assert(fc.property(layoutArbitrary, deviceArbitrary, (entries, devices) => {
    const layout = parseLayout(entries, "disks");
    const expected = firstChoice(layout, devices);
    if (expected === undefined) {
      assertThrows(() => assignDevices(layout, devices), MaasStorageError);
    } else {
      const chosen = assignDevices(layout, devices);
      assertEquals(layout.disks.map((disk) => chosen.get(disk)?.id), expected);
    }
  }));
});

/** What MAAS has of a volume. */
interface Volume {
  free: number;
  fstype: string | undefined;
  path: string | undefined;
}

/** A MAAS that refuses what the real one refuses. */
class StrictMaas {
  readonly volumes = new Map<string, Volume>();
  #next = 1000;

  constructor(devices: readonly BlockDevice[]) {
    for (const { id, size, filesystem, partitions } of devices) {
      this.volumes.set(String(id), {
        free: size - 5 * MIB,
        fstype: filesystem?.fstype ?? undefined,
        path: filesystem?.mount_point ?? undefined,
      });
      for (const partition of partitions ?? []) {
        this.volumes.set(`${id}/${partition.id}`, { free: 0, fstype: "old", path: undefined });
      }
    }
  }

  /** @returns the id of a new partition. */
  run(words: readonly string[]): number {
    const [kind = "", action = "", node, device = "", ...rest] = words;
    assertEquals(node, "n");
    const partition = kind === "partition" ? rest.shift() : undefined;
    const key = partition === undefined ? device : `${device}/${partition}`;
    const option = (name: string) =>
      rest.find((word) => word.startsWith(`${name}=`))?.slice(name.length + 1);
    const volume = this.volumes.get(key);
    if (volume === undefined) throw new Error(`There is no ${key}: ${words.join(" ")}`);
    switch (action) {
      case "delete":
        for (const other of this.volumes.keys()) {
          if (other === key || other.startsWith(`${key}/`)) this.volumes.delete(other);
        }
        break;
      case "unmount":
        assert(volume.path !== undefined);
        volume.path = undefined;
        break;
      case "unformat":
        assert(volume.fstype !== undefined && volume.path === undefined);
        volume.fstype = undefined;
        break;
      case "create": {
        const size = Math.floor(Number(option("size")) / (4 * MIB)) * 4 * MIB;
        assert(size > 0 && size <= volume.free, `no room for ${size} on ${key}`);
        assert(volume.fstype === undefined);
        volume.free -= size;
        this.volumes.set(`${key}/${++this.#next}`, { free: 0, fstype: undefined, path: undefined });
        break;
      }
      case "format":
        assert(volume.fstype === undefined);
        volume.fstype = option("fstype");
        break;
      case "mount":
        assert(volume.fstype !== undefined && volume.path === undefined);
        volume.path = option("mount_point");
        break;
      case "update":
      case "set-boot-disk":
        break;
      default:
        throw new Error(`MAAS knows no ${words.join(" ")}`);
    }
    return this.#next;
  }
}

Deno.test("MAAS takes every plan, and has all that the layout asks for at its end", () => {
  fc.assert(
    fc.property(layoutArbitrary, deviceArbitrary, (entries, devices) => {
      const layout = parseLayout(entries, "disks");
      fc.pre(firstChoice(layout, devices) !== undefined);
      const plan = planStorage(layout, { node: "n", devices, volumeGroups: [] });
      const maas = new StrictMaas(devices);
      const ids = new Map<unknown, string>();
      const run = ({ words, creates }: StorageStep) => {
        const id = maas.run(
          words.map((word) =>
            typeof word === "string" ? word : ids.get(word.partition) ?? "not created yet"
          ),
        );
        if (creates) ids.set(creates.partition, String(id));
      };
      plan.clear.forEach(run);
      const left = [...maas.volumes];
      assertEquals(left.length, devices.filter(({ type }) => type === "physical").length);
      assert(left.every(([key, { fstype }]) => !key.includes("/") && fstype === undefined));
      plan.apply.forEach(run);
      const volumes = [...maas.volumes];
      assertEquals(
        volumes.filter(([key]) => key.includes("/")).length,
        layout.partitions.length,
      );
      const count = (test: (volume: Volume) => boolean) =>
        volumes.filter(([_, volume]) => test(volume)).length;
      assertEquals(count(({ fstype }) => fstype !== undefined), layout.formats.length);
      assertEquals(count(({ path }) => path !== undefined), layout.mounts.length);
    }),
  );
});

Deno.test("a larger disk never fits worse", () => {
  const size = fc.integer({ min: 1, max: 200_000 }).map((mebibytes) => mebibytes * MIB);
  fc.assert(fc.property(layoutArbitrary, size, size, (entries, a, b) => {
    const { disks, partitions } = parseLayout(entries, "disks");
    const own = partitions.filter(({ disk }) => disk === disks[0]);
    if (partitionSizes(own, Math.min(a, b)).fit) assert(partitionSizes(own, Math.max(a, b)).fit);
  }));
});

Deno.test("percentages that add up to 100 fit on every disk with room for a partition each", () => {
  const percents = fc.array(fc.integer({ min: 1, max: 99 }), { maxLength: 5 })
    .map((some) =>
      some.filter((_, index) => some.slice(0, index + 1).reduce((a, b) => a + b) < 100)
    )
    .map((some) => [...some, 100 - some.reduce((a, b) => a + b, 0)]);
  const size = fc.integer({ min: 1000, max: 20_000_000 }).map((mebibytes) => mebibytes * MIB + 1);
  fc.assert(fc.property(percents, size, (percents, deviceBytes) => {
    const { partitions } = parseLayout([
      { type: "disk", id: "d" },
      ...percents.map((alloc_pct, n) => ({ type: "partition", id: n, device: "d", alloc_pct })),
    ], "disks");
    const sizes = sizesOn(deviceBytes, partitions);
    const total = sum(sizes);
    assert(total <= deviceBytes - 5 * MIB);
    assert(total >= deviceBytes - (8 + 4 * (percents.length + 1)) * MIB);
    assert(sizes.every((bytes) => bytes % (4 * MIB) === 0));
  }));
});
