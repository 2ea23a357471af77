/**
 * Keeps what waits for its delivery below `max_spool`. What is given up is what helps most: the
 * largest log, or the largest artifacts, of the jobs that the server does not take.
 */
import type { Log } from "../log.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { join } from "../path.ts";

/** The parts of an ended job that can be given up; its outcome cannot. */
export type SparePart = "log" | "artifacts";

/** Something that takes up room. */
export interface Occupant {
  outbox: Outbox;
  /** Whether its job has ended, and the server has not taken anything of it for some time. */
  isStuck: boolean;
}

/** What {@linkcode makeRoom} needs. */
export interface MakeRoomOptions {
  /** Bytes; see `max_spool` in the configuration. */
  maxSpool: number;
  log: Log;
  /** Removes a part of a job; false when the job was delivered in this moment. */
  giveUp(outbox: Outbox, part: SparePart): Promise<boolean>;
}

/**
 * Gives up as much as it takes. When all that may be given up would not do, what takes up the room is
 * something else, and nothing is.
 */
export async function makeRoom(
  occupants: readonly Occupant[],
  { maxSpool, log, giveUp }: MakeRoomOptions,
): Promise<void> {
  const parts: (Occupant & { part: SparePart; bytes: number })[] = [];
  for (const { outbox, isStuck } of occupants) {
    const space = (name: string) => spaceOf(join(outbox.folder, name));
    const logs = await space("output") + await space("serial");
    parts.push({ outbox, isStuck, part: "log", bytes: logs });
    parts.push({ outbox, isStuck, part: "artifacts", bytes: await space("artifacts") });
  }
  let total = sumOf(parts);
  const spare = parts.filter(({ isStuck }) => isStuck).sort((a, b) => b.bytes - a.bytes);
  if (total - sumOf(spare) > maxSpool) return;
  for (const { outbox, part, bytes } of spare) {
    if (total <= maxSpool) return;
    if (!await giveUp(outbox, part)) continue;
    log.error(
      `What could not be delivered takes up ${total} bytes, more than max_spool allows ` +
        `(${maxSpool}): the ${part} of job ${outbox.jobId}, ${bytes} bytes, ` +
        `${part === "log" ? "is" : "are"} given up, its outcome is kept. Find out why the server ` +
        "does not take them, or raise max_spool.",
    );
    total -= bytes;
  }
}

function sumOf(parts: readonly { bytes: number }[]): number {
  return parts.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** The bytes that a file, or a folder with all that is in it, takes up on its disk: holes take none. */
export async function spaceOf(path: string): Promise<number> {
  let bytes = 0;
  const linked = new Set<string>();
  const ahead = [path];
  for (let next; (next = ahead.pop()) !== undefined;) {
    const info = await Deno.lstat(next).catch(() => undefined);
    if (info === undefined) continue;
    if (!info.isDirectory && (info.nlink ?? 1) > 1) {
      const name = `${info.dev}:${info.ino}`;
      if (linked.has(name)) continue;
      linked.add(name);
    }
    bytes += info.blocks === null ? info.size : info.blocks * BLOCK_BYTES;
    if (!info.isDirectory) continue;
    try {
      for await (const entry of Deno.readDir(next)) ahead.push(join(next, entry.name));
    } catch {
      // A folder that resists is counted as what could be seen of it.
    }
  }
  return bytes;
}

/** The unit in which the kernel counts them, whatever the file system's own is. */
const BLOCK_BYTES = 512;
