import { cutAtStart } from "../bytes.ts";
import type { Phase } from "../phases.ts";

/**
 * Output of a job as text that can be shown: a stream of bytes in, text out in which nothing acts on
 * the screen. Control characters become their pictures (␛), marks that reverse the direction of text
 * become `\u202e`, and every way to end a line becomes a new line.
 */
interface OutputText {
  /** Text that is complete; half a character or half a line end is held until the next bytes. */
  push(bytes: Uint8Array): string;
}

// deno-lint-ignore no-control-regex -- control characters are what is looked for
const LINE_END = /\r\n|[\r\x0b\x0c\x85\u2028\u2029]/g;
// deno-lint-ignore no-control-regex -- control characters are what is looked for
const UNSAFE = /[\0-\x08\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;

/** Where Unicode has a picture for each control character below 0x20. */
const PICTURES = 0x2400;
const PICTURE_OF_DELETE = "\u2421";

/** Makes the text of one stream. */
export function createOutputText(): OutputText {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let held = "";
  return {
    push(bytes) {
      const text = held + decoder.decode(bytes, { stream: true });
      held = text.endsWith("\r") ? "\r" : "";
      return showText(text.slice(0, text.length - held.length));
    },
  };
}

/** The text with nothing in it that acts on the screen. */
export function showText(text: string): string {
  return text.replaceAll(LINE_END, "\n").replaceAll(UNSAFE, (unsafe) => {
    const code = unsafe.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(PICTURES + code);
    if (code === 0x7f) return PICTURE_OF_DELETE;
    return code < 0x100 ? `\\x${code.toString(16)}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

/** Plain text, text with a look (classes of the style sheet), or the place where a phase begins. */
export type ShownPiece = string | [text: string, look: string] | { phase: Phase };

/** Pieces of one stream. */
export interface LogPieces {
  /** What is complete; half a character, half a line end or half a colour is held back. */
  push(bytes: Uint8Array): ShownPiece[];
}

/** ESC [ numbers m */
// deno-lint-ignore no-control-regex -- control characters are what is looked for
const SGR = /\x1b\[([0-9;:]*)m/g;
// deno-lint-ignore no-control-regex -- as above
const UNFINISHED = /(?:\x1b(?:\[[0-9;:]{0,40})?|\r)$/;

/** Makes the pieces of one stream. */
export function createLogPieces(): LogPieces {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const look = new Look();
  let held = "";
  return {
    push(bytes) {
      const all = held + decoder.decode(bytes, { stream: true });
      held = UNFINISHED.exec(all)?.[0] ?? "";
      const text = all.slice(0, all.length - held.length);
      const pieces: ShownPiece[] = [];
      let from = 0;
      const take = (to: number) => {
        if (to === from) return;
        const shown = showText(text.slice(from, to));
        const { classes } = look;
        pieces.push(classes === "" ? shown : [shown, classes]);
      };
      for (const match of text.matchAll(SGR)) {
        take(match.index);
        from = match.index + match[0].length;
        look.apply(match[1] ?? "");
      }
      take(text.length);
      return pieces;
    },
  };
}

/** The whole of a log, and where its phases begin: bytes from its beginning. */
export function piecesOf(
  bytes: Uint8Array,
  marks: readonly { phase: Phase; at: number }[] = [],
): { pieces: ShownPiece[]; stream: LogPieces } {
  const stream = createLogPieces();
  const pieces: ShownPiece[] = [];
  let from = 0;
  for (const { phase, at } of marks) {
    pieces.push(...stream.push(bytes.subarray(from, at)), { phase });
    from = at;
  }
  pieces.push(...stream.push(bytes.subarray(from)));
  return { pieces, stream };
}

/** What the colours and weights set so far make of the text. */
class Look {
  #colour: number | undefined;
  #back: number | undefined;
  readonly #on = new Set<string>();
  classes = "";

  apply(parameters: string): void {
    const codes = parameters.split(/[;:]/).map(Number);
    for (let i = 0; i < codes.length; i++) {
      const code = codes[i] ?? 0;
      if (code === 38 || code === 48) {
        const [colour, used] = extended(codes.slice(i + 1));
        i += used;
        if (code === 38) this.#colour = colour;
        else this.#back = colour;
      } else this.#set(code);
    }
    this.classes = this.#classes();
  }

  #set(code: number): void {
    const style = STYLES.get(code);
    if (style !== undefined) this.#on.add(style);
    for (const ended of ENDS.get(code) ?? []) this.#on.delete(ended);
    if (code === 0) {
      this.#on.clear();
      this.#colour = this.#back = undefined;
    } else if (code >= 30 && code <= 37) this.#colour = code - 30;
    else if (code >= 90 && code <= 97) this.#colour = code - 90 + BRIGHT;
    else if (code === 39) this.#colour = undefined;
    else if (code >= 40 && code <= 47) this.#back = code - 40;
    else if (code >= 100 && code <= 107) this.#back = code - 100 + BRIGHT;
    else if (code === 49) this.#back = undefined;
  }

  #classes(): string {
    const classes = [...this.#on].filter((style) => style !== INVERSE);
    const isInverse = this.#on.has(INVERSE);
    // On a colour the text has the page's own: every one of the 16 can be read with it.
    const back = isInverse ? this.#colour ?? "t" : this.#back;
    if (back !== undefined) classes.push(`bg${back}`);
    else if (this.#colour !== undefined) classes.push(`fg${this.#colour}`);
    return classes.join(" ");
  }
}

const BRIGHT = 8;
const INVERSE = "inverse";
const STYLES = new Map([
  [1, "bold"],
  [2, "dim"],
  [3, "italic"],
  [4, "underline"],
  [7, INVERSE],
  [9, "strike"],
]);
const ENDS = new Map([
  [22, ["bold", "dim"]],
  [23, ["italic"]],
  [24, ["underline"]],
  [27, [INVERSE]],
  [29, ["strike"]],
]);

/** A colour of 256 (`5;n`) or of all (`2;r;g;b`) as the nearest of 16, and how many numbers it took. */
function extended(rest: readonly number[]): [colour: number | undefined, used: number] {
  const [kind, n = 0, g = 0, b = 0] = rest;
  if (kind === 2) return [nearest(n, g, b), 4];
  if (kind !== 5) return [undefined, 1];
  if (n < 16) return [n, 2];
  if (n >= 232) return [nearest(...gray(n)), 2];
  const at = n - 16;
  const level = (value: number) => value === 0 ? 0 : 55 + 40 * value;
  return [nearest(level(Math.floor(at / 36)), level(Math.floor(at / 6) % 6), level(at % 6)), 2];
}

function gray(n: number): [number, number, number] {
  const value = 8 + 10 * (n - 232);
  return [value, value, value];
}

/** Each channel is on or off, compared with the strongest; bright where that is strong. */
function nearest(r: number, g: number, b: number): number {
  const most = Math.max(r, g, b);
  const isGray = most - Math.min(r, g, b) < 32;
  if (isGray) return most < 64 ? 0 : most < 160 ? 8 : most < 224 ? 7 : 15;
  const bit = (value: number, weight: number) => value > most / 2 ? weight : 0;
  return bit(r, 1) + bit(g, 2) + bit(b, 4) + (most > 200 ? BRIGHT : 0);
}

/** The end of a stream of bytes, in a fixed amount of memory. */
interface Tail {
  push(bytes: Uint8Array): void;
  /** What is kept, oldest first, beginning at the beginning of a character. */
  bytes(): Uint8Array;
  /** Bytes that were pushed since the last `clear()`. */
  readonly total: number;
  clear(): void;
}

/** A tail begins with this, and grows as it is filled: most agents of a host are idle. */
const FIRST_BYTES = 4096;

/** Makes a tail that keeps the last `size` bytes of UTF-8 text. */
export function createTail(size: number): Tail {
  let ring = new Uint8Array(Math.min(FIRST_BYTES, size));
  /** Bytes ever pushed since the last clear(). */
  let total = 0;
  const growTo = (least: number) => {
    if (ring.length >= least) return;
    const grown = new Uint8Array(Math.min(size, Math.max(least, ring.length * 2)));
    grown.set(ring);
    ring = grown;
  };
  return {
    get total() {
      return total;
    },
    push(bytes) {
      growTo(Math.min(size, total + bytes.length));
      const kept = bytes.length > size ? bytes.subarray(bytes.length - size) : bytes;
      total += bytes.length - kept.length;
      const at = total % size;
      const first = kept.subarray(0, size - at);
      ring.set(first, at);
      ring.set(kept.subarray(first.length));
      total += kept.length;
    },
    bytes() {
      if (total <= size) return ring.slice(0, total);
      const at = total % size;
      const all = new Uint8Array(size);
      all.set(ring.subarray(at));
      all.set(ring.subarray(0, at), size - at);
      return all.subarray(cutAtStart(all));
    },
    clear() {
      total = 0;
    },
  };
}
