/** Text as bytes on their way: put together, cut anywhere, made valid UTF-8, and written whole. */

/** One step in the way of a stream of bytes. */
export interface ByteStage {
  /** Takes the next bytes; returns those that are ready, which may share memory with `bytes`. */
  push(bytes: Uint8Array): Uint8Array;
  /** At the end of the stream: returns what was held back. */
  flush(): Uint8Array;
}

export const NO_BYTES = new Uint8Array();

/** `first` and `second` as one; not copied where one of them is empty. */
export function concat(first: Uint8Array, second: Uint8Array): Uint8Array {
  if (first.byteLength === 0) return second;
  if (second.byteLength === 0) return first;
  const both = new Uint8Array(first.byteLength + second.byteLength);
  both.set(first);
  both.set(second, first.byteLength);
  return both;
}

/** Writes all of them, however few the system takes at once. */
export async function writeAll(
  to: { write(bytes: Uint8Array): Promise<number> },
  bytes: Uint8Array,
): Promise<void> {
  for (let written = 0; written < bytes.length;) written += await to.write(bytes.subarray(written));
}

/** The same, before anything else happens. */
export function writeAllSync(
  to: { writeSync(bytes: Uint8Array): number },
  bytes: Uint8Array,
): void {
  for (let written = 0; written < bytes.length;) written += to.writeSync(bytes.subarray(written));
}

/**
 * Puts a text in the place of a file's content: renamed into place, so that a kill or a full disk leaves the former
 * content whole.
 *
 * @throws what the file system says.
 */
export function replaceFile(path: string, text: string): void {
  Deno.writeTextFileSync(`${path}.new`, text, { mode: 0o600 });
  Deno.renameSync(`${path}.new`, path);
}

/** How many bytes at the beginning are the rest of a character that began before. */
export function cutAtStart(bytes: Uint8Array): number {
  let start = 0;
  while (start < 3 && start < bytes.length && isContinuation(bytes[start] ?? 0)) start++;
  return start;
}

/**
 * How many bytes at the end the next bytes may complete to one character. Cutting before a byte that can
 * begin a character is always right: to the decoder, it ends whatever was before.
 */
export function cutAtEnd(bytes: Uint8Array): number {
  const { length } = bytes;
  for (let tail = 1; tail <= 3 && tail <= length; tail++) {
    const byte = bytes[length - tail] ?? 0;
    if (byte < 0x80) return 0;
    if (!isContinuation(byte)) return tail < (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) ? tail : 0;
  }
  return 0;
}

function isContinuation(byte: number): boolean {
  return (byte & 0xc0) === 0x80;
}

/**
 * Makes a stream of bytes valid UTF-8: what is not becomes U+FFFD, as the WHATWG decoder does it for
 * the whole text, wherever the chunks were cut. A byte order mark stays. At most 3 bytes are held
 * back: the beginning of a character whose end has not come yet.
 *
 * A chunk that is valid comes back as it is, not copied.
 */
export function utf8Cleaner(): ByteStage & { readonly held: number } {
  let held = NO_BYTES;
  return {
    get held() {
      return held.byteLength;
    },
    push(bytes) {
      const text = concat(held, bytes);
      const end = text.byteLength - cutAtEnd(text);
      // A copy, or the few bytes would keep the whole chunk.
      held = end === text.byteLength ? NO_BYTES : text.slice(end);
      return cleanUtf8(text.subarray(0, end));
    },
    flush() {
      const rest = held;
      held = NO_BYTES;
      return cleanUtf8(rest);
    },
  };
}

/** Whether it is UTF-8, from its first byte to its last. */
export function isUtf8(bytes: Uint8Array): boolean {
  return process.getBuiltinModule("node:buffer").isUtf8(bytes);
}

/** A text that is complete, with U+FFFD in place of what is not UTF-8; not copied where it is. */
export function cleanUtf8(bytes: Uint8Array): Uint8Array {
  if (isUtf8(bytes)) return bytes;
  return new TextEncoder().encode(new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));
}
