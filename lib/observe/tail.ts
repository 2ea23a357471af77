import { cutAtStart } from "../bytes.ts";

/** The end of a stream of bytes, in a fixed amount of memory. */
export interface Tail {
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
