/** A person's terminal: what a command shows on it while it works, and what of a job's output it may show. */
import type { Clock } from "../clock.ts";
import { PLAIN_STEP_MS, type ProgressView, progressWords } from "../progress.ts";

/** More often nobody can read it. */
const DRAW_STEP_MS = 100;
const BACK_AND_ERASE = "\r\x1b[K";
const USUAL_COLUMNS = 80;

/** What a screen is made of. */
export interface ScreenOptions {
  stdout(text: string): void;
  stderr(text: string): void;
  clock: Pick<Clock, "monotonic">;
  /** The width of the terminal that standard error is; undefined where it is none. */
  columns?: (() => number) | undefined;
  /** Whether standard output is a terminal too: the same one. */
  sharesTerminal: boolean;
}

/**
 * Standard output and standard error, with a line about what goes on now. On a terminal that is one line at
 * the bottom, painted over again and again; elsewhere it is a plain line now and then. The cursor is
 * never hidden and no colour is set, so that there is nothing to put back, whatever ends the program.
 */
export class Screen {
  readonly #options: ScreenOptions;
  #drawn = false;
  #drawnAt = -Infinity;
  #now = "";
  #saidAt: number;
  /** The last output was a whole line, so that there is room for one of ours. */
  #atLineStart = true;

  constructor(options: ScreenOptions) {
    this.#options = options;
    this.#saidAt = options.clock.monotonic();
  }

  /** Text for standard output. */
  out(text: string): void {
    this.#print(text, this.#options.sharesTerminal || !this.isLive, this.#options.stdout);
  }

  /** Text for standard error. */
  err(text: string): void {
    this.#print(text, true, this.#options.stderr);
  }

  /** Whether there is a line that is painted over. */
  get isLive(): boolean {
    return this.#options.columns !== undefined;
  }

  /** What goes on now. It may be said as often as anybody likes. */
  now(text: string): void {
    this.#now = oneLine(text);
    if (this.isLive) this.#draw();
    else this.#sayNowAndThen();
  }

  /** Something else writes to the terminal; `endsLine`: the cursor is at the start of a line after it. */
  makeRoom(endsLine: boolean): void {
    if (!this.#options.sharesTerminal) return;
    this.#erase();
    this.#atLineStart = endsLine;
  }

  /** Nothing goes on any more. */
  clear(): void {
    this.#erase();
    this.#now = "";
    this.#drawnAt = -Infinity;
  }

  #print(text: string, isOurs: boolean, write: (text: string) => void): void {
    if (text === "") return;
    if (!isOurs) return write(text);
    this.#erase();
    write(text);
    this.#atLineStart = text.endsWith("\n");
    if (this.isLive && this.#now !== "") this.#draw();
  }

  #erase(): void {
    if (!this.#drawn) return;
    this.#options.stderr(BACK_AND_ERASE);
    this.#drawn = false;
  }

  #draw(): void {
    const { clock, columns, stderr } = this.#options;
    if (!this.#atLineStart || clock.monotonic() - this.#drawnAt < DRAW_STEP_MS) return;
    this.#drawnAt = clock.monotonic();
    // A line that fills the last column would begin the next one on some terminals.
    const width = (columns?.() ?? USUAL_COLUMNS) - 1;
    stderr(BACK_AND_ERASE + [...this.#now].slice(0, width).join(""));
    this.#drawn = true;
  }

  #sayNowAndThen(): void {
    const { clock, stderr } = this.#options;
    if (!this.#atLineStart || clock.monotonic() - this.#saidAt < PLAIN_STEP_MS) return;
    this.#saidAt = clock.monotonic();
    stderr(`${this.#now}\n`);
  }
}

/** Names of files come from outside: nothing in them may move the cursor. */
function oneLine(text: string): string {
  // deno-lint-ignore no-control-regex -- control characters are what this is about
  return text.replaceAll(/[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "?");
}

/** The screen of this process. */
export function ownScreen(
  { stdout, stderr, clock }: Pick<ScreenOptions, "stdout" | "stderr" | "clock">,
): Screen {
  const canPaint = Deno.stderr.isTerminal() &&
    !["", "dumb"].includes(Deno.env.get("TERM") ?? "");
  return new Screen({
    stdout,
    stderr,
    clock,
    columns: canPaint ? terminalColumns : undefined,
    sharesTerminal: Deno.stdout.isTerminal(),
  });
}

function terminalColumns(): number {
  try {
    // 0 where nobody has told the terminal its size.
    return Deno.consoleSize().columns || USUAL_COLUMNS;
  } catch {
    return USUAL_COLUMNS;
  }
}

/** Shows tasks on a screen, one at a time. */
export function screenProgress(screen: Screen, clock: Pick<Clock, "monotonic">): ProgressView {
  return {
    begin(task) {
      const since = clock.monotonic();
      return {
        at: (bytes) => screen.now(progressWords(task, bytes, clock.monotonic() - since)),
        end: () => screen.clear(),
      };
    },
  };
}

const ESC = "\x1b";
/** ESC [ numbers m: colour, bold and the like. */
// deno-lint-ignore no-control-regex -- control characters are what this is about
const COLOUR = /^\x1b\[[0-9;:]*m/;
// deno-lint-ignore no-control-regex -- as above
const UNFINISHED = /^\x1b(\[[0-9;:]*)?$/;
/** The longest colour sequence that anybody needs; what is longer is shown. */
const LONGEST_SEQUENCE = 40;

/** Direction marks with which a line can be made to read as another. */
const DIRECTION = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/;

/**
 * A filter for one stream of a job's output, in any chunks. A job may print anything, and a terminal obeys what
 * it is told: it can be retitled, made to answer as if its user had typed, or left unreadable. So only text,
 * line ends, tabs and colours get through; other control characters are shown as symbols.
 */
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
