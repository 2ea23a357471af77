/**
 * What a kept command prints, read from the files in which its keeper puts it: `output.0`,
 * `output.1` and so on, each of at most 32 MiB. A file is whole when the next one is there.
 */
import { join } from "node:path";
import type { FolderWatch } from "./folder_watch.ts";

/** A place in what a command has printed. */
export interface OutputPlace {
  /** Number of the file. */
  piece: number;
  /** Bytes before the place in this file. */
  offset: number;
  /** Bytes before the place in all of them. */
  total: number;
}

/** Where reading begins. */
export const OUTPUT_START: OutputPlace = { piece: 0, offset: 0, total: 0 };

const BUFFER_BYTES = 256 * 1024;

/** Reads the output of one kept command. */
export class KeptOutput implements Disposable {
  readonly #folder: string;
  /** Files that are there as far as we know, the one that is read last; `start` is in bytes of all. */
  #pieces: { piece: number; start: number }[];
  #offset: number;
  #file: Deno.FsFile | undefined;
  #buffer = new Uint8Array(BUFFER_BYTES);
  #isOver = false;

  constructor(folder: string, from: OutputPlace) {
    this.#folder = folder;
    this.#pieces = [{ piece: from.piece, start: from.total - from.offset }];
    this.#offset = from.offset;
  }

  /** Everything has been read, and nothing more will come. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** The place `back` bytes before what is read next, no further back than reading began. */
  place(back = 0): OutputPlace {
    const total = this.#current.start + this.#offset - back;
    const { piece, start } = this.#pieces.findLast(({ start }) => start <= total) ??
      this.#pieces[0]!;
    return { piece, offset: total - start, total };
  }

  get #current(): { piece: number; start: number } {
    return this.#pieces.at(-1)!;
  }

  /** The bytes that come next; undefined when there are none now. */
  async read(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    while (true) {
      // Looked at before we read: what is read afterwards is then all that there is of it.
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

  /** Removes the files of which nobody needs anything any more, since all is before `place`. */
  release(place: OutputPlace): void {
    while (this.#pieces.length > 1 && this.#pieces[0]!.piece < place.piece) {
      remove(this.#path(this.#pieces.shift()!.piece));
    }
  }

  /** What is read as it comes; the bytes that were handed out count as read. */
  stream(watch: FolderWatch): ReadableStream<Uint8Array> {
    let isCancelled = false;
    return new ReadableStream({
      pull: async (controller) => {
        while (!isCancelled) {
          const changed = watch.changed((name) => name.startsWith("output.") || name === "eof");
          const bytes = await this.read();
          if (bytes !== undefined) return controller.enqueue(bytes);
          if (this.#isOver) return controller.close();
          await changed;
        }
      },
      cancel: () => {
        isCancelled = true;
      },
      // Nothing is read before somebody wants it: the disk is the buffer.
    }, { highWaterMark: 0 });
  }

  async #readOn(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (this.#file === undefined) {
      const file = await Deno.open(this.#path(this.#current.piece)).catch(ifThere);
      if (file === undefined) return undefined;
      await file.seek(this.#offset, Deno.SeekMode.Start);
      this.#file = file;
    }
    const read = await this.#file.read(this.#buffer);
    if (read === null) return undefined;
    this.#offset += read;
    return this.#buffer.slice(0, read);
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

/** Nobody wants what is still printed: it is thrown away from the next file on. */
export function discardOutput(folder: string): void {
  remove(join(folder, "wanted"));
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

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

function ifThere(error: unknown): undefined {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
  return undefined;
}
