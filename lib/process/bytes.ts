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
