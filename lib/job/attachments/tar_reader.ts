import { quoteName, Refusal, refuseMember } from "./refusal.ts";
import {
  BLOCK_BYTES,
  decodeUtf8,
  isZero,
  readHeader,
  readPaxRecords,
  type TarHeader,
} from "./tar_header.ts";

/** What a member is, of the kinds that attachments may have. */
type MemberType = "file" | "directory" | "symlink" | "hardlink";

/** One member as the archive states it; nothing about it has been found harmless yet. */
export interface Member {
  type: MemberType;
  /** Without a `/` at its end. */
  name: string;
  /** Where a link leads; empty for what is no link. */
  target: string;
  /** In bytes; 0 for what is no file. */
  size: number;
  /** Permission bits as stored. */
  mode: number;
  /** Seconds since 1970. */
  mtime: number | undefined;
}

/** A name longer than this cannot be opened on Linux (PATH_MAX with its NUL). */
const MAX_NAME_BYTES = 4095;

/** An extension header is held in memory. Real ones have some hundred bytes; extended attributes may have more. */
const MAX_EXTENSION_BYTES = 1024 * 1024;

/** Sizes below this fit in a header's own size field (11 octal digits). */
const OCTAL_SIZE_END = 8 ** 11;

/** More headers than this that belong to no member are no archive that a tool has made. */
const MAX_GLOBAL_HEADERS = 100;

const REFUSED_TYPES: Record<string, string> = {
  "3": "is a character device",
  "4": "is a block device",
  "6": "is a FIFO",
  "7": "is a contiguous file, which is not supported",
  "D": "is a GNU directory dump, which is not supported",
  "M": "continues a file of another volume, which is not supported",
  "N": "is an old GNU long name, which is not supported",
  "S": "is a GNU sparse file, which is not supported",
  "V": "is a GNU volume label, which is not supported",
  "X": "is a Solaris extended header, which is not supported",
};

/** Keys that say that the data of a file is not what is in the archive. */
const REFUSED_PAX_KEYS = /^(GNU\.|SUN\.holesdata$|SCHILY\.(realsize|filetype)$)/;

/** What a global header may not set: one name, size or target for all members makes no sense. */
const MEMBER_PAX_KEYS = ["path", "linkpath", "size"];

/** `hdrcharset` says how names are encoded. BINARY is checked like UTF-8. */
const KNOWN_CHARSETS = ["ISO-IR 10646 2000 UTF-8", "BINARY"];

/** What extension headers said about the member that follows. */
interface Extension {
  pax?: Map<string, Uint8Array>;
  longName?: Uint8Array;
  longTarget?: Uint8Array;
}

/**
 * Reads a tar archive member by member, and refuses whatever two readers could understand
 * differently.
 */
export class TarReader {
  readonly #source: ByteReader;
  #bodyLeft = 0;
  #padding = 0;
  #globals = 0;

  constructor(source: ByteReader) {
    this.#source = source;
  }

  /**
   * The next member; undefined after the last one, when everything behind it has been checked.
   * The body of the one before must have been read.
   *
   * @throws {Refusal}
   */
  async next(): Promise<Member | undefined> {
    await this.#block(this.#padding);
    this.#padding = 0;
    const extension: Extension = {};
    while (true) {
      const block = await this.#block(BLOCK_BYTES);
      if (isZero(block)) {
        await this.#checkEnd(extension);
        return undefined;
      }
      const header = readHeader(block);
      if (!await this.#isExtension(header, extension)) return this.#member(header, extension);
    }
  }

  /** The bytes of the member that next() has returned. Each piece is valid until the next one. */
  async *body(): AsyncGenerator<Uint8Array> {
    while (this.#bodyLeft > 0) {
      const piece = await this.#source.some(this.#bodyLeft);
      if (piece === undefined) throw cutOff();
      this.#bodyLeft -= piece.length;
      yield piece;
    }
  }

  async #block(length: number): Promise<Uint8Array> {
    const bytes = await this.#source.exactly(length);
    if (bytes.length < length) throw cutOff();
    return bytes;
  }

  /** An archive ends with two zero blocks; tools then fill up to a record with more zeros. */
  async #checkEnd(extension: Extension): Promise<void> {
    if (Object.keys(extension).length > 0) {
      throw new Refusal("archive", "an extended header without a member after it");
    }
    if (!isZero(await this.#block(BLOCK_BYTES))) {
      throw new Refusal("archive", "a single zero block between members");
    }
    let rest = 0;
    for (let piece; (piece = await this.#source.some(Infinity)) !== undefined;) {
      if (!isZero(piece)) throw new Refusal("archive", "bytes after the end of the archive");
      rest += piece.length;
    }
    if (rest % BLOCK_BYTES !== 0) throw cutOff();
  }

  /** Takes in an extension header; false when `header` is a member's own. */
  async #isExtension(header: TarHeader, extension: Extension): Promise<boolean> {
    switch (header.type) {
      case "x":
        if (Object.keys(extension).length > 0) throw contradiction();
        extension.pax = checkedPax(await this.#extensionBody(header));
        return true;
      case "g": {
        if (Object.keys(extension).length > 0) throw contradiction();
        if (++this.#globals > MAX_GLOBAL_HEADERS) {
          throw new Refusal("archive", "too many global PAX headers");
        }
        const pax = checkedPax(await this.#extensionBody(header));
        for (const key of MEMBER_PAX_KEYS) {
          if (pax.has(key)) throw new Refusal("archive", `a global PAX header that sets "${key}"`);
        }
        return true;
      }
      case "L":
        if (extension.pax || extension.longName) throw contradiction();
        extension.longName = withoutTerminator(await this.#extensionBody(header));
        return true;
      case "K":
        if (extension.pax || extension.longTarget) throw contradiction();
        extension.longTarget = withoutTerminator(await this.#extensionBody(header));
        return true;
      default:
        return false;
    }
  }

  async #extensionBody(header: TarHeader): Promise<Uint8Array> {
    const size = header.size;
    if (size === undefined) {
      throw new Refusal("archive", "an extended header without a readable size");
    }
    if (size > MAX_EXTENSION_BYTES) {
      throw new Refusal(
        "archive",
        `an extended header of ${size} bytes (at most ${MAX_EXTENSION_BYTES} are read)`,
      );
    }
    const body = await this.#block(size);
    await this.#block(paddingOf(size));
    return body;
  }

  #member(header: TarHeader, extension: Extension): Member {
    const stored = extension.longName ?? extension.pax?.get("path") ?? header.name;
    const name = nameText(stored, "a member whose name");
    const type = memberType(header.type, name);
    const target = type === "symlink" || type === "hardlink"
      ? nameText(
        extension.longTarget ?? extension.pax?.get("linkpath") ?? header.target,
        `${quoteName(name)}: the link target`,
      )
      : "";
    const size = memberSize(name, header.size, extension.pax?.get("size"));
    if (type !== "file" && size !== 0) {
      throw refuseMember(name, `is a ${type} with ${size} bytes of data`);
    }
    this.#bodyLeft = size;
    this.#padding = paddingOf(size);
    const mtime = Number(decodeUtf8(extension.pax?.get("mtime") ?? new Uint8Array()) || NaN);
    return {
      type,
      name: name.replace(/\/+$/, (slashes) => slashes.length === name.length ? "/" : ""),
      target,
      size,
      mode: header.mode,
      mtime: Number.isFinite(mtime) ? mtime : header.mtime,
    };
  }
}

function memberType(flag: string, name: string): MemberType {
  switch (flag) {
    case "0":
      // Before there was a type for directories, a slash at the end of the name marked them.
      return name.endsWith("/") ? "directory" : "file";
    case "1":
      return "hardlink";
    case "2":
      return "symlink";
    case "5":
      return "directory";
    default:
      throw refuseMember(
        name,
        REFUSED_TYPES[flag] ?? `is of an unknown type (${quoteName(flag)})`,
      );
  }
}

/**
 * The size that holds. One in a PAX header counts, but it may only say something else than the
 * member's own header where that has no room for it: a reader that ignores PAX would take a
 * file's contents for headers.
 */
function memberSize(
  name: string,
  own: number | undefined,
  pax: Uint8Array | undefined,
): number {
  if (own === undefined) throw refuseMember(name, "has no readable size");
  if (pax === undefined) return own;
  const text = decodeUtf8(pax) ?? "";
  const size = /^[0-9]{1,16}$/.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(size)) {
    throw refuseMember(name, "has an unreadable size in its PAX header");
  }
  if (size !== own && size < OCTAL_SIZE_END) {
    throw refuseMember(name, `has two sizes: ${size} and ${own} bytes`);
  }
  return size;
}

function checkedPax(body: Uint8Array): Map<string, Uint8Array> {
  const records = readPaxRecords(body);
  for (const key of records.keys()) {
    if (REFUSED_PAX_KEYS.test(key)) {
      throw new Refusal(
        "archive",
        `a PAX header with ${quoteName(key)} (sparse files and the like are not supported)`,
      );
    }
  }
  const charset = records.get("hdrcharset");
  if (charset !== undefined && !KNOWN_CHARSETS.includes(decodeUtf8(charset) ?? "")) {
    throw new Refusal("archive", "a PAX header in an unknown character set");
  }
  return records;
}

function nameText(bytes: Uint8Array, what: string): string {
  if (bytes.length === 0) throw new Refusal("archive", `${what} is empty`);
  if (bytes.length > MAX_NAME_BYTES) {
    throw new Refusal("archive", `${what} has ${bytes.length} bytes (at most ${MAX_NAME_BYTES})`);
  }
  if (bytes.includes(0)) throw new Refusal("archive", `${what} has a NUL in it`);
  const text = decodeUtf8(bytes);
  if (text === undefined) throw new Refusal("archive", `${what} is not UTF-8`);
  return text;
}

/** GNU long names end with one NUL that belongs to the size. */
function withoutTerminator(bytes: Uint8Array): Uint8Array {
  return bytes.at(-1) === 0 ? bytes.subarray(0, -1) : bytes;
}

function paddingOf(size: number): number {
  return (BLOCK_BYTES - size % BLOCK_BYTES) % BLOCK_BYTES;
}

function cutOff(): Refusal {
  return new Refusal("archive", "the archive is cut off: it ends before its end mark");
}

function contradiction(): Refusal {
  return new Refusal("archive", "two extended headers for the same member");
}

/** Takes a stream of chunks of any size apart into pieces of the size that is asked for. */
export class ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);
  #position = 0;

  constructor(chunks: AsyncIterator<Uint8Array>) {
    this.#chunks = chunks;
  }

  /** Bytes handed out so far. */
  get position(): number {
    return this.#position;
  }

  /** The next 1 to `most` bytes, valid until the next call; undefined at the end. */
  async some(most: number): Promise<Uint8Array | undefined> {
    while (this.#chunk.length === 0) {
      const next = await this.#chunks.next();
      if (next.done) return undefined;
      this.#chunk = next.value;
    }
    const piece = this.#chunk.subarray(0, most);
    this.#chunk = this.#chunk.subarray(piece.length);
    this.#position += piece.length;
    return piece;
  }

  /** Exactly `length` bytes, or fewer when the stream ends before. */
  async exactly(length: number): Promise<Uint8Array> {
    const whole = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      const piece = await this.some(length - filled);
      if (piece === undefined) return whole.subarray(0, filled);
      whole.set(piece, filled);
      filled += piece.length;
    }
    return whole;
  }
}
