/** Whether the host can take another job: there is room, and the agent can write where it has to. */
import type { Clock } from "../clock.ts";
import { messageOf } from "../message.ts";
import { size } from "../observe/words.ts";
import { join, resolve } from "../path.ts";
import { ask } from "../process/proc.ts";
import { within } from "../wait.ts";

/** A file of this size must fit: a full disk still takes empty ones. */
const PROBE_BYTES = 4096;

/** For so long a file that could be written shows that others can be, if it can still be opened for it. */
const PROVEN_MS = 60_000;

/** A job makes some twenty files of its own, and may bring more. */
const FEWEST_INODES = 100;

/** Why no job can be taken. */
export interface HostTrouble {
  /** Stays the same while the trouble does, so that it is said once. */
  cause: string;
  /** Half a sentence for people, with the figures of this moment. */
  message: string;
}

/** What has to be so, and who looks. */
export interface HostCheckOptions {
  /** Bytes. */
  leastFree: number;
  agentId: string;
  clock: Pick<Clock, "now">;
  /** @default what the kernel says now */
  lookAt?: LookAtDisk | undefined;
}

/** Looks at the folders in which a job keeps what it has; the first trouble counts. */
export async function troubleWith(
  folders: readonly string[],
  { leastFree, agentId, clock, lookAt = lookAtDisk }: HostCheckOptions,
): Promise<HostTrouble | undefined> {
  const lack = await lackOfSpace(folders, leastFree, lookAt);
  if (lack !== undefined) return lack;
  for (const folder of folders) {
    const trouble = await whyNotWritable(folder, agentId, clock.now());
    if (trouble !== undefined) return trouble;
  }
  return undefined;
}

/** The first of the folders with less than `least` bytes free. */
export async function lackOfSpace(
  folders: readonly string[],
  least: number,
  lookAt: LookAtDisk = lookAtDisk,
): Promise<HostTrouble | undefined> {
  for (const folder of folders) {
    const disk = await lookAt(folder);
    if (disk === undefined) continue; // What is wrong, if anything is, shows when a file is made.
    // Some file systems make inodes as they are needed, and say that there are none.
    if (disk.inodes > 0 && disk.freeInodes < FEWEST_INODES) {
      const message =
        `${folder} has ${disk.freeInodes} inodes free, and a job may need ${FEWEST_INODES}`;
      return { cause: `inodes ${folder}`, message };
    }
    const free = disk.freeBytes;
    if (free >= least) continue;
    const message = `${folder} has ${size(free)} free, and min_free_space is ${size(least)}`;
    return { cause: `space ${folder}`, message };
  }
  return undefined;
}

/** Removes what an agent leaves in folders to see whether it can write there. */
export async function removeProbes(folders: readonly string[], agentId: string): Promise<void> {
  for (const folder of folders) await Deno.remove(probeIn(folder, agentId)).catch(() => {});
}

/** Always the same, so that there is one at most. */
function probeIn(folder: string, agentId: string): string {
  return join(folder, `.probe-${encodeURIComponent(agentId)}`);
}

/**
 * Only trying shows it: a file system may be read-only, out of inodes, over quota, or gone. A file is written now
 * and then, and stays; in between it is opened for writing, which a file system refuses that has become
 * read-only, and which costs no disk a write.
 */
async function whyNotWritable(
  folder: string,
  agentId: string,
  now: number,
): Promise<HostTrouble | undefined> {
  const path = probeIn(folder, agentId);
  if (await isProven(path, now)) return undefined;
  // Not at once: a disk that takes no writes just now holds up nobody else.
  const write = () => Deno.writeFile(path, new Uint8Array(PROBE_BYTES), { createNew: true });
  try {
    await write().catch(async (error) => {
      if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
      await Deno.remove(path);
      await write();
    });
    return undefined;
  } catch (error) {
    await Deno.remove(path).catch(() => {});
    const hint = isFull(error) ? " (its bytes or its inodes are used up: remove files)" : "";
    const reason = messageOf(error).replace(/: (tmpfile|open|write|remove)\b.*$/, "");
    return { cause: `write ${folder}`, message: `${folder} takes no files: ${reason}${hint}` };
  }
}

/** Whether a whole file was written there a moment ago, and can still be opened for writing. */
async function isProven(path: string, now: number): Promise<boolean> {
  try {
    const { isFile, size, mtime } = await Deno.lstat(path);
    const age = Math.abs(now - (mtime?.getTime() ?? 0));
    if (!isFile || size !== PROBE_BYTES || age > PROVEN_MS) return false;
    // For reading, too: a FIFO that has just taken its place makes nobody wait then.
    (await Deno.open(path, { read: true, write: true })).close();
    return true;
  } catch {
    return false;
  }
}

function isFull(error: unknown): boolean {
  return error instanceof Error && "code" in error &&
    ["ENOSPC", "EDQUOT"].includes(`${error.code}`);
}

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
