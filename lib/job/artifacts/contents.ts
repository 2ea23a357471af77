/** The contents of files, as they follow the headers in an archive. */
import { messageOf } from "../../message.ts";
import { type ArchiveMember, paddingAfter } from "./tar_header.ts";

/** What packing needs in addition to the folder. */
export interface PackOptions {
  /**
   * Is told what is not in the archive as it is on disk.
   *
   * @param path Its name in the archive, `artifacts/...`.
   * @param reason Why, as the end of a sentence.
   */
  onSkipped(path: string, reason: string): void;
  signal?: AbortSignal;
}

/** Contents are read, and the archive is handed on, in pieces of this many bytes. */
export const PIECE_BYTES = 64 * 1024;

/** Why the contents end before the size that was seen. */
export const SHORTER = "it became shorter while it was packed";

/** What can be read from the beginning to the end. */
export interface ReadableContents {
  /** Fills `buffer` from `offset` on, with what stands at `position`. 0 at the end. */
  read(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ bytesRead: number }>;
}

/** Exactly as many bytes as the header says, whatever has become of the file since. */
export async function* contentsOf(
  file: ReadableContents,
  member: ArchiveMember,
  buffer: Uint8Array,
  options: PackOptions,
): AsyncGenerator<Uint8Array> {
  const { size } = member;
  let read = 0;
  let reason = SHORTER;
  while (read < size) {
    options.signal?.throwIfAborted();
    let bytesRead = 0;
    try {
      const length = Math.min(buffer.length, size - read);
      ({ bytesRead } = await file.read(buffer, 0, length, read));
    } catch (error) {
      reason = messageOf(error);
    }
    if (bytesRead === 0) break;
    yield buffer.subarray(0, bytesRead);
    read += bytesRead;
  }
  yield* zerosFor(member, { read, reason }, options);
}

/** What a file lacks of the size that its header says, and of its last block. */
export async function* zerosFor(
  { name, size }: ArchiveMember,
  { read, reason }: { read: number; reason: string },
  options: PackOptions,
): AsyncGenerator<Uint8Array> {
  if (read < size) {
    const shown = typeof name === "string" ? name : new TextDecoder().decode(name);
    options.onSkipped(shown, `its last ${size - read} bytes are zeros: ${reason}`);
  }
  for (let missing = size - read; missing > 0; missing -= PIECE_BYTES) {
    options.signal?.throwIfAborted();
    // Nothing here waits for a disk: without this the agent would do nothing else meanwhile.
    await new Promise((resolve) => setTimeout(resolve, 0));
    yield new Uint8Array(Math.min(missing, PIECE_BYTES));
  }
  yield new Uint8Array(paddingAfter(size));
}

/** Why something special is not in the archive. */
export function unpackable(kind: "FIFO" | "socket" | "device"): string {
  return `it is a ${kind}`;
}
