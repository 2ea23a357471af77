/** A file as text: reading it with a bound, judging its encoding, finding lines and columns. */
import { messageOf } from "../message.ts";
import type { Place } from "./mistake.ts";

/** Values of such keys are never shown: what is said about a file may end in a log. */
const SECRET_KEY = /pass|secret|token|credential|_pw$|api_?key/i;
/** A key at the beginning of a line or in a mapping on one line. */
const KEYS_IN_LINE = /([\w-]+)['"]?\s*:/g;
/** `user:password@` of a URL is as secret. */
const USER_IN_URL = /:\/\/[^\s/]*@/;

/** How much of a line is shown, and how much of it before the place. */
const SHOWN_CHARACTERS = 90;
const SHOWN_BEFORE = 60;

/** So far up the key is looked for that a line belongs to; in a longer list it is not shown. */
const MOST_LINES_UP = 1000;

/** Whether the value of a key of that name must not be shown. */
export function isSecretKey(name: string): boolean {
  return SECRET_KEY.test(name);
}

/** The text with users and passwords of URLs masked. */
export function withoutUsers(text: string): string {
  return text.replace(USER_IN_URL, "://***@");
}

/** Where the lines of a text begin. */
export class Lines {
  readonly #text: string;
  readonly #starts = [0];
  /** The last place asked for: counting goes on from there, since mistakes come in order. */
  #last = { offset: 0, line: 1, column: 1 };

  constructor(text: string) {
    this.#text = text;
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) {
      this.#starts.push(at + 1);
    }
  }

  /** The line, from 1, that an offset (in UTF-16 units) is in. */
  line(offset: number): number {
    let low = 0;
    let high = this.#starts.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((this.#starts[middle] ?? 0) <= offset) low = middle;
      else high = middle;
    }
    return low + 1;
  }

  /** Line and column, from 1, of an offset. Columns count characters. */
  place(offset: number): { line: number; column: number } {
    const line = this.line(offset);
    const start = { offset: this.#starts[line - 1] ?? 0, line, column: 1 };
    const from = this.#last.line === line && this.#last.offset <= offset ? this.#last : start;
    let { column } = from;
    for (const _character of this.#text.slice(from.offset, offset)) column++;
    this.#last = { offset, line, column };
    return { line, column };
  }

  /** The same, with the text there unless it may be a secret. */
  placeWithSource(offset: number): Place {
    const place = this.place(offset);
    if (this.#mayHoldSecret(place.line)) return place;
    const characters = [...this.#lineText(place.line)].map((one) =>
      SHOWN_AS_BLANK.test(one) ? " " : one
    );
    // The place may be the end of the file, behind the last line.
    if (characters.every((one) => one === " ")) return place;
    const from = characters.length <= SHOWN_CHARACTERS
      ? 0
      : Math.max(0, place.column - 1 - SHOWN_BEFORE);
    const shown = characters.slice(from, from + SHOWN_CHARACTERS);
    const before = from > 0 ? "..." : "";
    const after = from + SHOWN_CHARACTERS < characters.length ? "..." : "";
    return {
      ...place,
      source: {
        text: `${before}${shown.join("")}${after}`.trimEnd(),
        column: before.length + place.column - from,
      },
    };
  }

  #lineText(line: number): string {
    const start = this.#starts[line - 1] ?? 0;
    const next = this.#starts[line] ?? this.#text.length;
    return this.#text.slice(start, next).replace(/\r?\n$/, "");
  }

  /** Whether the line, or a key that it belongs to, is about a secret. */
  #mayHoldSecret(line: number): boolean {
    let indentation = Infinity;
    for (let at = line; at > 0 && indentation > 0; at--) {
      if (line - at > MOST_LINES_UP) return true;
      const text = this.#lineText(at);
      const own = text.length - text.trimStart().length;
      if (text.trim() === "" || own >= indentation) continue;
      indentation = own;
      if (at === line && (USER_IN_URL.test(text) || SECRET_KEY.test(text))) return true;
      for (const [, key = ""] of text.matchAll(KEYS_IN_LINE)) if (isSecretKey(key)) return true;
    }
    return false;
  }
}

/** A tab takes as much room as it likes, and a control character may do anything. */
const SHOWN_AS_BLANK = /[\p{C}\p{Z}]/u;

/** Text, or why the bytes are none. */
type Decoded =
  | { ok: true; text: string }
  | { ok: false; mistake: { line: number; column: number; message: string } };

/** Characters that no YAML file may have, by YAML 1.1, section 4.1.1. */
const NOT_PRINTABLE = /[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/u;

/** Bytes to text that YAML may hold. */
export function decodeText(bytes: Uint8Array): Decoded {
  if ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)) {
    return { ok: false, mistake: { line: 0, column: 0, message: "is UTF-16, must be UTF-8" } };
  }
  let text: string;
  try {
    // A byte order mark at the start is dropped, as PyYAML drops it.
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return { ok: false, mistake: { ...firstBadByte(bytes), message: "is not UTF-8, must be" } };
  }
  const control = NOT_PRINTABLE.exec(text);
  if (control !== null) {
    const code = (control[0].codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
    const message = `the character U+${code} is not allowed: remove it, or write it as an escape`;
    return { ok: false, mistake: { ...new Lines(text).place(control.index), message } };
  }
  return { ok: true, text };
}

/** The place where bytes stop being UTF-8. */
function firstBadByte(bytes: Uint8Array): { line: number; column: number } {
  // The longest good beginning, by halving. A character that the cut splits is not bad, so the
  // decoder is told that more will come.
  let good = 0;
  let bad = bytes.length;
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    if (beginsWell(bytes.subarray(0, middle))) good = middle;
    else bad = middle;
  }
  const before = new TextDecoder().decode(bytes.subarray(0, good), { stream: true });
  return new Lines(before).place(before.length);
}

function beginsWell(bytes: Uint8Array): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
    return true;
  } catch {
    return false;
  }
}

/** The first `limit` bytes of a file, or of a pipe. */
export async function readAtMost(file: string, limit: number): Promise<Uint8Array> {
  using handle = await Deno.open(file);
  const parts: Uint8Array[] = [];
  let length = 0;
  while (length < limit) {
    const part = new Uint8Array(Math.min(64 * 1024, limit - length));
    const count = await handle.read(part);
    if (count === null) break;
    parts.push(part.subarray(0, count));
    length += count;
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Why a file could not be read, in a few words. */
export function readFailure(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "there is no such file";
  if (error instanceof Deno.errors.PermissionDenied) return "permission denied";
  if (error instanceof Deno.errors.IsADirectory) return "it is a directory, must be a file";
  const text = messageOf(error);
  // The runtime appends what it did, and to which file; the file is named already.
  return text.replace(/: open '.*'$/s, "").replaceAll(/\s+/g, " ");
}
