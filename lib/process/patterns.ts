import { Buffer } from "node:buffer";
import process from "node:process";

/** A text to be masked. */
export interface Pattern {
  bytes: Uint8Array;
  /** What is put in its place. */
  mask: Uint8Array;
}

/**
 * Encoded forms that are shorter than this are left alone: they would turn up by chance. Six base64
 * characters (a value of 5 bytes has as many in each alignment) are one of 69 billion.
 */
const FEWEST_ENCODED_CHARACTERS = 6;

/** Shorter values would be masked all over a log, and make it unreadable. */
export const FEWEST_MASKED_CHARACTERS = 4;

/** Whether a secret is long enough to be masked; a newline at its end does not count. */
export function isMaskable(value: string): boolean {
  return [...withoutLastNewlines(value)].length >= FEWEST_MASKED_CHARACTERS;
}

/** Not escaped in URLs by anyone. */
const PLAIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
/** What the usual encoders leave as it is, and whether they write a space as `+`. */
const URL_ENCODERS: readonly { plain: string; plus: boolean }[] = [
  // encodeURIComponent of JavaScript
  { plain: `${PLAIN}~!'()*`, plus: false },
  // RFC 3986; curl --data-urlencode, jq @uri, Python's quote(safe="")
  { plain: `${PLAIN}~`, plus: false },
  // Python's quote()
  { plain: `${PLAIN}~/`, plus: false },
  // application/x-www-form-urlencoded as in WHATWG's URL
  { plain: `${PLAIN}*`, plus: true },
  // Python's quote_plus() and urlencode()
  { plain: `${PLAIN}~`, plus: true },
];

/**
 * Everything that gives a secret away, each once, literal forms before encoded ones and those of
 * earlier values before those of later ones: where two patterns are the same text, the first counts.
 *
 * The lines of a value of several lines are no patterns of their own: `-----BEGIN PRIVATE KEY-----`
 * or an empty line tells nothing. The value is masked where it is printed as a whole, as it is, with
 * CR LF, in one line with spaces (an unquoted `$KEY` in a shell), or with `\n` (in JSON).
 *
 * @param values of secrets; those that are too short are ignored, see {@linkcode isMaskable}.
 */
export function needlesOf(values: Iterable<string>): Pattern[] {
  const secrets = [...new Set(values)].filter(isMaskable);
  const found = new Map<string, string>();
  for (const forms of [literalForms, encodedForms]) {
    for (const value of secrets) {
      for (const form of forms(value.toWellFormed())) {
        if (form !== "" && !found.has(form)) found.set(form, value);
      }
    }
  }
  const encoder = new TextEncoder();
  const masks = new Map(secrets.map((value) => [value, encoder.encode(maskOf(value))]));
  return [...found].map(([form, value]) => ({
    bytes: encoder.encode(form),
    // Each value has a mask: both come from `secrets`.
    mask: masks.get(value)!,
  }));
}

/** What is shown in place of a secret. */
export function maskOf(value: string): string {
  // Loading it takes as long as the rest of this room; most agents start without a secret.
  const { createHash } = process.getBuiltinModule("node:crypto");
  return `**${createHash("sha256").update(value).digest("hex").slice(0, 6)}**`;
}

function literalForms(value: string): string[] {
  const lines = value.replaceAll("\r\n", "\n");
  const trimmed = withoutLastNewlines(lines);
  return [
    value,
    lines,
    lines.replaceAll("\n", "\r\n"),
    trimmed,
    trimmed.replaceAll("\n", "\r\n"),
    // A value of blanks only would become one blank.
    ...(lines.includes("\n") ? [lines.trim().replaceAll(/[ \t\n]+/g, " ")] : []),
  ];
}

function encodedForms(value: string): string[] {
  const forms: string[] = [];
  for (const text of new Set([value, withoutLastNewlines(value)])) {
    const bytes = Buffer.from(text);
    forms.push(...jsonForms(text));
    for (const alignment of [0, 1, 2]) forms.push(...base64Forms(bytes, alignment));
    for (const encoder of URL_ENCODERS) forms.push(...urlForms(bytes, encoder));
  }
  return forms.filter((form) => form.length >= FEWEST_ENCODED_CHARACTERS);
}

/** A value that was read from a file ends with a newline that is often not printed. */
function withoutLastNewlines(value: string): string {
  return value.replace(/[\r\n]+$/, "");
}

/** Inside a JSON string, as JavaScript writes it, and as Python does: in ASCII. */
function jsonForms(text: string): string[] {
  const form = JSON.stringify(text).slice(1, -1);
  const ascii = form.replaceAll(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return [form, ascii];
}

/**
 * The base64 characters that `bytes` alone determines when `alignment` (modulo 3) other bytes are
 * before them, in the standard and the URL-safe alphabet. Each character stands for 6 bits.
 */
function base64Forms(bytes: Uint8Array, alignment: number): string[] {
  const first = Math.ceil(8 * alignment / 6);
  const end = Math.floor(8 * (alignment + bytes.byteLength) / 6);
  const all = Buffer.concat([Buffer.alloc(alignment), bytes]);
  return [
    all.toString("base64").slice(first, end),
    all.toString("base64url").slice(first, end),
  ];
}

function urlForms(bytes: Uint8Array, { plain, plus }: { plain: string; plus: boolean }): string[] {
  const encode = (hex: (byte: number) => string) =>
    [...bytes].map((byte) => {
      const character = String.fromCharCode(byte);
      if (plus && character === " ") return "+";
      return plain.includes(character) ? character : `%${hex(byte)}`;
    }).join("");
  const lower = encode((byte) => byte.toString(16).padStart(2, "0"));
  const upper = encode((byte) => byte.toString(16).padStart(2, "0").toUpperCase());
  return [upper, lower];
}
