/** The bytes are not a JSON object. */
export class JsonFault extends Error {
  override readonly name = "JsonFault";
}

/** What an `ObjectScanner` looks for. */
export interface ScanOptions {
  /**
   * Asked for each key of the top-level object: report the `text` of its value, only the `length`
   * of it, the `number` that it is, or nothing?
   */
  want: (key: string) => "text" | "length" | "number" | undefined;
  /**
   * Told of each wanted value that is a string, or the number that was wanted, as soon as it is complete. A text
   * of more than 64 KiB is not reported.
   *
   * @returns true to stop reading.
   */
  found: (value: ScannedValue) => boolean | void;
}

/** The value of a wanted key. */
export interface ScannedValue {
  key: string;
  /** Length of the decoded text in bytes of UTF-8; of a number, that of its digits. */
  bytes: number;
  /** Only where the text, or the number, was wanted. */
  text?: string;
}

/** No key of the API comes near; longer ones are skipped. */
const KEY_BYTES = 1024;
const TEXT_BYTES = 65_536;
/** Longer ones are no number of the API, and are not reported. */
const NUMBER_CHARS = 32;

/** Nesting that no answer of the API comes near, and that must not fill the memory. */
const DEEPEST = 10_000;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

type State =
  | "value"
  | "first_value_or_end"
  | "first_key_or_end"
  | "key"
  | "colon"
  | "comma_or_end"
  | "string"
  | "escape"
  | "unicode"
  | "number"
  | "literal"
  | "complete";

/** After which part of a number which characters may follow, and what part they begin. */
const NUMBER_STEPS: Record<string, [RegExp, string][]> = {
  sign: [[/0/, "zero"], [/[1-9]/, "int"]],
  zero: [[/\./, "dot"], [/[eE]/, "e"]],
  int: [[/[0-9]/, "int"], [/\./, "dot"], [/[eE]/, "e"]],
  dot: [[/[0-9]/, "frac"]],
  frac: [[/[0-9]/, "frac"], [/[eE]/, "e"]],
  e: [[/[+-]/, "esign"], [/[0-9]/, "exp"]],
  esign: [[/[0-9]/, "exp"]],
  exp: [[/[0-9]/, "exp"]],
};
const WHOLE_NUMBERS = new Set(["zero", "int", "frac", "exp"]);

/**
 * Reads a JSON object piece by piece and reports strings among its values without keeping
 * anything else: `GET /v1/result/{id}` carries a job's whole log, of which only the length, or not
 * even that, is wanted. Where a key comes twice each value is reported.
 */
export class ObjectScanner {
  readonly #options: ScanOptions;
  #state: State = "value";
  /** One per open container: is it an object? */
  #open: boolean[] = [];
  #stopped = false;

  #inKey = false;
  #key = "";
  #wanted: "text" | "length" | "key" | undefined;
  #raw: number[] = [];
  #rawLimit = 0;
  #tooLong = false;
  #bytes = 0;
  #unit = 0;
  #digits = 0;
  #afterHigh = false;

  #number = "";
  /** Those of a wanted one. */
  #digitsOf: string | undefined;
  #literal = "";
  #literalAt = 0;

  constructor(options: ScanOptions) {
    this.#options = options;
  }

  /** Whether `found` asked to stop. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Whether nothing but white space has come so far. */
  get blank(): boolean {
    return this.#state === "value" && this.#open.length === 0;
  }

  /**
   * Reads on.
   *
   * @throws {JsonFault} when this cannot be the continuation of a JSON object.
   */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length && !this.#stopped) {
      if (this.#state === "string") at = this.#inString(chunk, at);
      else at = this.#step(chunk[at] ?? 0) ? at + 1 : at;
    }
  }

  /** Whether the object has ended. */
  get complete(): boolean {
    return this.#state === "complete";
  }

  /** Takes one byte; false: the byte has to be looked at again, in the new state. */
  #step(byte: number): boolean {
    switch (this.#state) {
      case "escape":
        this.#escape(byte);
        return true;
      case "unicode":
        this.#unicode(byte);
        return true;
      case "number":
        return this.#inNumber(byte);
      case "literal":
        if (byte !== this.#literal.charCodeAt(this.#literalAt)) throw unexpected(byte);
        this.#literalAt += 1;
        if (this.#literalAt === this.#literal.length) this.#valueEnds();
        return true;
    }
    if (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) return true;
    switch (this.#state) {
      case "first_value_or_end":
        if (byte === 0x5d) this.#close(false);
        else this.#valueBegins(byte);
        return true;
      case "value":
        this.#valueBegins(byte);
        return true;
      case "first_key_or_end":
        if (byte === 0x7d) this.#close(true);
        else this.#keyBegins(byte);
        return true;
      case "key":
        this.#keyBegins(byte);
        return true;
      case "colon":
        if (byte !== 0x3a) throw unexpected(byte);
        this.#state = "value";
        return true;
      case "comma_or_end": {
        const inObject = this.#open.at(-1) ?? false;
        if (byte === 0x2c) this.#state = inObject ? "key" : "value";
        else if (byte === 0x7d || byte === 0x5d) this.#close(byte === 0x7d);
        else throw unexpected(byte);
        return true;
      }
      default:
        throw unexpected(byte);
    }
  }

  #valueBegins(byte: number): void {
    if (this.#open.length === 0 && byte !== 0x7b) {
      throw new JsonFault("it is not a JSON object");
    }
    if (byte === QUOTE) {
      const wanted = this.#open.length === 1 ? this.#options.want(this.#key) : undefined;
      this.#stringBegins(false, wanted === "number" ? undefined : wanted);
    } else if (byte === 0x7b || byte === 0x5b) {
      if (this.#open.length >= DEEPEST) throw new JsonFault("it is nested too deeply");
      this.#open.push(byte === 0x7b);
      this.#state = byte === 0x7b ? "first_key_or_end" : "first_value_or_end";
    } else if (byte === 0x2d || (byte >= 0x30 && byte <= 0x39)) {
      this.#number = byte === 0x2d ? "sign" : byte === 0x30 ? "zero" : "int";
      const isWanted = this.#open.length === 1 && this.#options.want(this.#key) === "number";
      this.#digitsOf = isWanted ? String.fromCharCode(byte) : undefined;
      this.#state = "number";
    } else {
      this.#literal = byte === 0x74 ? "true" : byte === 0x66 ? "false" : "null";
      if (byte !== this.#literal.charCodeAt(0)) throw unexpected(byte);
      this.#literalAt = 1;
      this.#state = "literal";
    }
  }

  #keyBegins(byte: number): void {
    if (byte !== QUOTE) throw unexpected(byte);
    this.#stringBegins(true, this.#open.length === 1 ? "key" : undefined);
  }

  #close(object: boolean): void {
    if (this.#open.pop() !== object) throw unexpected(object ? 0x7d : 0x5d);
    this.#valueEnds();
  }

  #valueEnds(): void {
    this.#state = this.#open.length === 0 ? "complete" : "comma_or_end";
  }

  #stringBegins(key: boolean, wanted: "text" | "length" | "key" | undefined): void {
    this.#state = "string";
    this.#inKey = key;
    this.#wanted = wanted;
    this.#raw = [];
    this.#rawLimit = wanted === "key" ? KEY_BYTES : wanted === "text" ? TEXT_BYTES : 0;
    this.#tooLong = false;
    this.#bytes = 0;
    this.#afterHigh = false;
  }

  /** Goes over plain characters; returns where it stopped. */
  #inString(chunk: Uint8Array, start: number): number {
    let at = start;
    while (at < chunk.length) {
      const byte = chunk[at] ?? 0;
      if (byte === QUOTE || byte === BACKSLASH || byte < 0x20) break;
      at += 1;
    }
    if (at > start) {
      this.#bytes += at - start;
      this.#afterHigh = false;
      this.#keepRaw(chunk.subarray(start, at));
    }
    const byte = chunk[at];
    if (byte === undefined) return at;
    if (byte === QUOTE) this.#stringEnds();
    else if (byte === BACKSLASH) {
      this.#keepRaw([byte]);
      this.#state = "escape";
    } else throw new JsonFault("it has a control character inside a string");
    return at + 1;
  }

  #keepRaw(bytes: Uint8Array | number[]): void {
    if (this.#rawLimit === 0 || this.#tooLong) return;
    if (this.#raw.length + bytes.length > this.#rawLimit) {
      this.#tooLong = true;
      this.#raw = [];
      return;
    }
    for (const byte of bytes) this.#raw.push(byte);
  }

  #escape(byte: number): void {
    this.#keepRaw([byte]);
    if (byte === 0x75) {
      this.#unit = 0;
      this.#digits = 0;
      this.#state = "unicode";
      return;
    }
    if (!'"\\/bfnrt'.includes(String.fromCharCode(byte))) throw unexpected(byte);
    this.#bytes += 1;
    this.#afterHigh = false;
    this.#state = "string";
  }

  #unicode(byte: number): void {
    const digit = hexDigit(byte);
    if (digit === undefined) throw unexpected(byte);
    this.#keepRaw([byte]);
    this.#unit = this.#unit * 16 + digit;
    this.#digits += 1;
    if (this.#digits < 4) return;
    const high = this.#unit >= 0xd800 && this.#unit <= 0xdbff;
    const low = this.#unit >= 0xdc00 && this.#unit <= 0xdfff;
    // The two halves of a pair are four bytes together; a half without its other half becomes
    // U+FFFD when it is encoded, three bytes.
    if (low && this.#afterHigh) this.#bytes += 1;
    else this.#bytes += this.#unit < 0x80 ? 1 : this.#unit < 0x800 ? 2 : 3;
    this.#afterHigh = high;
    this.#state = "string";
  }

  #stringEnds(): void {
    if (this.#inKey) {
      // A key that is too long to be one of ours has no name, which nobody wants.
      this.#key = this.#wanted === "key" && !this.#tooLong ? this.#decode() : "";
      this.#state = "colon";
      return;
    }
    this.#valueEnds();
    if (this.#wanted === undefined || this.#tooLong) return;
    const value: ScannedValue = { key: this.#key, bytes: this.#bytes };
    if (this.#wanted === "text") value.text = this.#decode();
    this.#stopped = this.#options.found(value) === true;
  }

  #decode(): string {
    // A byte order mark inside a text is part of it.
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return String(JSON.parse(`"${decoder.decode(Uint8Array.from(this.#raw))}"`));
  }

  #inNumber(byte: number): boolean {
    const char = String.fromCharCode(byte);
    const next = NUMBER_STEPS[this.#number]?.find(([pattern]) => pattern.test(char));
    if (next !== undefined) {
      this.#number = next[1];
      if (this.#digitsOf !== undefined) this.#digitsOf += char;
      if ((this.#digitsOf?.length ?? 0) > NUMBER_CHARS) this.#digitsOf = undefined;
      return true;
    }
    if (!WHOLE_NUMBERS.has(this.#number)) throw unexpected(byte);
    this.#valueEnds();
    const text = this.#digitsOf;
    if (text !== undefined) {
      const value: ScannedValue = { key: this.#key, bytes: text.length, text };
      this.#stopped = this.#options.found(value) === true;
    }
    return false;
  }
}

function hexDigit(byte: number): number | undefined {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x61 + 10 : undefined;
}

function unexpected(byte: number): JsonFault {
  const shown = byte > 0x20 && byte < 0x7f
    ? `"${String.fromCharCode(byte)}"`
    : `byte 0x${byte.toString(16).padStart(2, "0")}`;
  return new JsonFault(`it is not JSON: unexpected ${shown}`);
}
