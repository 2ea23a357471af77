/** Images of disks with real file systems, made without any privilege. */
import { join } from "node:path";
import { output } from "./sshd.ts";

const MIB = 1024 * 1024;

/** Tools that the images are made with. */
export const IMAGE_TOOLS = ["mkfs.ext4", "mkfs.vfat", "sfdisk", "xz", "debugfs", "e2fsck"];

/** Where `diskImage` puts the file system `writable`, in bytes from the start. */
export const WRITABLE_OFFSET = 17 * MIB;

/**
 * Makes the image of a disk of 64 MiB with two partitions: `system-boot` (vfat) and `writable`
 * (ext4), which has what a plain Ubuntu image is known by.
 */
export async function diskImage(folder: string): Promise<string> {
  const disk = join(folder, "disk.img");
  const boot = join(folder, "boot.img");
  const writable = await fileSystemImage(folder, 64 * MIB - WRITABLE_OFFSET);
  await sized(boot, 16 * MIB);
  await output(["mkfs.vfat", "-n", "system-boot", boot]);
  await sized(disk, 64 * MIB);
  const table = join(folder, "table");
  await Deno.writeTextFile(table, "label: dos\n1MiB,16MiB,c\n17MiB,,L\n");
  await output([
    "sh",
    "-c",
    'sfdisk -q --no-reread --no-tell-kernel "$1" < "$2"',
    "sh",
    disk,
    table,
  ]);
  for (const [part, at] of [[boot, MIB], [writable, WRITABLE_OFFSET]] as const) {
    await output(["dd", `if=${part}`, `of=${disk}`, "bs=1M", `seek=${at / MIB}`, "conv=notrunc"]);
  }
  return disk;
}

/** Makes an image that is one ext4 file system with the label `writable`. */
export async function fileSystemImage(folder: string, size: number): Promise<string> {
  const tree = join(folder, "tree");
  await Deno.mkdir(join(tree, "etc/cloud/cloud.cfg.d"), { recursive: true });
  await Deno.writeTextFile(join(tree, "etc/cloud/cloud.cfg.d/99-fake_cloud.cfg"), "x\n");
  // What cannot be packed makes up half of it, as in an image with packages in it.
  await Deno.writeFile(join(tree, "packages"), incompressible(size / 2));
  const image = join(folder, "writable.img");
  await sized(image, size);
  await output(["mkfs.ext4", "-q", "-F", "-L", "writable", "-d", tree, image]);
  return image;
}

/** Packs a file with xz, beside it. */
export async function xz(file: string): Promise<string> {
  await output(["xz", "-k", "-T0", "-0", file]);
  return `${file}.xz`;
}

/**
 * The ext4 file system at `offset` of an image, in a file of its own and as a device sees it that
 * boots from it: with what was still in its journal.
 */
export async function fileSystemOf(image: string, offset: number): Promise<string> {
  const file = `${image}.at-${offset}`;
  await output(["dd", `if=${image}`, `of=${file}`, "bs=1M", `skip=${offset / MIB}`]);
  // Status 1: there was something in the journal. More would be damage.
  await output(["sh", "-c", 'e2fsck -f -p "$1" || test $? -eq 1', "sh", file]);
  return file;
}

/** A file of an ext4 file system; empty when it is not there. */
export function readFrom(fileSystem: string, path: string): Promise<string> {
  return output(["debugfs", "-R", `cat ${path}`, fileSystem]);
}

/** Random bytes. */
export function incompressible(size: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(size);
  const most = 65_536;
  for (let at = 0; at < size; at += most) {
    crypto.getRandomValues(bytes.subarray(at, Math.min(size, at + most)));
  }
  return bytes;
}

async function sized(file: string, size: number): Promise<void> {
  await Deno.writeFile(file, new Uint8Array());
  await Deno.truncate(file, size);
}
