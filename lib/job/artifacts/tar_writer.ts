/**
 * The members of a tar archive as it is written: POSIX ustar, with a PAX header before a member whose
 * name, size or time does not fit, and behind each header the contents of its file. Source: POSIX.1-2017
 * pax.
 */
import { isUtf8 } from "../../bytes.ts";
import { messageOf } from "../../message.ts";

/** Everything in a tar archive comes in blocks of this many bytes. */
const BLOCK_BYTES = 512;

/** What the fields of a header have room for. */
const MAX_NAME_BYTES = 100;
const MAX_OCTAL_11 = 8 ** 11 - 1;

/**
 * Permission bits that are kept. An archive names no owner, so that a user who unpacks it as root gets
 * files of root's: a setuid bit would then be a gift to all.
 */
const KEPT_MODE = 0o777;

const encoder = new TextEncoder();

/** A member of the archive. */
export interface ArchiveMember {
  type: "file" | "directory" | "symlink";
  /** Without a slash at the end; bytes when it is not UTF-8. */
  name: string | Uint8Array;
  /** Where a link leads; bytes when that is not UTF-8. */
  target?: string | Uint8Array;
  /** In bytes; 0 for what is no file. */
  size: number;
  /** Permission bits. */
  mode: number;
  /** Seconds since 1970. */
  mtime: number;
}

const TYPE_FLAGS = { file: "0", symlink: "2", directory: "5" } as const;

/** What ends an archive. */
export const END_OF_ARCHIVE: Uint8Array = new Uint8Array(2 * BLOCK_BYTES);

/** All that goes before the contents of a member. The same member makes the same bytes. */
export function headerOf(member: ArchiveMember): Uint8Array {
  const name = bytesOf(member.name, member.type === "directory" ? "/" : "");
  const target = bytesOf(member.target ?? "");
  const mtime = Math.floor(member.mtime);
  const records: Uint8Array[] = [];
  // Without it the values of records are UTF-8 (pax, and GNU tar, which writes it so, too).
  if (isLongAndOdd(name) || isLongAndOdd(target)) records.push(paxRecord("hdrcharset", "BINARY"));
  if (!fits(name)) records.push(paxRecord("path", name));
  if (!fits(target)) records.push(paxRecord("linkpath", target));
  if (member.size > MAX_OCTAL_11) records.push(paxRecord("size", String(member.size)));
  if (mtime < 0 || mtime > MAX_OCTAL_11) records.push(paxRecord("mtime", String(mtime)));

  const own = block({
    name,
    target,
    type: TYPE_FLAGS[member.type],
    mode: member.mode & KEPT_MODE,
    size: member.size > MAX_OCTAL_11 ? 0 : member.size,
    mtime: Math.min(Math.max(mtime, 0), MAX_OCTAL_11),
  });
  if (records.length === 0) return own;

  const body = joined(records);
  const pax = block({
    name: bytesOf("././@PaxHeader"),
    target: bytesOf(""),
    type: "x",
    mode: 0o644,
    size: body.length,
    mtime: 0,
  });
  return joined([pax, body, new Uint8Array(paddingAfter(body.length)), own]);
}

/** Zeros between the contents of a member and the next header, in bytes. */
export function paddingAfter(size: number): number {
  return (BLOCK_BYTES - size % BLOCK_BYTES) % BLOCK_BYTES;
}

/**
 * ASCII means the same to every reader; other UTF-8 goes into a PAX header, which says that it is.
 * What is not UTF-8 is what it is, and only goes there when it is too long.
 */
function fits(text: Uint8Array): boolean {
  return text.length <= MAX_NAME_BYTES && (isAscii(text) || !isUtf8(text));
}

function isLongAndOdd(text: Uint8Array): boolean {
  return text.length > MAX_NAME_BYTES && !isUtf8(text);
}

function isAscii(text: Uint8Array): boolean {
  return text.every((byte) => byte < 0x80);
}

function bytesOf(text: string | Uint8Array, end = ""): Uint8Array {
  const bytes = typeof text === "string" ? encoder.encode(text) : text;
  return end === "" ? bytes : joined([bytes, encoder.encode(end)]);
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function block(
  { name, target, type, mode, size, mtime }: {
    name: Uint8Array;
    target: Uint8Array;
    type: string;
    mode: number;
    size: number;
    mtime: number;
  },
): Uint8Array {
  const bytes = COMMON.slice();
  const put = (offset: number, text: string) => {
    for (let at = 0; at < text.length; at++) bytes[offset + at] = text.charCodeAt(at);
  };
  const octal = (offset: number, value: number, digits: number) => {
    for (let at = offset + digits - 1; at >= offset; at--) {
      bytes[at] = 0x30 + value % 8;
      value = Math.floor(value / 8);
    }
  };
  bytes.set(shortened(name), 0);
  octal(100, mode, 7);
  octal(124, size, 11);
  octal(136, mtime, 11);
  put(156, type);
  bytes.set(shortened(target), 157);
  let sum = 0;
  for (let at = 0; at < BLOCK_BYTES; at++) sum += bytes[at]!;
  octal(148, sum, 6);
  put(154, "\0 ");
  return bytes;
}

/** What all headers have in common: user and group 0, and eight spaces in the place of the sum, which count in it. */
const COMMON = new Uint8Array(BLOCK_BYTES);
encoder.encodeInto("0000000\u00000000000\0", COMMON.subarray(108));
encoder.encodeInto(" ".repeat(8), COMMON.subarray(148));
encoder.encodeInto("ustar\u000000", COMMON.subarray(257));

/** For readers that do not know PAX: what comes close to the name. */
function shortened(text: Uint8Array): Uint8Array {
  if (fits(text) || !isUtf8(text)) return text.subarray(0, MAX_NAME_BYTES);
  const characters = new TextDecoder().decode(text).replaceAll(/\P{ASCII}/gu, "?");
  return encoder.encode(characters.slice(0, MAX_NAME_BYTES));
}

/** `LENGTH KEY=VALUE\n`, where the length counts its own digits. */
function paxRecord(key: string, value: string | Uint8Array): Uint8Array {
  const rest = joined([encoder.encode(` ${key}=`), bytesOf(value, "\n")]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length++;
  return joined([encoder.encode(String(length)), rest]);
}

/** What packing needs in addition to the folder. */
export interface PackOptions {
  /**
   * Is told what is not in the archive as it is on disk.
   *
   * @param path Its name in the archive, `artifacts/...`.
   * @param reason Why, as the end of a sentence.
   */
  onSkipped(path: string, reason: string): void;
  /** Where gzip(1) is, if it may compress an archive of many small files on another core. */
  gzip?: string | undefined;
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
async function* zerosFor(
  { name, size }: ArchiveMember,
  { read, reason }: { read: number; reason: string },
  options: PackOptions,
): AsyncGenerator<Uint8Array> {
  if (read < size) {
    const shown = typeof name === "string" ? name : new TextDecoder().decode(name);
    options.onSkipped(shown, endsInZeros(size - read, reason));
  }
  for (let missing = size - read; missing > 0; missing -= PIECE_BYTES) {
    options.signal?.throwIfAborted();
    // Nothing here waits for a disk: without this the agent would do nothing else meanwhile.
    await new Promise((resolve) => setTimeout(resolve, 0));
    yield new Uint8Array(Math.min(missing, PIECE_BYTES));
  }
  yield new Uint8Array(paddingAfter(size));
}

/** What is said of a file that lacks so many bytes. */
export function endsInZeros(bytes: number, reason: string): string {
  return `its last ${bytes} bytes are zeros: ${reason}`;
}

/** Why something special is not in the archive. */
export function unpackable(kind: "FIFO" | "socket" | "device"): string {
  return `it is a ${kind}`;
}
