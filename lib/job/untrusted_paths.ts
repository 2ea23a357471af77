/**
 * Files and folders at paths that another user can write to, who may have put there a link, a FIFO on which
 * opening blocks, a device, or a second name of a file of others. What is opened is the regular file of
 * that very name, or nothing.
 *
 * O_NOFOLLOW alone does not do: unless everything is permitted, the runtime resolves links itself
 * before it opens. So what was opened is compared with what stands at the path.
 */
import { writeAllSync } from "../bytes.ts";
import { dirname, join, resolve } from "../path.ts";

/** The file at the path must not be opened; the message says what and why. */
export class NotRegular extends Error {
  override readonly name = "NotRegular";
}

/** A file that is open for reading. */
export interface ReadableFile extends Disposable {
  readonly size: number;
  /** Bytes that it takes up on disk: fewer than `size` where it has holes. */
  readonly allocated: number;
  /** Who owns it. */
  readonly uid: number;
  /** Fills `buffer` from `position` on; 0 at the end of the file. */
  read(buffer: Uint8Array, position: number): number;
}

/** What is asked of a file beyond being a regular one. */
export interface Demands {
  /**
   * It must have no other name: in a folder of everybody, a second name has us read or write a file
   * that is none of theirs. Jobs may well link their own files. @default false
   */
  oneName?: boolean;
}

/**
 * Opens a regular file for reading.
 *
 * @throws {NotRegular} when it is something else.
 * @throws {Error} what the file system says.
 */
export function openForReading(path: string, demands: Demands = {}): ReadableFile {
  refuseOdd(path, lookAt(path), demands);
  // Not imported: it takes its time to load, and the start of an agent needs it not.
  const fs = process.getBuiltinModule("node:fs");
  const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = fs.constants;
  // O_NONBLOCK: what has just become a FIFO must not make us wait for its other end.
  const fd = fs.openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    const stat = fs.fstatSync(fd);
    refuseOther(path, stat, demands);
    return {
      size: stat.size,
      // The unit of st_blocks, whatever the blocks of the file system are.
      allocated: stat.blocks * 512,
      uid: stat.uid,
      read: (buffer, position) => fs.readSync(fd, buffer, 0, buffer.length, position),
      [Symbol.dispose]: () => fs.closeSync(fd),
    };
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

/**
 * The whole of a regular file.
 *
 * @param mostBytes a larger one is not read.
 * @throws {NotRegular} when it is something else, or too large.
 * @throws {Error} what the file system says.
 */
export function readSmallFile(path: string, mostBytes: number): Uint8Array {
  using file = openForReading(path);
  if (file.size > mostBytes) throw new NotRegular(`${path} has more than ${mostBytes} bytes`);
  const bytes = new Uint8Array(file.size);
  let filled = 0;
  while (filled < bytes.length) {
    const read = file.read(bytes.subarray(filled), filled);
    if (read === 0) break;
    filled += read;
  }
  return bytes.subarray(0, filled);
}

/** How {@linkcode openForWriting} makes and writes a file. */
export interface WritingOptions extends Demands {
  /** Permissions of a file that is made. */
  mode: number;
  /** Each write goes to the end. @default false */
  append?: boolean;
}

/**
 * Opens a regular file for reading and writing, or makes it; what is in it stays.
 *
 * @throws {NotRegular} when it is something else.
 * @throws {Error} what the file system says.
 */
export function openForWriting(path: string, options: WritingOptions): Deno.FsFile {
  const { mode, append = false } = options;
  // Reading too: a FIFO that is opened for both makes nobody wait.
  const how = { read: true, write: true, append };
  try {
    // createNew is O_EXCL: it takes nothing that is there, and follows no link.
    return Deno.openSync(path, { ...how, createNew: true, mode });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
  refuseOdd(path, lookAt(path), options);
  const file = Deno.openSync(path, how);
  try {
    refuseOther(path, file.statSync(), options);
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}

/** Replaces what is in a regular file, which is made where there is none. */
export function rewriteFile(path: string, text: string, mode: number): void {
  using file = openForWriting(path, { mode });
  const bytes = new TextEncoder().encode(text);
  writeAllSync(file, bytes);
  // Only now: ext4 puts a file that was empty in between on the disk when it is closed.
  file.truncateSync(bytes.length);
}

/** Whether a regular file that was opened is what stands at the path. */
export function isRegularFileAt(path: string, opened: Identity): boolean {
  try {
    refuseOther(path, opened, {});
    return true;
  } catch {
    return false;
  }
}

/** Which file it is. */
interface Identity {
  dev: number;
  ino: number | null;
}

function lookAt(path: string): Deno.FileInfo {
  return Deno.lstatSync(path);
}

function refuseOdd(path: string, stat: Deno.FileInfo, { oneName = false }: Demands): void {
  if (!stat.isFile) throw new NotRegular(`${path} is not a regular file`);
  if (oneName && (stat.nlink ?? 1) > 1) throw new NotRegular(`${path} has more than one name`);
}

/** What is at the path now must be what was opened. */
function refuseOther(
  path: string,
  opened: Identity,
  demands: Demands,
): void {
  const there = lookAt(path);
  refuseOdd(path, there, demands);
  if (there.dev !== opened.dev || there.ino !== opened.ino) {
    throw new NotRegular(`${path} is not the file that was opened`);
  }
}

const STICKY = 0o1000;
const OTHERS_WRITE = 0o002;

/** Where the kernel gives up, too. */
const MOST_LINKS = 40;

/** What there is to say of a folder. */
export interface FolderTrust {
  /** Why it must not be used, as a sentence without its end; undefined when it may be. */
  refusal?: string;
  /** Folders on the way to it in which every account may replace what is there. */
  open: string[];
}

/**
 * Whether a folder can be trusted to hold what the agent puts into it. The folders of the established
 * defaults are below `/tmp`, where any account can have made them first, and the owner of a folder can
 * replace what is in it.
 *
 * Follows the way to the folder, links included. Below a folder that everybody may write to, `/tmp` for
 * one, each step must belong to root or to the agent's user. Elsewhere whoever made the folders has
 * decided who may write to them.
 *
 * @param path exists.
 * @param uid the agent's user.
 * @throws {Error} what the file system says.
 */
export function examineFolder(path: string, uid: number): FolderTrust {
  const open: string[] = [];
  const ahead = partsOf(resolve(path));
  let at = "/";
  let exposed = false;
  let links = 0;
  for (let step; (step = ahead.shift()) !== undefined;) {
    if (step === "..") {
      at = dirname(at);
      continue;
    }
    const place = join(at, step);
    const info = Deno.lstatSync(place);
    if (exposed && info.uid !== 0 && info.uid !== uid) {
      return {
        refusal: `${place} belongs to user ${info.uid}, who could replace whatever is put into it`,
        open,
      };
    }
    if (info.isSymlink) {
      if (++links > MOST_LINKS) return { refusal: `${path} leads through too many links`, open };
      const target = Deno.readLinkSync(place);
      if (target.startsWith("/")) {
        at = "/";
        exposed = false;
      }
      ahead.unshift(...partsOf(target));
      continue;
    }
    const mode = info.mode ?? 0;
    if ((mode & OTHERS_WRITE) !== 0) {
      exposed = true;
      if ((mode & STICKY) === 0) open.push(place);
    }
    at = place;
  }
  return { open };
}

function partsOf(path: string): string[] {
  return path.split("/").filter((part) => part !== "" && part !== ".");
}
