/** The bytes of a request's body on their way, so that their movement and their end are known. */
export class Outgoing {
  /** What the request takes from. */
  readonly stream: ReadableStream<Uint8Array>;
  /** Bytes taken so far. */
  sent = 0;
  /** What the source itself threw: no fault of the server's. */
  fault: { error: unknown } | undefined;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #over = false;

  /**
   * @param source where the bytes come from.
   * @param moved called for each piece.
   */
  constructor(source: ReadableStream<Uint8Array>, moved: () => void) {
    this.#reader = source.getReader();
    this.stream = new ReadableStream({
      pull: async (controller) => {
        let next: ReadableStreamReadResult<Uint8Array>;
        try {
          next = await this.#reader.read();
        } catch (error) {
          this.#over = true;
          this.fault = { error };
          return controller.error(error);
        }
        // While it was read, the connection may have been lost: then nobody takes it any more.
        if (this.#over) return;
        if (next.done) {
          this.#over = true;
          return controller.close();
        }
        moved();
        this.sent += next.value.length;
        controller.enqueue(next.value);
      },
      cancel: () => this.cancel(),
    }, { highWaterMark: 0 });
  }

  /** Lets go of the source: nobody takes the rest. */
  async cancel(): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    await this.#reader.cancel().catch(() => {});
  }
}
