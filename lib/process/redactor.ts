import { type Automaton, buildAutomaton, LEAF, next, TABLE } from "./automaton.ts";
import { type ByteStage, concat, NO_BYTES } from "../bytes.ts";
import { type Pattern, patternsOf } from "./patterns.ts";

/** Masks secrets in one stream. */
export interface RedactorStream extends ByteStage {
  /** How many bytes are held back: the longest end of the stream that may begin a secret. */
  readonly held: number;
}

/**
 * Secrets, ready to be masked.
 *
 * Of overlapping occurrences the leftmost counts, of those the longest; the search goes on behind it.
 * Nothing else is changed, and how the text is cut into chunks makes no difference.
 *
 * What masks are made of, `*` and hexadecimal digits, is not searched again. So no part of the text
 * can come together with another to a secret (there is a mask between them), but a secret that
 * itself contains `*`, or is nothing but at most six hexadecimal digits, can be spelt by a mask and
 * what stands next to it.
 */
export interface Secrets {
  /** There is nothing to mask. */
  readonly isEmpty: boolean;
  /**
   * A stream of its own for each source of bytes. The end of the stream that may be the beginning of
   * a secret is held back until more bytes, or `flush()`, decide it, however long that takes.
   */
  stream(): RedactorStream;
  /** Masks the secrets in a text that is complete. */
  redactText(text: string): string;
}

/**
 * Prepares secrets: each occurrence of a value, or of its usual encodings (`patternsOf()`), is
 * replaced by `**`, the first six hexadecimal digits of the value's SHA-256, and `**`.
 *
 * @param values literal texts; those of fewer than four characters are ignored.
 */
export function compileSecrets(values: Iterable<string>): Secrets {
  return new CompiledSecrets(patternsOf(values));
}

class CompiledSecrets implements Secrets {
  readonly #search: Search | undefined;

  constructor(patterns: readonly Pattern[]) {
    this.#search = patterns.length === 0 ? undefined : prepare(patterns);
  }

  get isEmpty(): boolean {
    return this.#search === undefined;
  }

  stream(): RedactorStream {
    if (this.#search === undefined) {
      return { held: 0, push: (bytes) => bytes, flush: () => NO_BYTES };
    }
    return new SearchingStream(this.#search);
  }

  redactText(text: string): string {
    if (this.#search === undefined) return text;
    const stream = this.stream();
    const bytes = concat(stream.push(new TextEncoder().encode(text)), stream.flush());
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  }
}

/** What is searched for, and how. */
interface Search {
  patterns: readonly Pattern[];
  /** Length of the longest pattern. */
  longest: number;
  /** Of the patterns: says which end of a text may begin one. */
  forward: Automaton;
  /**
   * Of the patterns read backwards. Going through the text from its end, it says at each byte which
   * is the longest pattern that begins there; choosing from left to right is then simple.
   */
  backward: Automaton;
  /** The `kind` of each state of `backward`, as its complement where a pattern begins. */
  steps: Int32Array;
  /** Says what can be passed over. */
  windows: Windows;
}

function prepare(patterns: readonly Pattern[]): Search {
  const reversed = patterns.map(({ bytes }) => bytes.toReversed());
  const backward = buildAutomaton(reversed);
  return {
    patterns,
    longest: Math.max(...patterns.map(({ bytes }) => bytes.byteLength)),
    forward: buildAutomaton(patterns.map(({ bytes }) => bytes)),
    backward,
    steps: backward.kind.map((kind, state) => backward.found[state]! < 0 ? kind : ~kind),
    windows: windowsOf(patterns.map(({ bytes }) => bytes)),
  };
}

/**
 * The last bytes of each pattern, as many as the shortest pattern has: a pattern can only end where
 * its window is. A pair of bytes at the beginning of such a place tells how far it is to the next one
 * that may be a window (Wu and Manber, 1994, "A fast algorithm for multi-pattern searching").
 */
interface Windows {
  /** Bytes in a window. */
  length: number;
  /** For a pair (first * 256 + second): how far to go back; 0 where it begins a window. */
  shifts: Uint8Array;
  /** Not 0 at the hash of the last bytes of each window. */
  ends: Uint8Array;
}

/** Longer windows have more pairs in them, which then say less. */
const LONGEST_WINDOW = 8;

function windowsOf(patterns: readonly Uint8Array[]): Windows {
  const length = Math.min(LONGEST_WINDOW, ...patterns.map((pattern) => pattern.byteLength));
  const shifts = new Uint8Array(256 * 256).fill(length - 1);
  const ends = new Uint8Array(256 * 256);
  for (const pattern of patterns) {
    const window = pattern.subarray(pattern.byteLength - length);
    for (let at = 0; at + 1 < length; at++) {
      const pair = window[at]! * 256 + window[at + 1]!;
      shifts[pair] = Math.min(shifts[pair]!, at);
    }
    ends[hashOf(window, length - 1)] = 1;
  }
  return { length, shifts, ends };
}

/** Of the four bytes that end at `at`; every pattern has as many. */
function hashOf(bytes: Uint8Array, at: number): number {
  return ((bytes[at - 3]! * 0x9e5) ^ (bytes[at - 2]! * 0x1a3) ^ (bytes[at - 1]! << 8) ^
    bytes[at]!) & 0xffff;
}

/** Occurrences from the end of the text to its beginning; they overlap. */
interface Occurrences {
  starts: number[];
  /** Index of the longest pattern at that place. */
  patterns: number[];
}

class SearchingStream implements RedactorStream {
  readonly #search: Search;
  /** Always the beginning of a pattern, shorter than that. */
  #held: Uint8Array = NO_BYTES;
  /** State of the forward automaton: it stands for the very bytes that are held. */
  #state = 0;

  constructor(search: Search) {
    this.#search = search;
  }

  get held(): number {
    return this.#held.byteLength;
  }

  push(bytes: Uint8Array): Uint8Array {
    const { forward, longest } = this.#search;
    const text = concat(this.#held, bytes);
    const length = text.byteLength;
    // What may begin a pattern is shorter than the longest one: the end of a long text tells it.
    const recent = Math.max(this.#held.byteLength, length - longest + 1);
    let state = recent > this.#held.byteLength ? 0 : this.#state;
    for (let at = recent; at < length; at++) state = next(forward, state, text[at]!);
    return this.#release(text, state);
  }

  flush(): Uint8Array {
    return this.#release(this.#held, 0);
  }

  /** Masks what is decided, and holds back the rest, which is what `state` stands for. */
  #release(text: Uint8Array, state: number): Uint8Array {
    const { fail, kind, depth } = this.#search.forward;
    const length = text.byteLength;
    // A whole pattern that begins no longer one need not be held.
    while (kind[state] === LEAF) state = fail[state]!;
    let decided = length - depth[state]!;
    if (decided === 0) return this.#hold(text, 0, state);

    const occurrences = occurrencesIn(text, this.#search);
    if (occurrences.starts.length === 0) {
      this.#hold(text, decided, state);
      return text.subarray(0, decided);
    }
    const masked = new Masked(text, this.#search.patterns);
    for (let i = occurrences.starts.length - 1; i >= 0; i--) {
      const start = occurrences.starts[i]!;
      if (start < masked.end) continue;
      if (start >= decided) break;
      masked.mask(start, occurrences.patterns[i]!);
      // Behind a masked pattern, what was to be held may not begin inside it.
      while (kind[state] === LEAF || depth[state]! > Math.max(0, length - masked.end)) {
        state = fail[state]!;
      }
      decided = length - depth[state]!;
    }
    this.#hold(text, decided, state);
    return masked.upTo(decided);
  }

  #hold(text: Uint8Array, from: number, state: number): Uint8Array {
    // A copy, or a few bytes would keep a whole chunk.
    this.#held = from === text.byteLength ? NO_BYTES : text.slice(from);
    this.#state = state;
    return NO_BYTES;
  }
}

function occurrencesIn(text: Uint8Array, { backward, steps, windows }: Search): Occurrences {
  const { tables, retry, found } = backward;
  const { shifts, ends } = windows;
  const before = windows.length - 1;
  const starts: number[] = [];
  const patterns: number[] = [];
  let state = 0;
  let step = steps[0]!;
  for (let at = text.byteLength - 1; at >= 0; at--) {
    if (state === 0) {
      // Most of a text is passed over here.
      while (at >= before) {
        const shift = shifts[text[at - before]! * 256 + text[at - before + 1]!]!;
        if (shift > 0) at -= shift;
        else if (ends[hashOf(text, at)] === 0) at--;
        else break;
      }
      if (at < before) break;
    }
    // next(), written out: a call for each byte takes too long.
    const byte = text[at]!;
    while (step !== byte) {
      if (step >= TABLE) {
        state = tables[(step - TABLE) * 256 + byte]! - 1;
        break;
      }
      state = retry[state]!;
      step = steps[state]!;
      if (step < 0) step = ~step;
    }
    state++;
    step = steps[state]!;
    if (step < 0) {
      step = ~step;
      starts.push(at);
      patterns.push(found[state]!);
    }
  }
  return { starts, patterns };
}

/** Puts a text with masks in it together. */
class Masked {
  /** End of the last pattern that was masked. */
  end = 0;
  readonly #text: Uint8Array;
  readonly #patterns: readonly Pattern[];
  #parts: Uint8Array[] = [];

  constructor(text: Uint8Array, patterns: readonly Pattern[]) {
    this.#text = text;
    this.#patterns = patterns;
  }

  mask(start: number, pattern: number): void {
    const { bytes, mask } = this.#patterns[pattern]!;
    this.#parts.push(this.#text.subarray(this.end, start), mask);
    this.end = start + bytes.byteLength;
  }

  upTo(end: number): Uint8Array {
    const parts = [...this.#parts, this.#text.subarray(this.end, end)];
    const all = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.byteLength;
    }
    return all;
  }
}
