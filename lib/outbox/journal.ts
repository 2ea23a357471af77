/**
 * A file of entries that is only ever appended to. Each line is the CRC-32 of what follows in eight
 * hexadecimal digits, a space, and one JSON value.
 *
 * A process may die in the middle of a line, a disk may fill up or lose a block. What can be read
 * is used: a torn last line is cut off, a damaged line in the middle is passed over and counted.
 */
import process from "node:process";

/** What was read back from a record. */
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

/** Reads the bytes of a record. Never throws: whatever is in them, something can be said of it. */
export function readRecord(bytes: Uint8Array): Reading {
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

/**
 * Called around each append, with how many appends this process has made. Only tests set the
 * variable: the process kills itself there, as a power cut would.
 */
function crashPoint(): (moment: "before" | "after") => void {
  const wanted = Deno.env.get("TESTFLINGER_AGENT_CRASH_AT");
  if (wanted === undefined) return () => {};
  let count = 0;
  return (moment) => {
    if (moment === "before") count++;
    if (wanted === `${moment}:${count}`) Deno.kill(Deno.pid, "SIGKILL");
  };
}
const crashMaybe = crashPoint();

/** A record that can be appended to. */
export class JournalFile {
  readonly #path: string;
  #file: Deno.FsFile | undefined;
  #length: number;

  private constructor(path: string, file: Deno.FsFile, length: number) {
    this.#path = path;
    this.#file = file;
    this.#length = length;
  }

  /**
   * Opens the record at `path`, made anew where it does not exist, and cuts off a torn last line.
   *
   * @throws {Error} what the file system says.
   */
  static open(path: string): { file: JournalFile; reading: Reading } {
    const file = openOwnFile(path);
    try {
      const reading = readRecord(Deno.readFileSync(path));
      file.truncateSync(reading.wholeBytes);
      file.seekSync(0, Deno.SeekMode.End);
      return { file: new JournalFile(path, file, reading.wholeBytes), reading };
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /**
   * Appends one value. It is in the hands of the kernel when this returns, and on the disk after
   * `sync()`: a killed process loses nothing, a power cut what was not synced.
   *
   * @throws {Error} what the file system says (a full disk); the record is then as it was.
   */
  append(value: unknown): void {
    crashMaybe("before");
    const line = lineOf(value);
    const file = this.#opened();
    try {
      for (let written = 0; written < line.length;) {
        written += file.writeSync(line.subarray(written));
      }
    } catch (error) {
      file.truncateSync(this.#length);
      file.seekSync(this.#length, Deno.SeekMode.Start);
      throw error;
    }
    this.#length += line.length;
    crashMaybe("after");
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
