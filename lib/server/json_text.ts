/** JSON text made of bytes, so that a large log goes out without becoming a string on the way. */

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const FIRST_PRINTABLE = 0x20;
const HEX = new TextEncoder().encode("0123456789abcdef");
const UNICODE_ESCAPE = new TextEncoder().encode("\\u00");
/** A control character becomes `\u00xx`. */
const LONGEST_ESCAPE = 6;

const SHORT_ESCAPES = new Map([
  [QUOTE, QUOTE],
  [BACKSLASH, BACKSLASH],
  [0x0a, 0x6e],
  [0x0d, 0x72],
  [0x09, 0x74],
]);

/** By byte: 0 where it stands for itself, else how many bytes its escape has. */
const ESCAPE_LENGTHS = Uint8Array.from({ length: 256 }, (_, byte) => {
  if (SHORT_ESCAPES.has(byte)) return 2;
  return byte < FIRST_PRINTABLE ? LONGEST_ESCAPE : 0;
});

/**
 * The JSON object `head` with one more member: `name`, whose value is the text in `utf8`.
 *
 * @param head an object with at least one member.
 * @param utf8 valid UTF-8.
 */
export function jsonWithText(
  head: Record<string, unknown>,
  name: string,
  utf8: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const encoder = new TextEncoder();
  const before = encoder.encode(`${JSON.stringify(head).slice(0, -1)},${JSON.stringify(name)}:"`);
  const after = encoder.encode(`"}`);
  let length = before.length + utf8.length + after.length;
  for (let i = 0; i < utf8.length; i++) {
    const escape = ESCAPE_LENGTHS[utf8[i] ?? 0] ?? 0;
    if (escape > 0) length += escape - 1;
  }
  const json = new Uint8Array(length);
  json.set(before);
  escapeInto(json, before.length, utf8);
  json.set(after, length - after.length);
  return json;
}

function escapeInto(json: Uint8Array, start: number, utf8: Uint8Array): void {
  let at = start;
  let plain = 0; // Where what has not been copied yet begins.
  for (let i = 0; i < utf8.length; i++) {
    const byte = utf8[i] ?? 0;
    const escape = ESCAPE_LENGTHS[byte] ?? 0;
    if (escape === 0) continue;
    json.set(utf8.subarray(plain, i), at);
    at += i - plain;
    plain = i + 1;
    if (escape === LONGEST_ESCAPE) {
      json.set(UNICODE_ESCAPE, at);
      json[at + 4] = HEX[byte >> 4] ?? 0;
      json[at + 5] = HEX[byte & 0xf] ?? 0;
    } else {
      json[at] = BACKSLASH;
      json[at + 1] = SHORT_ESCAPES.get(byte) ?? byte;
    }
    at += escape;
  }
  json.set(utf8.subarray(plain), at);
}
