/**
 * Where a command shows what it is doing now, between other output. On a terminal that is one line at
 * the bottom, painted over again and again; elsewhere it is a plain line now and then. The cursor is
 * never hidden and no colour is set, so that there is nothing to put back, whatever ends the program.
 */
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

/** Standard output and standard error, with a line about what goes on now. */
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
