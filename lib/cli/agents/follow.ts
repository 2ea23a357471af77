/** Reading a log: its end, and then what comes. */
import type { Clock } from "../../clock.ts";

/** How often a file is looked at. */
const LOOK_MS = 250;
const CHUNK_BYTES = 64 * 1024;
const NEW_LINE = 0x0a;

/** What to read of a log file. */
export interface FollowOptions {
  /** How many lines of its end, of those that count. */
  lines: number;
  /** Which lines count. @default all */
  counts?: (line: string) => boolean;
  /** Whether to go on with what is written later, also into its successor after a rotation. */
  follow: boolean;
  clock: Clock;
  /** Ends following. */
  signal?: AbortSignal;
}

/**
 * The bytes of a file's end, and then what comes.
 *
 * @throws Deno.errors.NotFound when there is no such file, unless it is waited for.
 */
export async function* followFile(
  path: string,
  { lines, counts = () => true, follow, clock, signal }: FollowOptions,
): AsyncGenerator<Uint8Array> {
  let file: Deno.FsFile | undefined;
  try {
    file = await open(path, follow);
    if (file !== undefined) {
      await file.seek(await startOfLastLines(file, lines, counts), Deno.SeekMode.Start);
    }
    while (true) {
      if (file !== undefined) yield* rest(file);
      if (!follow || signal?.aborted) return;
      try {
        await clock.sleep(LOOK_MS, signal);
      } catch {
        return;
      }
      if (file === undefined) {
        file = await open(path, true);
      } else if (await isReplaced(path, file)) {
        // What was written into the old one between the last look and its being moved aside.
        yield* rest(file);
        file.close();
        file = undefined;
        file = await open(path, true);
      } else if ((await file.stat()).size < await file.seek(0, Deno.SeekMode.Current)) {
        // Somebody has emptied it.
        await file.seek(0, Deno.SeekMode.Start);
      }
    }
  } finally {
    file?.close();
  }
}

async function open(path: string, mayLack: boolean): Promise<Deno.FsFile | undefined> {
  try {
    return await Deno.open(path);
  } catch (error) {
    if (mayLack && error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function* rest(file: Deno.FsFile): AsyncGenerator<Uint8Array> {
  while (true) {
    const chunk = new Uint8Array(CHUNK_BYTES);
    const count = await file.read(chunk);
    if (count === null) return;
    yield chunk.subarray(0, count);
  }
}

async function isReplaced(path: string, file: Deno.FsFile): Promise<boolean> {
  try {
    const [there, ours] = [await Deno.stat(path), await file.stat()];
    return there.ino !== ours.ino || there.dev !== ours.dev;
  } catch {
    // Moved aside, and the new one is not there yet.
    return false;
  }
}

/** Where the last lines begin that count, read from the end: a log may be large. */
async function startOfLastLines(
  file: Deno.FsFile,
  lines: number,
  counts: (line: string) => boolean,
): Promise<number> {
  const { size } = await file.stat();
  if (lines === 0) return size;
  let left = lines;
  /** The beginning of the line that ends in the part before. */
  let rest = new Uint8Array();
  for (let end = size; end > 0;) {
    const start = Math.max(0, end - CHUNK_BYTES);
    const part = new Uint8Array(end - start + rest.length);
    await readAt(file, start, part.subarray(0, end - start));
    part.set(rest, end - start);
    let lineEnd = part.length;
    for (let i = end - start - 1; i >= 0; i--) {
      // The end of the last line begins none.
      if (part[i] !== NEW_LINE || start + i === size - 1) continue;
      if (counts(new TextDecoder().decode(part.subarray(i + 1, lineEnd)))) left--;
      if (left === 0) return start + i + 1;
      lineEnd = i;
    }
    rest = part.slice(0, lineEnd);
    end = start;
  }
  return 0;
}

/** Fills `bytes` from that place, or as far as there is something. */
async function readAt(file: Deno.FsFile, place: number, bytes: Uint8Array): Promise<void> {
  await file.seek(place, Deno.SeekMode.Start);
  for (let filled = 0; filled < bytes.length;) {
    const count = await file.read(bytes.subarray(filled));
    if (count === null) return;
    filled += count;
  }
}
