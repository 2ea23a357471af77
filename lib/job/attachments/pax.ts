/**
 * PAX extended headers: records `LENGTH KEY=VALUE\n` that stand before a member and overrule what
 * its own header says. Source: POSIX.1-2017 pax, "pax Extended Header".
 */
import { quoteName, Refusal } from "./refusal.ts";
import { decodeUtf8 } from "./decode_utf8.ts";

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
