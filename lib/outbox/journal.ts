/**
 * A file of entries that is only ever appended to. Each line is the CRC-32 of what follows in eight
 * hexadecimal digits, a space, and one JSON value.
 *
 * A process may die in the middle of a line, a disk may fill up or lose a block. What can be read
 * is used: a torn last line is cut off, a damaged line in the middle is passed over and counted.
 */
import { writeAllSync } from "../bytes.ts";

/** What was read back from a journal. */
export interface Reading {
  /** The values of the lines that are whole, in order. */
  values: unknown[];
  /** How many lines were damaged, and not just torn off by the end of a process. */
  damaged: number;
  /** Length in bytes of what ends with a whole line; what follows is torn. */
  wholeBytes: number;
}

const encoder = new TextEncoder();
const NEWLINE = 0x0a;
const CHECKSUM_LENGTH = 8;

function lineOf(value: unknown): Uint8Array {
  const json = JSON.stringify(value);
  return encoder.encode(`${checksum(encoder.encode(json))} ${json}\n`);
}

function checksum(bytes: Uint8Array): string {
  // Not imported: it takes its time to load, and an agent without a job needs it not.
  return process.getBuiltinModule("node:zlib").crc32(bytes).toString(16).padStart(
    CHECKSUM_LENGTH,
    "0",
  );
}

function valueOf(line: Uint8Array): { value: unknown } | undefined {
  const decoder = new TextDecoder();
  const json = line.subarray(CHECKSUM_LENGTH + 1);
  if (decoder.decode(line.subarray(0, CHECKSUM_LENGTH)) !== checksum(json)) return undefined;
  try {
    return { value: JSON.parse(decoder.decode(json)) };
  } catch {
    return undefined;
  }
}

/** Reads the bytes of a journal. Never throws: whatever is in them, something can be said of it. */
export function readJournal(bytes: Uint8Array): Reading {
  const values: unknown[] = [];
  let damaged = 0;
  let start = 0;
  while (true) {
    const end = bytes.indexOf(NEWLINE, start);
    if (end === -1) {
      // A file system may have kept the length of what a power cut took, and nothing but zeros of it.
      if (bytes.indexOf(0, start) !== -1) damaged++;
      break;
    }
    const read = valueOf(bytes.subarray(start, end));
    if (read === undefined) damaged++;
    else values.push(read.value);
    start = end + 1;
  }
  return { values, damaged, wholeBytes: start };
}

/** Writes a line over what is there; returns how many bytes it has, 0 where the disk does not take it. */
function writeAt(file: Deno.FsFile, place: number, line: Uint8Array): number {
  try {
    file.seekSync(place, Deno.SeekMode.Start);
    writeAllSync(file, line);
    return line.length;
  } catch {
    return 0;
  }
}

/** Told around each append; what it throws, the append does. */
export type JournalHook = (moment: "before" | "after") => void;

/** A journal that can be appended to. */
export class JournalFile {
  readonly #path: string;
  readonly #onAppend: JournalHook | undefined;
  #file: Deno.FsFile | undefined;
  #length: number;

  private constructor(
    path: string,
    { file, length, onAppend }: {
      file: Deno.FsFile;
      length: number;
      onAppend: JournalHook | undefined;
    },
  ) {
    this.#path = path;
    this.#file = file;
    this.#length = length;
    this.#onAppend = onAppend;
  }

  /**
   * Opens the journal at `path`, created if it does not exist, and cuts off a torn last line.
   *
   * @param options.damage the value that takes the place of what is damaged at the end: cutting it off alone
   * would leave no trace of it to the next process.
   * @throws {Error} what the file system says.
   */
  static open(
    path: string,
    { onAppend, damage }: { onAppend?: JournalHook | undefined; damage?: unknown } = {},
  ): { file: JournalFile; reading: Reading } {
    const file = openOwnFile(path);
    try {
      const bytes = Deno.readFileSync(path);
      const reading = readJournal(bytes);
      let length = reading.wholeBytes;
      const isDamagedAtEnd = reading.damaged > 0 && length < bytes.length;
      if (damage !== undefined && isDamagedAtEnd) {
        const written = writeAt(file, length, lineOf(damage));
        if (written > 0) reading.values.push(damage);
        length += written;
      }
      file.truncateSync(length);
      file.seekSync(0, Deno.SeekMode.End);
      return { file: new JournalFile(path, { file, length, onAppend }), reading };
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /**
   * Appends one value. It is in the hands of the kernel when this returns, and on the disk after
   * `sync()`: a killed process loses nothing, a power cut what was not synced.
   *
   * @throws {Error} what the file system says (a full disk); the journal is then as it was.
   */
  append(value: unknown): void {
    this.#onAppend?.("before");
    const line = lineOf(value);
    const file = this.#opened();
    try {
      writeAllSync(file, line);
    } catch (error) {
      file.truncateSync(this.#length);
      file.seekSync(this.#length, Deno.SeekMode.Start);
      throw error;
    }
    this.#length += line.length;
    this.#onAppend?.("after");
  }

  /** Bytes so far. */
  get length(): number {
    return this.#length;
  }

  /** The values of all lines that are whole. */
  read(): unknown[] {
    return readJournal(Deno.readFileSync(this.#path)).values;
  }

  /**
   * Replaces all values by one, atomically.
   *
   * @throws {Error} what the file system says; the journal is then as it was.
   */
  replaceAll(value: unknown): void {
    const line = lineOf(value);
    const draft = `${this.#path}.new`;
    {
      using file = Deno.openSync(draft, { write: true, create: true, truncate: true, mode: 0o600 });
      writeAllSync(file, line);
      file.syncDataSync();
    }
    Deno.renameSync(draft, this.#path);
    this.close();
    this.#length = line.length;
  }

  #opened(): Deno.FsFile {
    if (this.#file !== undefined) return this.#file;
    const file = openOwnFile(this.#path);
    file.seekSync(this.#length, Deno.SeekMode.Start);
    this.#file = file;
    return file;
  }

  /** Resolves when everything appended so far is on the disk. */
  async sync(): Promise<void> {
    await this.#opened().syncData();
  }

  /** Lets go of the file; it is opened again when something is appended. */
  close(): void {
    this.#file?.close();
    this.#file = undefined;
  }
}

/**
 * Opens a file of an outbox for reading and writing, or makes it.
 *
 * @throws {Error} what the file system says, or that something else is in its place: what nobody
 * expects there, a FIFO above all, would make the agent wait for ever.
 */
export function openOwnFile(path: string): Deno.FsFile {
  if (existsOtherwise(path)) throw new Error(`${path} is not a regular file`);
  return Deno.openSync(path, { read: true, write: true, create: true, mode: 0o600 });
}

function existsOtherwise(path: string): boolean {
  try {
    return !Deno.lstatSync(path).isFile;
  } catch {
    return false;
  }
}
