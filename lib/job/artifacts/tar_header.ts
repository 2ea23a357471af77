/**
 * Headers of a tar archive as it is written: POSIX ustar, with a PAX header before a member whose
 * name, size or time does not fit. Source: POSIX.1-2017 pax.
 */

/** Everything in a tar archive comes in blocks of this many bytes. */
const BLOCK_BYTES = 512;

/** What the fields of a header have room for. */
const MAX_NAME_BYTES = 100;
const MAX_OCTAL_11 = 8 ** 11 - 1;

/**
 * Permission bits that are kept. An archive names no owner, so that whoever unpacks it as root gets
 * files of root's: a setuid bit would then be a gift to all.
 */
const KEPT_MODE = 0o777;

const encoder = new TextEncoder();

/** A member of the archive. */
export interface Member {
  type: "file" | "directory" | "symlink";
  /** As UTF-8 text, without a slash at the end. */
  name: string;
  /** Where a link leads. */
  target?: string;
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
export function headerOf(member: Member): Uint8Array {
  const name = member.type === "directory" ? `${member.name}/` : member.name;
  const target = member.target ?? "";
  const mtime = Math.floor(member.mtime);
  const records: [key: string, value: string][] = [];
  if (!fits(name)) records.push(["path", name]);
  if (!fits(target)) records.push(["linkpath", target]);
  if (member.size > MAX_OCTAL_11) records.push(["size", String(member.size)]);
  if (mtime < 0 || mtime > MAX_OCTAL_11) records.push(["mtime", String(mtime)]);

  const own = block({
    name,
    target,
    type: TYPE_FLAGS[member.type],
    mode: member.mode & KEPT_MODE,
    size: member.size > MAX_OCTAL_11 ? 0 : member.size,
    mtime: Math.min(Math.max(mtime, 0), MAX_OCTAL_11),
  });
  if (records.length === 0) return own;

  const body = encoder.encode(records.map(([key, value]) => paxRecord(key, value)).join(""));
  const pax = block({
    name: "././@PaxHeader",
    target: "",
    type: "x",
    mode: 0o644,
    size: body.length,
    mtime: 0,
  });
  const whole = new Uint8Array(pax.length + body.length + paddingAfter(body.length) + own.length);
  whole.set(pax);
  whole.set(body, pax.length);
  whole.set(own, whole.length - own.length);
  return whole;
}

/** Zeros between the contents of a member and the next header, in bytes. */
export function paddingAfter(size: number): number {
  return (BLOCK_BYTES - size % BLOCK_BYTES) % BLOCK_BYTES;
}

/** ASCII means the same to every reader; anything else goes into a PAX header, which is UTF-8. */
function fits(text: string): boolean {
  return text.length <= MAX_NAME_BYTES && !/\P{ASCII}/u.test(text);
}

function block(
  { name, target, type, mode, size, mtime }: {
    name: string;
    target: string;
    type: string;
    mode: number;
    size: number;
    mtime: number;
  },
): Uint8Array {
  const bytes = new Uint8Array(BLOCK_BYTES);
  const put = (offset: number, text: string) => bytes.set(encoder.encode(text), offset);
  const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, "0")}\0`;
  put(0, shortened(name));
  put(100, octal(mode, 7));
  put(108, octal(0, 7));
  put(116, octal(0, 7));
  put(124, octal(size, 11));
  put(136, octal(mtime, 11));
  put(148, " ".repeat(8));
  put(156, type);
  put(157, shortened(target));
  put(257, "ustar\u000000");
  put(148, `${octal(bytes.reduce((sum, byte) => sum + byte, 0), 6)} `);
  return bytes;
}

/** For readers that do not know PAX: what comes close to the name. */
function shortened(text: string): string {
  return text.replaceAll(/\P{ASCII}/gu, "?").slice(0, MAX_NAME_BYTES);
}

/** `LENGTH KEY=VALUE\n`, where the length counts its own digits. */
function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const restBytes = encoder.encode(rest).length;
  let length = restBytes + 1;
  while (String(length).length + restBytes !== length) length++;
  return `${length}${rest}`;
}
