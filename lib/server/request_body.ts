/** Bodies of requests: streams whose movement is known, and forms. */

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

/** A request whose body is a stream. */
interface StreamRequest {
  url: URL;
  headers: Headers;
  body: Outgoing;
  signal: AbortSignal;
}

/** How such a request is sent when `fetch` cannot do it. */
export type SendStream = (request: StreamRequest) => Promise<Response>;

/** A file as `multipart/form-data`, written as a stream: `FormData` would hold all of it in memory. */
export interface MultipartFile {
  /** Of the field, and of the file in it. */
  name: string;
  /** Of the file. */
  type: string;
  open: () => ReadableStream<Uint8Array>;
}

/**
 * Wraps a file in a form.
 *
 * @returns the type of the form; its bytes, from the start at each call; and how many bytes it has
 * more than the file.
 */
export function multipart(file: MultipartFile): {
  type: string;
  open: () => ReadableStream<Uint8Array>;
  frameBytes: number;
} {
  const boundary = `testflinger-${crypto.randomUUID()}`;
  const encoder = new TextEncoder();
  const head = encoder.encode(
    `--${boundary}\r\nContent-Disposition: form-data; name="${file.name}"; ` +
      `filename="${file.name}"\r\nContent-Type: ${file.type}\r\n\r\n`,
  );
  const tail = encoder.encode(`\r\n--${boundary}--\r\n`);
  const open = () => {
    const reader = file.open().getReader();
    let begun = false;
    return new ReadableStream<Uint8Array>({
      async pull(controller) {
        if (!begun) {
          begun = true;
          return controller.enqueue(head.slice());
        }
        const { done, value } = await reader.read();
        if (!done) return controller.enqueue(value);
        controller.enqueue(tail.slice());
        controller.close();
      },
      cancel: (reason) => reader.cancel(reason),
    }, { highWaterMark: 0 });
  };
  return {
    type: `multipart/form-data; boundary=${boundary}`,
    open,
    frameBytes: head.length + tail.length,
  };
}

/**
 * How many bytes a stream has.
 *
 * @returns undefined when `signal` aborted.
 */
export async function countBytes(
  stream: ReadableStream<Uint8Array>,
  signal: AbortSignal | undefined,
): Promise<number | undefined> {
  let bytes = 0;
  for await (const chunk of stream) {
    if (signal?.aborted) return undefined;
    bytes += chunk.length;
  }
  return bytes;
}
