/**
 * One 512-byte tar header, read strictly: POSIX ustar, GNU and v7.
 *
 * Sources: POSIX.1-2017 pax ("ustar Interchange Format"), the GNU tar manual ("Basic Tar Format").
 */
import { quoteName, Refusal } from "./refusal.ts";

/** Everything in a tar archive comes in blocks of this many bytes. */
export const BLOCK_BYTES = 512;

const FIELDS = {
  name: [0, 100],
  mode: [100, 8],
  size: [124, 12],
  mtime: [136, 12],
  checksum: [148, 8],
  type: [156, 1],
  target: [157, 100],
  magic: [257, 8],
  prefix: [345, 155],
} as const satisfies Record<string, readonly [offset: number, length: number]>;

const POSIX_MAGIC = "ustar\u000000";
const GNU_MAGIC = "ustar  \0";
const V7_MAGIC = "\0".repeat(8);

/** The fields that matter here. Names are bytes: an extension may replace one that was cut in a character. */
export interface TarHeader {
  name: Uint8Array;
  /** Where a link leads. */
  target: Uint8Array;
  /** The type flag as a character; `0` for NUL, which older tools write for a regular file. */
  type: string;
  /** In bytes; undefined when the field holds nothing readable. */
  size: number | undefined;
  mode: number;
  /** Seconds since 1970; undefined when the field holds nothing readable. */
  mtime: number | undefined;
}

/** Tells whether a block is one of the two that end an archive, or padding. */
export function isZero(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) {
    if (bytes[i] !== 0) return false;
  }
  return true;
}

/**
 * Reads a header block that is not zero.
 *
 * @throws {Refusal} when it is not a header, or one that readers could disagree on.
 */
export function readHeader(block: Uint8Array): TarHeader {
  const sum = readOctal(field(block, "checksum"));
  if (sum === undefined || sum !== checksum(block)) {
    throw new Refusal("archive", "a header with a wrong checksum: not a tar archive, or damaged");
  }
  const magic = String.fromCharCode(...field(block, "magic"));
  if (magic !== POSIX_MAGIC && magic !== GNU_MAGIC && magic !== V7_MAGIC) {
    throw new Refusal("archive", "a header of an unknown tar format");
  }
  const typeByte = block[FIELDS.type[0]] ?? 0;
  let name = upToNul(field(block, "name"), "name");
  if (magic === POSIX_MAGIC) {
    const prefix = upToNul(field(block, "prefix"), "name prefix");
    if (prefix.length > 0) name = joined(prefix, name);
  }
  return {
    name,
    target: upToNul(field(block, "target"), "link target"),
    type: typeByte === 0 ? "0" : String.fromCharCode(typeByte),
    size: readNumber(field(block, "size")),
    mode: readOctal(field(block, "mode")) ?? 0,
    mtime: readNumber(field(block, "mtime")),
  };
}

function field(block: Uint8Array, name: keyof typeof FIELDS): Uint8Array {
  const [offset, length] = FIELDS[name];
  return block.subarray(offset, offset + length);
}

/** The sum of all bytes, the checksum's own counted as spaces. */
function checksum(block: Uint8Array): number {
  const [offset, length] = FIELDS.checksum;
  let sum = 0;
  for (let i = 0; i < block.length; i++) {
    sum += i >= offset && i < offset + length ? 0x20 : block[i] ?? 0;
  }
  return sum;
}

/**
 * A text field. Something behind its NUL is refused: one reader would stop at the NUL where
 * another goes on, and they would see two different names.
 */
function upToNul(bytes: Uint8Array, what: string): Uint8Array {
  const end = bytes.indexOf(0);
  if (end === -1) return bytes;
  if (!isZero(bytes.subarray(end))) {
    throw new Refusal("archive", `a header whose ${what} has bytes after a NUL`);
  }
  return bytes.subarray(0, end);
}

function joined(prefix: Uint8Array, name: Uint8Array): Uint8Array {
  const whole = new Uint8Array(prefix.length + 1 + name.length);
  whole.set(prefix);
  whole[prefix.length] = 0x2f;
  whole.set(name, prefix.length + 1);
  return whole;
}

/** Octal digits between spaces and NULs; undefined for anything else, also for no digits. */
function readOctal(bytes: Uint8Array): number | undefined {
  const digits = /^ *([0-7]+)[ \0]*$/.exec(String.fromCharCode(...bytes))?.[1];
  return digits === undefined ? undefined : parseInt(digits, 8);
}

/** Octal, or GNU's base 256 (first bit set) where it is not negative and exact as a number. */
function readNumber(bytes: Uint8Array): number | undefined {
  if (bytes[0] !== 0x80) return readOctal(bytes);
  const value = bytes.subarray(1).reduce((sum, byte) => sum * 256 + byte, 0);
  return Number.isSafeInteger(value) ? value : undefined;
}

// PAX extended headers: records `LENGTH KEY=VALUE\n` that stand before a member and overrule what
// its own header says. Source: POSIX.1-2017 pax, "pax Extended Header".

const SPACE = 0x20;
const EQUALS = 0x3d;
const NEWLINE = 0x0a;

/** Digits in the longest record length that is looked at; a header is never as long as that. */
const MAX_LENGTH_DIGITS = 9;

/**
 * Reads all records. Values stay bytes: those that we do not use (extended attributes) need not
 * be text.
 *
 * @throws {Refusal} for a malformed record, and for a key that comes twice, since readers differ
 * in which of the two they believe.
 */
export function readPaxRecords(bytes: Uint8Array): Map<string, Uint8Array> {
  const records = new Map<string, Uint8Array>();
  let start = 0;
  while (start < bytes.length) {
    const space = bytes.indexOf(SPACE, start);
    const length = readLength(bytes.subarray(start, space === -1 ? bytes.length : space));
    const end = start + length;
    if (space === -1 || end > bytes.length || end < space + 2 || bytes[end - 1] !== NEWLINE) {
      throw new Refusal("archive", "a PAX header with a malformed record");
    }
    const record = bytes.subarray(space + 1, end - 1);
    const equals = record.indexOf(EQUALS);
    const key = equals > 0 ? decodeUtf8(record.subarray(0, equals)) : undefined;
    if (key === undefined) throw new Refusal("archive", "a PAX header with a record without key");
    if (records.has(key)) {
      throw new Refusal("archive", `a PAX header that says ${quoteName(key)} twice`);
    }
    records.set(key, record.subarray(equals + 1));
    start = end;
  }
  return records;
}

function readLength(digits: Uint8Array): number {
  const text = String.fromCharCode(...digits.subarray(0, MAX_LENGTH_DIGITS + 1));
  return /^[1-9][0-9]*$/.test(text) && text.length <= MAX_LENGTH_DIGITS ? Number(text) : NaN;
}

/** `ignoreBOM` keeps a byte order mark: it is part of a name, not of an encoding. */
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text that these bytes are, exactly; undefined when they are not UTF-8. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes);
  } catch {
    return undefined;
  }
}
