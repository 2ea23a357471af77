/** UTF-8 text that was cut anywhere: what of a character is left at its edges. */

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
