import { cleanUtf8, concat, NO_BYTES, utf8Cleaner } from "../bytes.ts";
import type { RedactorStream, Secrets } from "./redactor.ts";

/**
 * The way of what a command prints into a log: made valid UTF-8, then secrets are masked. What is held
 * back on this way is found again by another filter that begins with those bytes.
 */
export class TextFilter {
  readonly #cleaner = utf8Cleaner();
  readonly #redactor: RedactorStream;
  /** The bytes that are held back, as they came. */
  #held: Uint8Array = NO_BYTES;

  constructor(secrets: Secrets) {
    this.#redactor = secrets.stream();
  }

  /** How many bytes at the end of what was pushed are held back: nothing of them has come out. */
  get held(): number {
    return this.#held.length;
  }

  /** Takes the next bytes; returns those that are ready. */
  push(bytes: Uint8Array): Uint8Array {
    const ready = this.#redactor.push(this.#cleaner.push(bytes));
    this.#held = this.#heldOf(concat(this.#held, bytes));
    return ready;
  }

  /** At the end, or before something else is said: returns what was held back. */
  flush(): Uint8Array {
    const first = this.#redactor.push(this.#cleaner.flush());
    this.#held = NO_BYTES;
    return concat(first, this.#redactor.flush());
  }

  /** Which end of `bytes`, as they came, is held back. */
  #heldOf(bytes: Uint8Array): Uint8Array {
    const end = bytes.length - this.#cleaner.held;
    const from = end - this.#rawLength(bytes, end);
    // A copy, or a few bytes would keep a whole chunk.
    return from === bytes.length ? NO_BYTES : bytes.slice(from);
  }

  /** The length as it came of what the redactor holds, which ends at `end`. */
  #rawLength(bytes: Uint8Array, end: number): number {
    const { held } = this.#redactor;
    const isHeld = (from: number) => cleanUtf8(bytes.subarray(from, end)).length === held;
    // What was no UTF-8 has become longer; what was has stayed as it is.
    for (let from = Math.max(0, end - held); from < end; from++) {
      if (beginsCharacter(bytes[from]) && isHeld(from)) return end - from;
    }
    for (let from = Math.max(0, end - held); from < end; from++) {
      if (isHeld(from)) return end - from;
    }
    return 0;
  }
}

function beginsCharacter(byte: number | undefined): boolean {
  return byte !== undefined && (byte < 0x80 || byte >= 0xc0);
}
