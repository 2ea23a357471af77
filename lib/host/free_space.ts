/** Looks now and then at what is free on the disks that an agent's jobs use. */
import type { Clock } from "../clock.ts";
import type { Emit } from "../observe/events.ts";

const LOOK_EVERY_MS = 30_000;

/** Who is told, and until when. */
interface FreeSpaceOptions {
  clock: Clock;
  emit: Emit;
  signal: AbortSignal;
}

/** Tells at once and then every 30 s, until the signal aborts. A disk that does not answer is waited for. */
export async function watchFreeSpace(
  folders: readonly string[],
  { clock, emit, signal }: FreeSpaceOptions,
): Promise<void> {
  const { statfs } = await import("node:fs/promises");
  while (!signal.aborted) {
    const disks = await Promise.all(folders.map((folder) => statfs(folder).catch(() => undefined)));
    const free = disks.flatMap((disk) => disk === undefined ? [] : disk.bavail * disk.bsize);
    if (free.length > 0 && !signal.aborted) {
      emit({ type: "free_space", bytes: Math.min(...free) });
    }
    await clock.sleep(LOOK_EVERY_MS, signal).catch(() => {});
  }
}
