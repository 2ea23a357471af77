/** Whether there is room for another job. */

/** Why no job can be taken: the first of `folders` with less than `least` bytes free. */
export async function lackOfSpace(
  folders: readonly string[],
  least: number,
): Promise<string | undefined> {
  for (const folder of folders) {
    const free = await freeBytes(folder);
    if (free !== undefined && free < least) {
      return `${folder} has ${mebibytes(free)} MiB free, and min_free_space is ${
        mebibytes(least)
      } MiB`;
    }
  }
  return undefined;
}

/** Bytes that the agent's user may still write; undefined when the file system does not say. */
async function freeBytes(folder: string): Promise<number | undefined> {
  try {
    const { statfs } = await import("node:fs/promises");
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  } catch {
    return undefined;
  }
}

function mebibytes(bytes: number): number {
  return Math.floor(bytes / 2 ** 20);
}
