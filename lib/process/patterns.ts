/** What is looked for in a text, so that no secret is in it. */
import {
  allJsonForms,
  allUrlForms,
  base64Forms,
  commonJsonForms,
  commonUrlForms,
  wrappedBase64Forms,
  wrappedBase64Size,
} from "./encodings.ts";

/** A text to be masked. */
export interface Pattern {
  bytes: Uint8Array;
  /** What is put in its place. */
  mask: Uint8Array;
}

/** Shorter values would be masked all over a log, and make it unreadable. */
export const FEWEST_MASKED_CHARACTERS = 4;

/** A line of a value of several lines counts by itself when it has so many characters. */
const FEWEST_LINE_CHARACTERS = 8;

/**
 * Encoded forms that are shorter than this are left alone: they would turn up by chance. Six base64
 * characters (a value of 5 bytes has as many in each alignment) are one of 69 billion.
 */
const FEWEST_ENCODED_CHARACTERS = 6;

/**
 * Base64 in lines looks different for each place in a line where a value may begin, some hundred forms
 * in all; and some encoders of JSON and URLs are rare. Patterns of so many bytes, which take some 50 MB of
 * memory, are for those: enough for eighty passwords, or a key of 3 KiB. The longest values, for which
 * no room is left, are looked for in their common forms, and in base64 in lines where they begin a line.
 */
const RARE_BYTES = 1024 * 1024;
/** Longer values are looked for in their common forms only. */
const LONGEST_WITH_RARE_BYTES = 4096;

/** Whether a secret is long enough to be masked; a newline at its end does not count. */
export function isMaskable(value: string): boolean {
  return hasCharacters(withoutLastNewlines(value), FEWEST_MASKED_CHARACTERS);
}

/** Whether a text has so many characters, or more. */
function hasCharacters(text: string, fewest: number): boolean {
  // A character has two code units at most.
  return text.length >= 2 * fewest || [...text].length >= fewest;
}

/**
 * Everything that gives a secret away, each once, literal forms before encoded ones and those of
 * earlier values before those of later ones: where two patterns are the same text, the first counts.
 *
 * A value of several lines is masked where it is printed as a whole (as it is, with CR LF, in one line
 * with spaces as by an unquoted `$KEY` in a shell, encoded), and so is each of its longer lines.
 *
 * @param values of secrets; those that are too short are ignored, see {@linkcode isMaskable}.
 * @returns patterns of at least four bytes.
 */
export function patternsOf(values: Iterable<string>): Pattern[] {
  const secrets = [...new Set(values)].filter(isMaskable);
  const found = new Map<string, string>();
  const add = (form: string, value: string) => {
    // Blanks that become one, for example, may leave very little.
    if (!found.has(form) && hasCharacters(form, FEWEST_MASKED_CHARACTERS)) found.set(form, value);
  };
  for (const forms of [literalForms, lineForms, encodedForms]) {
    for (const value of secrets) {
      for (const form of forms(value.toWellFormed())) add(form, value);
    }
  }
  let room = RARE_BYTES;
  for (const value of secrets.toSorted((a, b) => a.length - b.length)) {
    const rare = value.length > LONGEST_WITH_RARE_BYTES ? [] : [...rareForms(value.toWellFormed())];
    const size = rare.reduce((sum, form) => sum + form.length, 0);
    if (size <= room) {
      room -= size;
      for (const form of rare) add(form, value);
    }
    // The same with a newline at its end differs in the last character at most.
    const bytes = Buffer.from(withoutLastNewlines(value.toWellFormed()));
    const wrappedSize = wrappedBase64Size(bytes.length);
    const anywhere = wrappedSize <= room;
    if (anywhere) room -= wrappedSize;
    for (const form of wrappedBase64Forms(bytes, anywhere)) add(form, value);
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

/** The longer lines of a value of several lines, as they are and in JSON. */
function lineForms(value: string): string[] {
  return longLines(value).flatMap((line) => [line, ...commonJsonForms(line)]);
}

function longLines(value: string): string[] {
  const lines = withoutLastNewlines(value).split(/\r?\n/);
  if (lines.length === 1) return [];
  return lines.map((line) => line.trim())
    .filter((line) => hasCharacters(line, FEWEST_LINE_CHARACTERS));
}

function encodedForms(value: string): string[] {
  const forms = printedTexts(value).flatMap((text) => {
    const bytes = Buffer.from(text);
    return [...commonJsonForms(text), ...base64Forms(bytes), ...commonUrlForms(bytes)];
  });
  return forms.filter((form) => form.length >= FEWEST_ENCODED_CHARACTERS);
}

function rareForms(value: string): Set<string> {
  const texts = [...printedTexts(value), ...longLines(value)];
  const forms = texts.flatMap((text) => [
    ...allJsonForms(text),
    ...allUrlForms(Buffer.from(text)),
  ]);
  return new Set(forms.filter((form) => form.length >= FEWEST_ENCODED_CHARACTERS));
}

/** As it is encoded: with the newlines at its end, and without. */
function printedTexts(value: string): string[] {
  return [...new Set([value, withoutLastNewlines(value)])];
}

/** A value that was read from a file ends with a newline that is often not printed. */
function withoutLastNewlines(value: string): string {
  return value.replace(/[\r\n]+$/, "");
}
