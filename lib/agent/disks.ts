/** What is free on the file systems of folders. */
import { within } from "../wait.ts";
import type { Clock } from "../clock.ts";
import { resolve } from "../path.ts";
import { ask } from "../process/proc.ts";

/** A file system, as the user of the agent may use it. */
export interface DiskSpace {
  freeBytes: number;
  /** Zero where it makes inodes as they are needed. */
  inodes: number;
  freeInodes: number;
}

/** Looks at the file system of a folder; undefined where that cannot be done. */
export type LookAtDisk = (folder: string) => Promise<DiskSpace | undefined>;

/** What the kernel says now. */
export const lookAtDisk: LookAtDisk = async (folder) => {
  const { statfs } = await import("node:fs/promises");
  const disk = await statfs(folder).catch(() => undefined);
  return disk && {
    freeBytes: disk.bavail * disk.bsize,
    inodes: disk.files,
    freeInodes: disk.ffree,
  };
};

/** What the first look has found is good for so long. */
const FRESH_MS = 1_000;

/** The agents of a process mostly keep their files in the same folders: one look serves all for so long. */
const SHARED_MS = 2_000;

/**
 * Looks at disks for all agents of a process.
 *
 * What `lookAtDisk()` needs takes 25 ms to load, longer than anything else that a start does before it asks
 * for a job. So the first look is that of stat(1), at all folders at once and beside the rest of the start.
 * A folder that it does not find, or that makes it wait, is looked at in the usual way.
 */
export function sharedDisks(folders: readonly string[], clock: Clock): LookAtDisk {
  const freshUntil = clock.monotonic() + FRESH_MS;
  const found = lookByProgram(folders).catch(() => undefined);
  const first = within(found, { clock, ms: FRESH_MS });
  const look: LookAtDisk = async (folder) => {
    const disk = clock.monotonic() < freshUntil ? (await first)?.get(resolve(folder)) : undefined;
    return disk ?? await lookAtDisk(folder);
  };
  const looks = new Map<
    string,
    { readonly until: number; readonly disk: ReturnType<LookAtDisk> }
  >();
  return (folder) => {
    const known = looks.get(folder);
    if (known !== undefined && clock.monotonic() < known.until) return known.disk;
    const disk = look(folder);
    looks.set(folder, { until: clock.monotonic() + SHARED_MS, disk });
    return disk;
  };
}

async function lookByProgram(folders: readonly string[]): Promise<Map<string, DiskSpace>> {
  const { text } = await ask([
    "stat",
    "-f",
    "-c",
    "%a %S %c %d %n",
    "--",
    ...folders.map((folder) => resolve(folder)),
  ]);
  const lines = text.matchAll(/^(\d+) (\d+) (\d+) (\d+) (.*)$/gm);
  return new Map(
    [...lines].map(([, blocks, blockSize, inodes, freeInodes, folder = ""]) => [
      folder,
      {
        freeBytes: Number(blocks) * Number(blockSize),
        inodes: Number(inodes),
        freeInodes: Number(freeInodes),
      },
    ]),
  );
}
