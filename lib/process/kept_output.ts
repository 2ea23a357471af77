/**
 * What a kept command prints, read from the files in which its keeper puts it: `output.0`,
 * `output.1` and so on, each of at most 32 MiB. A file is whole when the next one is there.
 */
import { systemClock } from "../clock.ts";
import { exists, join } from "../path.ts";
import type { FolderWatch } from "./folder_watch.ts";

/** A place in what a command has printed. */
export interface OutputPlace {
  /** Number of the file. */
  piece: number;
  /** Bytes before the place in this file. */
  offset: number;
  /** Bytes before the place in all of them. */
  total: number;
  /** The command had ended before: what comes is of others. */
  isPastEnd?: boolean | undefined;
}

/** Where reading begins. */
export const OUTPUT_START: OutputPlace = { piece: 0, offset: 0, total: 0 };

/** So much is read at once: most commands print little, and there may be a hundred of them. */
const FIRST_BUFFER_BYTES = 32 * 1024;
/** So much of a command that prints faster than that is taken. */
const BUFFER_BYTES = 512 * 1024;

/** The end mark begins with a byte that hardly anything prints, since what may begin it is held back. */
const FIRST_OF_MARK = 0x01;

/**
 * Reads the output of one kept command.
 *
 * When the command has ended, its keeper puts a mark into the pipe. So it is known when everything
 * that it has printed is on the disk, though others hold the pipe, and however slow the host is.
 */
export class KeptOutput implements Disposable {
  readonly #folder: string;
  readonly #mark: Uint8Array;
  /** Resolves when everything that the command itself has printed was read, and asked for more. */
  readonly whole: Promise<void>;
  readonly #whole = Promise.withResolvers<void>();
  /** Bytes before the mark in all files, once it was read. */
  #markAt: number | undefined;
  #isPastEnd: boolean;
  /** The end of what was read, that may begin the mark. */
  #held: Uint8Array<ArrayBuffer> = new Uint8Array();
  /** Files that are there as far as we know, the one that is read last; `start` is in bytes of all. */
  #pieces: { piece: number; start: number }[];
  #offset: number;
  #file: Deno.FsFile | undefined;
  #buffer = new Uint8Array(FIRST_BUFFER_BYTES);
  #isOver = false;

  constructor(folder: string, from: OutputPlace) {
    this.#folder = folder;
    this.#pieces = [{ piece: from.piece, start: from.total - from.offset }];
    this.#offset = from.offset;
    this.#isPastEnd = from.isPastEnd ?? false;
    this.#mark = endMark(folder);
    this.whole = this.#whole.promise;
  }

  /** Everything has been read, and nothing more will come. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** The place `back` bytes before what is read next, no further back than reading began. */
  place(back = 0): OutputPlace {
    let total = this.#current.start + this.#offset - this.#held.length - back;
    const markEnd = (this.#markAt ?? Infinity) + this.#mark.length;
    if (this.#markAt !== undefined && total < markEnd) total -= this.#mark.length;
    const { piece, start } = this.#pieces.findLast(({ start }) => start <= total) ??
      this.#pieces[0]!;
    const isPastEnd = this.#isPastEnd && !(total < markEnd && this.#markAt !== undefined);
    return { piece, offset: total - start, total, ...(isPastEnd && { isPastEnd }) };
  }

  get #current(): { piece: number; start: number } {
    return this.#pieces.at(-1)!;
  }

  /** The bytes that come next, good until the next call; undefined when there are none now. */
  async read(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (this.#isPastEnd) this.#whole.resolve();
    while (true) {
      const bytes = await this.#readRaw();
      if (bytes === undefined) return this.#isOver ? this.#lastHeld() : undefined;
      const text = this.#isPastEnd ? bytes : this.#withoutMark(bytes);
      if (text.length > 0) return text;
    }
  }

  /** What was read, without the mark, or what may be the beginning of it. */
  #withoutMark(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    if (this.#held.length === 0 && !hasFirstOfMark(bytes)) return bytes;
    const text = Buffer.concat([this.#held, bytes]);
    const at = text.indexOf(this.#mark);
    if (at >= 0) {
      this.#held = new Uint8Array();
      this.#markAt = this.#current.start + this.#offset - text.length + at;
      this.#isPastEnd = true;
      const after = at + this.#mark.length;
      return new Uint8Array(Buffer.concat([text.subarray(0, at), text.subarray(after)]));
    }
    const held = beginningOf(this.#mark, text);
    this.#held = new Uint8Array(text.subarray(text.length - held));
    return new Uint8Array(text.subarray(0, text.length - held));
  }

  #lastHeld(): Uint8Array<ArrayBuffer> | undefined {
    const rest = this.#held;
    this.#held = new Uint8Array();
    return rest.length === 0 ? undefined : rest;
  }

  async #readRaw(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    while (true) {
      const more = await this.#readOn();
      if (more !== undefined) return more;
      // Looked at before we read again: what is read then is all that there will be of this file.
      const next = this.#nextPiece();
      const bytes = await this.#readOn();
      if (bytes !== undefined || next === "none yet") return bytes;
      if (next === "never") {
        this.#isOver = true;
        return undefined;
      }
      this.#file?.close();
      this.#file = undefined;
      this.#pieces.push({ piece: next, start: this.#current.start + this.#offset });
      this.#offset = 0;
    }
  }

  /** When something was written last. */
  get writtenAt(): Date | undefined {
    try {
      const newest = Math.max(...numbersIn(this.#folder));
      return Deno.statSync(this.#path(newest)).mtime ?? undefined;
    } catch {
      return undefined; // Nothing yet.
    }
  }

  /** Removes the files of which nobody needs anything any more, since all is before `place`. */
  release(place: OutputPlace): void {
    while (this.#pieces.length > 1 && this.#pieces[0]!.piece < place.piece) {
      remove(this.#path(this.#pieces.shift()!.piece));
    }
  }

  /**
   * What is read as it comes; the bytes that were handed out count as read. Each piece is good until the
   * next one is asked for.
   */
  stream(watch: FolderWatch): ReadableStream<Uint8Array> {
    let isCancelled = false;
    const pace = new Pace();
    return new ReadableStream({
      pull: async (controller) => {
        while (!isCancelled) {
          if (pace.isQuick) await systemClock.sleep(GATHER_MS);
          const changed = watch.changed((name) => name.startsWith("output.") || name === "eof");
          const bytes = await this.read();
          if (bytes !== undefined) {
            pace.note(bytes.length);
            return controller.enqueue(bytes);
          }
          if (this.#isOver) return controller.close();
          await changed;
        }
      },
      cancel: () => {
        isCancelled = true;
      },
      // Nothing is read before it is asked for: the disk is the buffer.
    }, { highWaterMark: 0 });
  }

  async #readOn(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (this.#file === undefined) {
      const file = await Deno.open(this.#path(this.#current.piece)).catch(ifThere);
      if (file === undefined) return undefined;
      await file.seek(this.#offset, Deno.SeekMode.Start);
      this.#file = file;
    }
    // It has been written a moment ago: getting it takes less than having another thread get it.
    const read = this.#file.readSync(this.#buffer);
    if (read === null) return undefined;
    this.#offset += read;
    const bytes = this.#buffer.subarray(0, read);
    const isFull = read === this.#buffer.length;
    if (isFull && read < BUFFER_BYTES) this.#buffer = new Uint8Array(4 * read);
    return bytes;
  }

  /** Of the file behind the one that is read: whether it is there, or will be. */
  #nextPiece(): number | "none yet" | "never" {
    const { piece } = this.#current;
    if (exists(this.#path(piece + 1))) return piece + 1;
    if (exists(join(this.#folder, "eof"))) return this.#afterGap() ?? "never";
    // A disk so full that it takes no more files leaves numbers out.
    return exists(this.#path(piece)) ? "none yet" : this.#afterGap() ?? "none yet";
  }

  #afterGap(): number | undefined {
    const later = numbersIn(this.#folder).filter((number) => number > this.#current.piece);
    return later.length === 0 ? undefined : Math.min(...later);
  }

  #path(piece: number): string {
    return join(this.#folder, `output.${piece}`);
  }

  [Symbol.dispose](): void {
    this.#file?.close();
    this.#file = undefined;
  }
}

/** Output that comes in small pieces, each so soon after the one before, is gathered for a moment. */
const QUICK_MS = 20;
const GATHER_MS = 5;

/** Whether each piece of output costs more than what is in it. */
class Pace {
  isQuick = false;
  #notedAt = -Infinity;

  note(bytes: number): void {
    const now = systemClock.monotonic();
    this.isQuick = bytes < BUFFER_BYTES / 2 && now < this.#notedAt + QUICK_MS;
    this.#notedAt = now;
  }
}

/** What the keeper of a folder puts behind the output of its command. */
function endMark(folder: string): Uint8Array {
  try {
    const token = Deno.readTextFileSync(join(folder, "end"));
    return new Uint8Array([FIRST_OF_MARK, ...new TextEncoder().encode(token)]);
  } catch {
    return new Uint8Array([FIRST_OF_MARK]);
  }
}

/** Looking at a string is what the runtime does fastest, as long as that fits into a processor's cache. */
const LOOK_BYTES = 64 * 1024;

function hasFirstOfMark(bytes: Uint8Array<ArrayBuffer>): boolean {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const first = String.fromCharCode(FIRST_OF_MARK);
  for (let at = 0; at < buffer.length; at += LOOK_BYTES) {
    if (buffer.toString("latin1", at, at + LOOK_BYTES).includes(first)) return true;
  }
  return false;
}

/** The length of the longest end of `text` that begins `mark`. */
function beginningOf(mark: Uint8Array, text: Uint8Array): number {
  for (let length = Math.min(mark.length - 1, text.length); length > 0; length--) {
    const end = text.subarray(text.length - length);
    if (end.every((byte, index) => byte === mark[index])) return length;
  }
  return 0;
}

/** Nobody wants what is still printed: it is thrown away from the next file on. */
export function discardOutput(folder: string): void {
  remove(join(folder, "keeper"));
  for (const number of numbersIn(folder)) remove(join(folder, `output.${number}`));
}

function numbersIn(folder: string): number[] {
  try {
    return [...Deno.readDirSync(folder)].flatMap(({ name }) => {
      const number = /^output\.(\d+)$/.exec(name)?.[1];
      return number === undefined ? [] : [Number(number)];
    });
  } catch {
    return [];
  }
}

function remove(path: string): void {
  try {
    Deno.removeSync(path);
  } catch {
    // It is gone already, or its folder is.
  }
}

function ifThere(error: unknown): undefined {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
  return undefined;
}
