/** Disk images with the partition tables and file systems that each kind of image has. For root. */
import { join } from "node:path";
import { output } from "../../support/sshd.ts";
import { unmount } from "../../support/unmount.ts";

const MIB = 1024 * 1024;

/** Tools that the images are made with, and looked into. */
export const REAL_IMAGE_TOOLS = ["mkfs.ext4", "mkfs.vfat", "fsck.vfat", "e2fsck", "sfdisk"];

/** A file system of the image; the next one begins where it ends. */
export interface RealPartition {
  readonly label: string;
  readonly type: "ext4" | "vfat";
  readonly mib: number;
  /** Files in it: content, a link's target after `->`, or null for a folder. */
  readonly files?: Readonly<Record<string, string | null>>;
}

/** What there is to know of an image. */
export interface RealImage {
  readonly table: "gpt" | "dos";
  readonly partitions: readonly RealPartition[];
}

/** Whether this host's kernel mounts vfat. Not every one that mounts ext4 does. */
export async function vfatMountsWork(): Promise<boolean> {
  const folder = await Deno.makeTempDir({ prefix: "vfat-" });
  const file = join(folder, "image");
  try {
    await Deno.writeFile(file, new Uint8Array(4 * MIB));
    await output(["mkfs.vfat", file]);
    await mounted(file, [], () => Promise.resolve());
    return true;
  } catch {
    return false;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The same with ext4 throughout. */
export function withoutVfat({ table, partitions }: RealImage): RealImage {
  return { table, partitions: partitions.map((partition) => ({ ...partition, type: "ext4" })) };
}

/** Makes the image, in `folder`. */
export async function realImage(folder: string, image: RealImage): Promise<string> {
  const disk = join(folder, "image.img");
  const total = image.partitions.reduce((sum, { mib }) => sum + mib, 2);
  await Deno.writeFile(disk, new Uint8Array());
  await Deno.truncate(disk, total * MIB);
  const lines = image.partitions.map(({ mib, type }, index) => {
    const kind = image.table === "gpt" ? "L" : type === "vfat" ? "c" : "83";
    return `start=${startOf(image, index)}MiB, size=${mib}MiB, type=${kind}\n`;
  });
  const table = join(folder, "table");
  await Deno.writeTextFile(table, `label: ${image.table}\n${lines.join("")}`);
  await output(["sh", "-c", 'sfdisk -q "$1" < "$2"', "sh", disk, table]);
  for (const [index, { label, type, mib, files = {} }] of image.partitions.entries()) {
    const part = join(folder, `part-${index}`);
    await Deno.writeFile(part, new Uint8Array());
    await Deno.truncate(part, mib * MIB);
    await (type === "vfat"
      ? output(["mkfs.vfat", "-n", label, part])
      : output(["mkfs.ext4", "-q", "-F", "-L", label, part]));
    await mounted(part, [], async (root) => {
      for (const [path, content] of Object.entries(files)) {
        const file = join(root, path);
        await Deno.mkdir(content === null ? file : join(file, ".."), { recursive: true });
        if (content?.startsWith("->")) await Deno.symlink(content.slice(2), file);
        else if (content !== null) await Deno.writeTextFile(file, content);
      }
    });
    await output([
      "dd",
      `if=${part}`,
      `of=${disk}`,
      "bs=1M",
      `seek=${startOf(image, index)}`,
      "conv=notrunc",
    ]);
    await Deno.remove(part);
  }
  return disk;
}

/**
 * Looks into a file system of what was made of the image. It must be whole: what damage there is is
 * an error, but for what is still in a journal.
 */
export async function lookInto(
  disk: string,
  image: RealImage,
  { label, look }: { readonly label: string; readonly look: (root: string) => Promise<void> },
): Promise<void> {
  const index = image.partitions.findIndex((partition) => partition.label === label);
  const partition = image.partitions[index];
  if (partition === undefined) throw new Error(`The image has no partition '${label}'`);
  const part = `${disk}.part`;
  await output([
    "dd",
    `if=${disk}`,
    `of=${part}`,
    "bs=1M",
    `skip=${startOf(image, index)}`,
    `count=${partition.mib}`,
  ]);
  const check = partition.type === "vfat"
    ? 'fsck.vfat -n "$1"'
    : 'e2fsck -f -p "$1" || test $? -eq 1';
  await output(["sh", "-c", check, "sh", part]);
  await mounted(part, ["ro"], look);
  await Deno.remove(part);
}

/** MiB from the start of the disk. */
function startOf({ partitions }: RealImage, index: number): number {
  return partitions.slice(0, index).reduce((sum, { mib }) => sum + mib, 1);
}

async function mounted(
  file: string,
  options: readonly string[],
  action: (root: string) => Promise<void>,
): Promise<void> {
  const root = `${file}.mnt`;
  await Deno.mkdir(root);
  await output(["mount", "-o", ["loop", ...options].join(","), file, root]);
  try {
    await action(root);
    // Unmounting writes nothing where somebody else has the mount in a namespace of his own.
    await output(["sync", "-f", root]);
  } finally {
    await unmount(root);
  }
  await Deno.remove(root);
}
