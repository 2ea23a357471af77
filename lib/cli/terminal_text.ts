/**
 * Output of a job on a person's terminal. A job may print anything, and a terminal obeys what it is
 * told: it can be retitled, made to answer as if its user had typed, or left unreadable. So only text,
 * line ends, tabs and colours get through; other control characters are shown as symbols.
 */

const ESC = "\x1b";
/** ESC [ numbers m: colour, bold and the like. */
// deno-lint-ignore no-control-regex -- control characters are what this file is about
const COLOUR = /^\x1b\[[0-9;:]*m/;
// deno-lint-ignore no-control-regex -- as above
const UNFINISHED = /^\x1b(\[[0-9;:]*)?$/;
/** The longest colour sequence that anybody needs; what is longer is shown. */
const LONGEST_SEQUENCE = 40;

/** Direction marks with which a line can be made to read as another. */
const DIRECTION = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/;

/** A filter for one stream of text, in any chunks. */
export class TerminalText {
  #held = "";
  /** A colour was let through, which would last. */
  #coloured = false;

  /** What of `text` may be shown now. The beginning of a sequence is held until its end comes. */
  push(text: string): string {
    const all = this.#held + text;
    this.#held = "";
    let shown = "";
    for (let i = 0; i < all.length;) {
      if (all[i] === ESC) {
        const rest = all.slice(i, i + LONGEST_SEQUENCE);
        const colour = COLOUR.exec(rest)?.[0];
        if (colour !== undefined) {
          shown += colour;
          this.#coloured = true;
          i += colour.length;
          continue;
        }
        if (rest.length < LONGEST_SEQUENCE && UNFINISHED.test(rest)) {
          this.#held = rest;
          return shown;
        }
      }
      // Whether it is a line end shows the next character.
      if (all[i] === "\r" && i === all.length - 1) {
        this.#held = "\r";
        return shown;
      }
      shown += visible(all[i] ?? "", all[i + 1]);
      i++;
    }
    return shown;
  }

  /** What was held, and the end of all colours if there were any. */
  flush(): string {
    const held = [...this.#held].map((character) => visible(character)).join("");
    const end = this.#coloured ? `${ESC}[0m` : "";
    this.#held = "";
    this.#coloured = false;
    return `${held}${end}`;
  }
}

/** One character as a terminal may have it. */
function visible(character: string, next?: string): string {
  if (character === "\n" || character === "\t") return character;
  // A carriage return before a line feed is a line end; alone it would let text be painted over.
  if (character === "\r") return next === "\n" ? "" : "\n";
  const code = character.charCodeAt(0);
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  if (code >= 0x80 && code < 0xa0 || DIRECTION.test(character)) return "\ufffd";
  return character;
}
