import type { FileHandle } from "node:fs/promises";
import { messageOf } from "../../message.ts";
import {
  type ArchiveMember,
  contentsOf,
  END_OF_ARCHIVE,
  endsInZeros,
  headerOf,
  type PackOptions,
  paddingAfter,
  PIECE_BYTES,
  SHORTER,
  unpackable,
} from "./tar_writer.ts";
import { oddMembersOf, oddTarget, textNamesIn } from "./odd_names.ts";

/** The name under which the folder stands in the archive, whatever its own is. */
const TOP_NAME = "artifacts";

/**
 * Files up to this many bytes are read without going back to the event loop: for each of many small files that
 * takes ten times as long as reading it.
 */
const SMALL_BYTES = PIECE_BYTES;

/** What a name that is not UTF-8 is turned into by the runtime, in part. */
const REPLACEMENT_CHARACTER = "\ufffd";

/** Where a member is on disk, and how it is called in the archive. */
interface Place {
  path: string;
  name: string;
}

/** A folder on the way down, with what is still to be packed of it. */
interface OpenFolder extends Place {
  left: string[];
}

/**
 * Packs a folder as tar.gz, as fast as the stream is read and with no copy on disk. The same tree
 * makes the same bytes: names are sorted, owners left out, times those of the files. Links stay
 * links and are never followed; hard links become files of their own; what cannot be read is left
 * out and reported. Errors only by `signal`, with its reason.
 *
 * @param folder The artifacts themselves; they are named `artifacts/...` in the archive.
 */
export function packArtifacts(folder: string, options: PackOptions): ReadableStream<Uint8Array> {
  return ReadableStream.from(inPieces(tarOf(folder, options))).pipeThrough(
    // No other bytes than in plain ArrayBuffers are made here, which is all that the types differ in.
    new CompressionStream("gzip") as ReadableWritablePair<Uint8Array, Uint8Array>,
  );
}

/** Many small pieces as fewer of PIECE_BYTES: each costs a way through the streams. */
async function* inPieces(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let piece = new Uint8Array(PIECE_BYTES);
  let filled = 0;
  for await (let bytes of source) {
    while (bytes.length > 0) {
      const part = bytes.subarray(0, PIECE_BYTES - filled);
      piece.set(part, filled);
      filled += part.length;
      bytes = bytes.subarray(part.length);
      if (filled === PIECE_BYTES) {
        yield piece;
        // A new one: what reads the stream may hold on to this one.
        piece = new Uint8Array(PIECE_BYTES);
        filled = 0;
      }
    }
  }
  yield piece.subarray(0, filled);
}

/** The archive before compression. Each piece is valid until the next one is asked for. */
async function* tarOf(folder: string, options: PackOptions): AsyncGenerator<Uint8Array> {
  // Loading it takes its time, which the start of an agent should not.
  const fs = await import("node:fs");
  const buffer = new Uint8Array(PIECE_BYTES);
  const way: OpenFolder[] = [];
  let next: Place | undefined = { path: folder, name: TOP_NAME };
  while (true) {
    options.signal?.throwIfAborted();
    if (next !== undefined) {
      const info = infoOf(next, options);
      const small = info?.isFile && info.size <= SMALL_BYTES
        ? smallFileOf(next, fs, options)
        : undefined;
      if (small instanceof Uint8Array) yield small;
      else if (small !== "skipped" && info !== undefined) {
        const left = yield* memberOf(next, info, buffer, options);
        if (left !== undefined) way.push({ ...next, left });
      }
    }
    const current = way.at(-1);
    if (current === undefined) break;
    const name = current.left.pop();
    if (name === undefined) {
      way.pop();
      next = undefined;
    } else {
      next = { path: `${current.path}/${name}`, name: `${current.name}/${name}` };
    }
  }
  yield END_OF_ARCHIVE;
}

function infoOf({ path, name }: Place, options: PackOptions): Deno.FileInfo | undefined {
  try {
    return Deno.lstatSync(path);
  } catch (error) {
    options.onSkipped(name, whyUnreadable(error));
    return undefined;
  }
}

/** Packs one member; gives back the names in it if it is a folder, the last one first. */
async function* memberOf(
  { path, name }: Place,
  info: Deno.FileInfo,
  buffer: Uint8Array,
  options: PackOptions,
): AsyncGenerator<Uint8Array, string[] | undefined> {
  if (info.isSymlink) {
    let target;
    try {
      target = await targetOf(path);
    } catch (error) {
      options.onSkipped(name, whyUnreadable(error));
      return;
    }
    yield headerOf({ ...common(name, info), type: "symlink", target });
  } else if (info.isDirectory) {
    yield headerOf({ ...common(name, info), type: "directory" });
    return yield* folderOf(path, name, buffer, options);
  } else if (info.isFile) yield* fileOf(path, name, buffer, options);
  else options.onSkipped(name, unpackable(specialKind(info)));
}

async function targetOf(path: string): Promise<string | Uint8Array> {
  try {
    return Deno.readLinkSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.InvalidData) return await oddTarget(path);
    throw error;
  }
}

/** A file with header and contents in one piece. One that is no small file any more is packed otherwise. */
function smallFileOf(
  { path, name }: Place,
  { constants, closeSync, fstatSync, openSync, readSync }: typeof import("node:fs"),
  options: PackOptions,
): Uint8Array | "skipped" | "other" {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const info = fstatSync(descriptor);
    const { size } = info;
    if (!info.isFile() || size > SMALL_BYTES) return "other";
    const header = headerOf(memberFor(name, info));
    const whole = new Uint8Array(header.length + size + paddingAfter(size));
    whole.set(header);
    let filled = 0;
    while (filled < size) {
      const read = readSync(descriptor, whole, header.length + filled, size - filled, filled);
      if (read === 0) break;
      filled += read;
    }
    if (filled < size) options.onSkipped(name, endsInZeros(size - filled, SHORTER));
    return whole;
  } catch (error) {
    options.onSkipped(name, whyUnreadable(error));
    return "skipped";
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

/**
 * O_NOFOLLOW: a file that has become a link since it was listed is not read through it.
 * O_NONBLOCK: one that has become a FIFO does not hold us up.
 */
async function openNoLink(path: string): Promise<FileHandle> {
  const { constants, open } = await import("node:fs/promises");
  return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
}

async function* fileOf(
  path: string,
  name: string,
  buffer: Uint8Array,
  options: PackOptions,
): AsyncGenerator<Uint8Array> {
  let file: FileHandle;
  try {
    file = await openNoLink(path);
  } catch (error) {
    options.onSkipped(name, whyUnreadable(error));
    return;
  }
  try {
    const info = await file.stat();
    if (!info.isFile()) {
      options.onSkipped(name, "it was replaced by something else while it was packed");
      return;
    }
    const member = memberFor(name, info);
    yield headerOf(member);
    yield* contentsOf(file, member, buffer, options);
  } finally {
    await file.close();
  }
}

function memberFor(
  name: string,
  { size, mode, mtimeMs }: { size: number; mode: number; mtimeMs: number },
): ArchiveMember {
  return { type: "file", name, size, mode, mtime: mtimeMs / 1000 };
}

async function* folderOf(
  path: string,
  name: string,
  buffer: Uint8Array,
  options: PackOptions,
): AsyncGenerator<Uint8Array, string[]> {
  let names: string[] = [];
  try {
    for await (const entry of Deno.readDir(path)) names.push(entry.name);
    if (names.some((name) => name.includes(REPLACEMENT_CHARACTER))) {
      const listed = await textNamesIn(path);
      names = listed.names;
      if (listed.hasOthers) yield* oddMembersOf(path, name, { buffer, options });
    }
  } catch (error) {
    options.signal?.throwIfAborted();
    options.onSkipped(name, `what is in it cannot be listed: ${messageOf(error)}`);
  }
  return names.sort().reverse();
}

function whyUnreadable(error: unknown): string {
  return isNotFound(error) ? "it vanished while it was packed" : messageOf(error);
}

function isNotFound(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

function specialKind(info: Deno.FileInfo): "FIFO" | "socket" | "device" {
  if (info.isFifo) return "FIFO";
  if (info.isSocket) return "socket";
  return "device";
}

function common(name: string, info: Deno.FileInfo): Omit<ArchiveMember, "type"> {
  return { name, size: 0, mode: info.mode ?? 0, mtime: (info.mtime?.getTime() ?? 0) / 1000 };
}
