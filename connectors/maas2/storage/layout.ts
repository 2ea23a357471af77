/** Storage layouts as jobs and configurations write them: a flat list of entries. */
import * as z from "zod";
import { wholeNumber } from "../../support/config.ts";
import { MaasStorageError } from "../../support/errors.ts";
import { issuesText } from "../../support/job.ts";

/** One of the machine's disks. */
export interface NamedDisk {
  readonly by: "name" | "serial" | "name or serial";
  readonly value: string;
}

/** Which of the machine's disks is meant: that one, or only an order among the layout's disks. */
type DiskSelector = NamedDisk | { readonly by: "index"; readonly index: number };

/** A disk of the layout, for which one of the machine's is chosen. */
export interface Disk {
  readonly type: "disk";
  readonly id: string;
  readonly selector: DiskSelector | undefined;
  /** The machine is to boot from it. */
  readonly boot: boolean;
  /** A new name for the machine's disk. */
  readonly name: string | undefined;
}

/** A partition of a disk. */
export interface Partition {
  readonly type: "partition";
  readonly id: string;
  readonly disk: Disk;
  /** Its place among the disk's partitions; those without come last, in the order of the list. */
  readonly number: number;
  /** Bytes: the size, or with `percent` the least one. */
  readonly size: number | undefined;
  /** Of the disk. */
  readonly percent: number | undefined;
}

/** A file system on a partition, or on a whole disk. */
export interface Format {
  readonly type: "format";
  readonly id: string;
  readonly volume: Disk | Partition;
  readonly fstype: string;
  readonly label: string | undefined;
}

/** A place for a file system. */
export interface Mount {
  readonly type: "mount";
  readonly id: string;
  readonly format: Format;
  readonly path: string;
  readonly options: string | undefined;
}

/** A layout without mistakes but for its not fitting on a machine; each kind in the list's order. */
export interface StorageLayout {
  readonly disks: readonly Disk[];
  readonly partitions: readonly Partition[];
  readonly formats: readonly Format[];
  readonly mounts: readonly Mount[];
}

const id = z.union([z.string().min(1), z.number()], { error: "must be text or a number" })
  .transform(String);

const text = z.string({ error: "must be text" }).min(1, "must not be empty");

const size = z.union([z.string(), z.number()], { error: "must be text or a number" })
  .transform((value, context) => {
    const bytes = parseDiskSize(value);
    if (bytes !== undefined) return bytes;
    context.addIssue({
      code: "custom",
      message: `'${value}' is no size: expected bytes, or a number with K, M, G, T (decimal) or ` +
        `KiB, MiB, GiB, TiB (binary)`,
    });
    return z.NEVER;
  });

const selector = z.union([
  z.int().min(0),
  text,
  z.strictObject({ name: text }),
  z.strictObject({ serial: text }),
], { error: "must be a number, a name, {name: NAME} or {serial: SERIAL}" })
  .transform((value): DiskSelector => {
    if (typeof value === "number") return { by: "index", index: value };
    if (typeof value === "string") {
      return /^\d+$/.test(value)
        ? { by: "index", index: Number(value) }
        : { by: "name or serial", value };
    }
    return "name" in value
      ? { by: "name", value: value.name }
      : { by: "serial", value: value.serial };
  });

/** `ptable` and other keys are taken as they are: MAAS chooses the kind of partition table. */
const ENTRIES = {
  disk: z.looseObject({
    id,
    disk: selector.nullish(),
    boot: z.boolean({ error: "must be true or false" }).nullish(),
    name: text.nullish(),
  }),
  partition: z.looseObject({
    id,
    device: id,
    number: z.union([z.number(), z.string().regex(/^\d+$/)], { error: "must be a number" })
      .transform(Number).nullish(),
    size: size.nullish(),
    alloc_pct: wholeNumber.pipe(z.int().min(1, "must be 1 to 100").max(100, "must be 1 to 100"))
      .nullish(),
  }).refine((entry) => (entry.size ?? entry.alloc_pct ?? null) !== null, {
    error: "'size' or 'alloc_pct' is needed",
  }),
  format: z.looseObject({ id, volume: id, fstype: text, label: z.string().nullish() }),
  mount: z.looseObject({ id, device: id, path: text, options: text.nullish() }),
};

const head = z.looseObject({
  type: z.enum(["disk", "partition", "format", "mount"], {
    error: "must be disk, partition, format or mount",
  }),
});

type Entry = Disk | Partition | Format | Mount;

/** Swap space has no place in the tree; this is what MAAS calls that. */
const NO_PATH = "none";

/**
 * Reads a layout.
 *
 * @param key what to call the list in messages: "disks".
 * @throws MaasStorageError naming every mistake and the entry that has it.
 */
export function parseLayout(entries: readonly unknown[], key: string): StorageLayout {
  const reader = new LayoutReader(entries, key);
  const layout = reader.read();
  if (reader.mistakes.length === 0) return layout;
  throw new MaasStorageError(`The storage layout is wrong: ${reader.mistakes.join("; ")}`);
}

class LayoutReader {
  readonly mistakes: string[] = [];
  readonly #entries: readonly unknown[];
  readonly #key: string;
  /** What has been read without mistakes, by id. */
  readonly #known = new Map<string, Entry>();
  /** The types of all entries, those with mistakes included, by id. */
  readonly #types = new Map<string, Entry["type"]>();

  constructor(entries: readonly unknown[], key: string) {
    this.#entries = entries;
    this.#key = key;
  }

  read(): StorageLayout {
    if (this.#entries.length === 0) {
      this.mistakes.push(`'${this.#key}' is an empty list: the machine would have no storage`);
    }
    this.#readTypes();
    // Referring entries come after what they refer to, wherever they stand in the list.
    const disks = this.#each("disk", (entry) => ({
      type: "disk",
      id: entry.id,
      selector: entry.disk ?? undefined,
      boot: entry.boot ?? false,
      name: entry.name ?? undefined,
    }));
    const partitions = this.#each("partition", (entry) => {
      const disk = this.#referred(entry.id, { key: "device", to: entry.device, types: ["disk"] });
      return disk?.type !== "disk" ? undefined : {
        type: "partition",
        id: entry.id,
        disk,
        number: entry.number ?? Infinity,
        size: entry.size ?? undefined,
        percent: entry.alloc_pct ?? undefined,
      };
    });
    const formats = this.#each("format", (entry) => {
      const types = ["disk", "partition"] as const;
      const volume = this.#referred(entry.id, { key: "volume", to: entry.volume, types });
      return volume?.type !== "disk" && volume?.type !== "partition" ? undefined : {
        type: "format",
        id: entry.id,
        volume,
        fstype: entry.fstype,
        label: entry.label || undefined,
      };
    });
    const mounts = this.#each("mount", (entry) => {
      const format = this.#referred(entry.id, {
        key: "device",
        to: entry.device,
        types: ["format"],
      });
      return format?.type !== "format" ? undefined : {
        type: "mount",
        id: entry.id,
        format,
        path: entry.path,
        options: entry.options ?? undefined,
      };
    });
    const layout = { disks, partitions, formats, mounts };
    this.#checkTogether(layout);
    return layout;
  }

  #readTypes(): void {
    for (const [index, entry] of this.#entries.entries()) {
      const read = head.safeParse(entry);
      if (!read.success) {
        this.mistakes.push(`${this.#key}[${index}]: ${issuesText(read.error)}`);
        continue;
      }
      const named = id.safeParse(read.data["id"]);
      if (!named.success) continue;
      if (this.#types.has(named.data)) {
        this.mistakes.push(`${this.#key}[${index}]: the id '${named.data}' is there twice`);
      }
      this.#types.set(named.data, read.data.type);
    }
  }

  /** Reads all entries of a type; `build` returns undefined where it has noted a mistake. */
  #each<Type extends Entry["type"]>(
    type: Type,
    build: (entry: z.output<typeof ENTRIES[Type]>) => (Entry & { type: Type }) | undefined,
  ): (Entry & { type: Type })[] {
    const built: (Entry & { type: Type })[] = [];
    for (const [index, entry] of this.#entries.entries()) {
      const read = head.safeParse(entry);
      if (!read.success || read.data.type !== type) continue;
      const parsed = ENTRIES[type].safeParse(entry);
      if (!parsed.success) {
        this.mistakes.push(`${this.#key}[${index}] (${type}): ${issuesText(parsed.error)}`);
        continue;
      }
      // It has just been parsed by the schema of this very type.
      const result = build(parsed.data as z.output<typeof ENTRIES[Type]>);
      if (result === undefined) continue;
      this.#known.set(result.id, result);
      built.push(result);
    }
    return built;
  }

  #referred(
    from: string,
    { key, to, types }: {
      readonly key: string;
      readonly to: string;
      readonly types: readonly Entry["type"][];
    },
  ): Entry | undefined {
    const type = this.#types.get(to);
    if (type === undefined) {
      this.mistakes.push(`'${from}': there is no entry '${to}', which its '${key}' names`);
    } else if (!types.includes(type)) {
      this.mistakes.push(
        `'${from}': its '${key}' must name a ${types.join(" or ")}, and '${to}' is a ${type}`,
      );
    }
    // An entry with mistakes of its own has been reported.
    return this.#known.get(to);
  }

  #checkTogether({ disks, partitions, formats, mounts }: StorageLayout): void {
    if (disks.filter(({ boot }) => boot).length > 1) {
      this.mistakes.push("only one disk can have 'boot'");
    }
    for (const disk of disks) {
      const percent = partitions.filter((partition) => partition.disk === disk)
        .reduce((sum, partition) => sum + (partition.percent ?? 0), 0);
      if (percent > 100) this.mistakes.push(`'${disk.id}': alloc_pct adds up to ${percent}`);
    }
    for (const format of formats) {
      const { volume } = format;
      if (partitions.some(({ disk }) => disk === volume)) {
        this.mistakes.push(`'${format.id}': the disk '${volume.id}' also has partitions`);
      }
    }
    this.#checkUnique(formats, "the volume", ({ volume }) => volume.id);
    this.#checkUnique(mounts, "the file system", ({ format }) => format.id);
    const placed = mounts.filter(({ path, format }) =>
      path !== NO_PATH || format.fstype !== "swap"
    );
    this.#checkUnique(placed, "the path", ({ path }) => path.replace(/(?<=.)\/+$/, ""));
    for (const { id, path } of placed) {
      if (!path.startsWith("/")) this.mistakes.push(`'${id}': '${path}' is no absolute path`);
    }
  }

  #checkUnique<E extends Entry>(entries: readonly E[], what: string, key: (entry: E) => string) {
    const seen = new Map<string, string>();
    for (const entry of entries) {
      const other = seen.get(key(entry));
      if (other !== undefined) {
        this.mistakes.push(`'${entry.id}': ${what} '${key(entry)}' is taken by '${other}'`);
      }
      seen.set(key(entry), entry.id);
    }
  }
}

const DECIMAL: Readonly<Record<string, number>> = { "": 1, B: 1, K: 1e3, M: 1e6, G: 1e9, T: 1e12 };
const BINARY: Readonly<Record<string, number>> = {
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
};

const SIZE = /^(\d+(?:\.\d+)?)\s*([KMGT]?iB|[BKMGT]?)$/i;

/**
 * Bytes of a size as layouts have it: a number, or text such as `500M` (decimal) or `1.5GiB`.
 *
 * @returns undefined when it is no size, or none that can be counted exactly.
 */
export function parseDiskSize(size: string | number): number | undefined {
  const [, count, unit] = SIZE.exec(String(size).trim()) ?? [];
  if (count === undefined || unit === undefined) return undefined;
  const factor = DECIMAL[unit.toUpperCase()] ?? BINARY[unit.toUpperCase()];
  if (factor === undefined) return undefined;
  const bytes = Math.round(Number(count) * factor);
  return bytes > 0 && Number.isSafeInteger(bytes) ? bytes : undefined;
}
