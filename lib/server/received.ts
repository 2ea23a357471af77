import type { Clock } from "../clock.ts";
import type { Failure } from "./api.ts";
import { noAnswer } from "./failure.ts";
import type { Watch } from "./watch.ts";

/** What remains of an answer that nobody reads is let go after this, to use the connection again. */
const DRAIN_BYTES = 65_536;
const DRAIN_MS = 1_000;

/** A 2xx whose body is still to come. Has to be read to its end or released. */
export class Received {
  /** Method and URL. */
  readonly what: string;
  readonly status: number;
  readonly headers: Headers;
  readonly #watch: Watch;
  readonly #clock: Clock;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  #bytes = 0;

  constructor(
    options: { what: string; response: Response; watch: Watch; clock: Clock },
  ) {
    this.what = options.what;
    this.status = options.response.status;
    this.headers = options.response.headers;
    this.#watch = options.watch;
    this.#clock = options.clock;
    this.#reader = options.response.body?.getReader();
    // Until somebody reads, nobody waits for the server.
    this.#watch.pause();
  }

  get contentType(): string {
    return this.headers.get("content-type") ?? "";
  }

  /** Words an answer whose body is not what it should be. */
  malformed(why: string): Failure {
    const message = `${this.what}: the answer cannot be used: ${why}`;
    return { ok: false, kind: "malformed", status: this.status, message };
  }

  /** The next piece, `undefined` at the end, or why there is none. */
  async read(): Promise<Uint8Array | undefined | Failure> {
    if (this.#reader === undefined) return undefined;
    this.#watch.resume();
    try {
      const { value } = await this.#reader.read();
      this.#bytes += value?.length ?? 0;
      return value;
    } catch (error) {
      const failure = noAnswer({ what: this.what, error, signal: this.#watch.signal });
      if (failure.kind === "unreachable") {
        failure.message += ` (the answer was cut off after ${this.#bytes} bytes)`;
      }
      return failure;
    } finally {
      this.#watch.pause();
    }
  }

  /**
   * The whole body.
   *
   * @returns `bytes`: what came of it; `failure`: why that is not all.
   */
  async readAll(limitBytes: number): Promise<{ bytes: Uint8Array; failure?: Failure }> {
    const chunks: Uint8Array[] = [];
    let length = 0;
    let failure: Failure | undefined;
    while (failure === undefined) {
      const chunk = await this.read();
      if (chunk === undefined) break;
      if (!(chunk instanceof Uint8Array)) {
        failure = chunk;
      } else if (length + chunk.length > limitBytes) {
        chunks.push(chunk.subarray(0, limitBytes - length));
        length = limitBytes;
        const message = `${this.what}: the answer is larger than ${limitBytes} bytes`;
        failure = { ok: false, kind: "malformed", status: this.status, message };
      } else {
        chunks.push(chunk);
        length += chunk.length;
      }
    }
    const bytes = new Uint8Array(length);
    let at = 0;
    for (const chunk of chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    await this.release();
    return { bytes, ...(failure ? { failure } : {}) };
  }

  /** The beginning of the body, as far as it comes. */
  async readSome(limitBytes: number): Promise<Uint8Array> {
    return (await this.readAll(limitBytes)).bytes;
  }

  /** Lets go of an answer whose status says everything: a short rest of it is read, not a long one. */
  async drain(): Promise<void> {
    await this.#drained();
    await this.release();
  }

  async #drained(): Promise<void> {
    if (this.#reader === undefined) return;
    const over = new AbortController();
    // Not the exchange's own limit: what was asked for has happened.
    const late = this.#clock.sleep(DRAIN_MS, over.signal).catch(() => {});
    try {
      let left = DRAIN_BYTES;
      while (left > 0) {
        const chunk = await Promise.race([this.read(), late]);
        if (!(chunk instanceof Uint8Array)) return;
        left -= chunk.length;
      }
    } finally {
      over.abort();
      await late;
    }
  }

  /** Ends the exchange, whatever is still to come. */
  async release(): Promise<void> {
    this.#watch[Symbol.dispose]();
    // Cancelling a stream that has failed repeats its error.
    await this.#reader?.cancel().catch(() => {});
    this.#reader?.releaseLock();
  }

  /** The body as a stream that ends the exchange by itself. Its errors have a line for a log. */
  stream(): ReadableStream<Uint8Array> {
    return new ReadableStream({
      pull: async (controller) => {
        const chunk = await this.read();
        if (chunk instanceof Uint8Array) return controller.enqueue(chunk);
        await this.release();
        if (chunk === undefined) controller.close();
        else controller.error(new Error(chunk.message));
      },
      cancel: () => this.release(),
    }, { highWaterMark: 0 });
  }
}
