/**
 * A job's log as the page shows it: a stream of bytes in, pieces of text out, each with its look. Colours
 * that a program sets (ANSI SGR) become names of classes; everything else that a terminal would obey is
 * shown as text.
 */
import type { Phase } from "../phases.ts";
import { showText } from "./output_text.ts";

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
