/** Takes a stream of chunks of any size apart into pieces of the size that is asked for. */
export class ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);
  #position = 0;

  constructor(chunks: AsyncIterator<Uint8Array>) {
    this.#chunks = chunks;
  }

  /** Bytes handed out so far. */
  get position(): number {
    return this.#position;
  }

  /** The next 1 to `most` bytes, valid until the next call; undefined at the end. */
  async some(most: number): Promise<Uint8Array | undefined> {
    while (this.#chunk.length === 0) {
      const next = await this.#chunks.next();
      if (next.done) return undefined;
      this.#chunk = next.value;
    }
    const piece = this.#chunk.subarray(0, most);
    this.#chunk = this.#chunk.subarray(piece.length);
    this.#position += piece.length;
    return piece;
  }

  /** Exactly `length` bytes, or fewer when the stream ends before. */
  async exactly(length: number): Promise<Uint8Array> {
    const whole = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      const piece = await this.some(length - filled);
      if (piece === undefined) return whole.subarray(0, filled);
      whole.set(piece, filled);
      filled += piece.length;
    }
    return whole;
  }
}
