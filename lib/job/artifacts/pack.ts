import type { FileHandle } from "node:fs/promises";
import { messageOf } from "../../message.ts";
import { isRegularFileAt } from "../untrusted_paths.ts";
import { compressed } from "./compress.ts";
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

/** The name that the folder has in the archive, whatever its own is. */
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
  /** As its folder says, so that it need not be asked for a small file. */
  isFile: boolean;
}

/** What is in a folder. */
type Listed = Pick<Deno.DirEntry, "name" | "isFile">;

/** A folder on the way down, with what is still to be packed of it. */
interface OpenFolder extends Place {
  left: Listed[];
}

/**
 * Packs a folder as tar.gz, as fast as the stream is read and with no copy on disk. The same tree
 * makes the same bytes: names are sorted, owners left out, times those of the files. Links stay
 * links and are never followed; hard links become files of their own; what cannot be read is left
 * out and reported. Errors only by `signal`, with its reason, and with
 * a message when gzip(1) fails.
 *
 * @param folder The artifacts themselves; they are named `artifacts/...` in the archive.
 */
export function packArtifacts(folder: string, options: PackOptions): ReadableStream<Uint8Array> {
  return ReadableStream.from(compressed(tarOf(folder, options), options.gzip));
}

/** The archive before compression. Each piece is valid until the next one is asked for. */
async function* tarOf(folder: string, options: PackOptions): AsyncGenerator<Uint8Array> {
  // Loading it takes its time, which the start of an agent should not.
  const fs = await import("node:fs");
  const buffer = new Uint8Array(PIECE_BYTES);
  const way: OpenFolder[] = [];
  let next: Place | undefined = { path: folder, name: TOP_NAME, isFile: false };
  while (true) {
    options.signal?.throwIfAborted();
    if (next !== undefined) {
      const small = next.isFile ? smallFileOf(next, fs, options) : "other";
      if (small instanceof Uint8Array) yield small;
      else if (small === "other") {
        const left = yield* memberOf(next, buffer, options);
        if (left !== undefined) way.push({ ...next, left });
      }
    }
    const current = way.at(-1);
    if (current === undefined) break;
    const listed = current.left.pop();
    if (listed === undefined) {
      way.pop();
      next = undefined;
    } else {
      const { name, isFile } = listed;
      next = { path: `${current.path}/${name}`, name: `${current.name}/${name}`, isFile };
    }
  }
  yield END_OF_ARCHIVE;
}

function infoOf(
  { path, name }: Pick<Place, "path" | "name">,
  options: PackOptions,
): Deno.FileInfo | undefined {
  try {
    return Deno.lstatSync(path);
  } catch (error) {
    options.onSkipped(name, whyUnreadable(error));
    return undefined;
  }
}

/** Packs one member; gives back the names in it if it is a folder, the last one first. */
async function* memberOf(
  { path, name }: Pick<Place, "path" | "name">,
  buffer: Uint8Array,
  options: PackOptions,
): AsyncGenerator<Uint8Array, Listed[] | undefined> {
  const info = infoOf({ path, name }, options);
  if (info === undefined) return;
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
    if (!info.isFile() || size > SMALL_BYTES || !isRegularFileAt(path, info)) return "other";
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
    if (codeOf(error) === "ELOOP") return "other";
    options.onSkipped(name, whyUnreadable(error));
    return "skipped";
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

/** O_NONBLOCK: a file that has become a FIFO does not hold us up. */
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
    if (!info.isFile() || !isRegularFileAt(path, info)) {
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
): AsyncGenerator<Uint8Array, Listed[]> {
  let listed: Listed[] = [];
  try {
    listed = await Array.fromAsync(Deno.readDir(path));
    if (listed.some(({ name }) => name.includes(REPLACEMENT_CHARACTER))) {
      const { names, hasOthers } = await textNamesIn(path);
      listed = names.map((name) => ({ name, isFile: false }));
      if (hasOthers) yield* oddMembersOf(path, name, { buffer, options });
    }
  } catch (error) {
    options.signal?.throwIfAborted();
    options.onSkipped(name, `what is in it cannot be listed: ${messageOf(error)}`);
  }
  return listed.sort((a, b) => a.name < b.name ? 1 : -1);
}

function whyUnreadable(error: unknown): string {
  return codeOf(error) === "ENOENT" ? "it vanished while it was packed" : messageOf(error);
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}

function specialKind(info: Deno.FileInfo): "FIFO" | "socket" | "device" {
  if (info.isFifo) return "FIFO";
  if (info.isSocket) return "socket";
  return "device";
}

function common(name: string, info: Deno.FileInfo): Omit<ArchiveMember, "type"> {
  return { name, size: 0, mode: info.mode ?? 0, mtime: (info.mtime?.getTime() ?? 0) / 1000 };
}
