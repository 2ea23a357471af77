import { messageOf } from "../../message.ts";
import { Refusal } from "./refusal.ts";

/** Limits on the compressed stream and what comes out of it. */
export interface GunzipLimits {
  /** Compressed bytes. */
  maxDownload: number;
  /** Unpacked bytes. */
  maxSize: number;
  /** Unpacked bytes for each compressed one, from RATIO_FLOOR_BYTES on. */
  maxRatio: number;
}

/** Below this an archive does no harm however well it is compressed: text may well be 300 : 1. */
const RATIO_FLOOR_BYTES = 64 * 1024 * 1024;

/**
 * Compressed bytes handed on in one go. Deflate makes at most 1032 bytes of one, and all that
 * come of one piece are in memory at once: 17 MB.
 */
const SLICE_BYTES = 16 * 1024;

const GZIP_FIRST_BYTE = 0x1f;

/**
 * Unpacks a gzip stream of a single member. Takes from `archive` only as fast as the result is
 * read, and lets go of it at the end, whichever way it comes.
 *
 * @throws {Refusal} for what is no gzip, damaged, cut off, over a limit, or followed by anything.
 */
export async function* gunzip(
  archive: ReadableStream<Uint8Array>,
  limits: GunzipLimits,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const inflater = new DecompressionStream("gzip");
  const source = archive.getReader();
  const feeder = new Feeder(source, inflater.writable.getWriter(), limits.maxDownload);
  const output = inflater.readable.getReader();
  const letGo = () => void source.cancel(signal?.reason).catch(() => {});
  signal?.addEventListener("abort", letGo, { once: true });
  const feeding = feeder.run(signal);
  let unpacked = 0;
  try {
    while (true) {
      let next;
      try {
        next = await output.read();
      } catch (cause) {
        throw await feeding ?? new Refusal("archive", "the gzip data is damaged", { cause });
      }
      if (next.done) break;
      unpacked += next.value.length;
      if (unpacked > limits.maxSize) {
        throw new Refusal("archive", `the archive unpacks to more than ${limits.maxSize} bytes`);
      }
      if (unpacked > RATIO_FLOOR_BYTES && unpacked > limits.maxRatio * feeder.taken) {
        throw new Refusal(
          "archive",
          `the archive expands more than ${limits.maxRatio} times ` +
            `(${unpacked} bytes from ${feeder.taken})`,
        );
      }
      yield next.value;
    }
    const refusal = await feeding;
    if (refusal) throw refusal;
  } finally {
    signal?.removeEventListener("abort", letGo);
    await source.cancel().catch(() => {});
    await output.cancel().catch(() => {});
    await feeding;
  }
}

/** Moves compressed bytes from the source into the inflater. */
class Feeder {
  /** Compressed bytes that the inflater has got. */
  taken = 0;
  #firstByte: number | undefined;
  readonly #source: ReadableStreamDefaultReader<Uint8Array>;
  readonly #sink: WritableStreamDefaultWriter<BufferSource>;
  readonly #maxDownload: number;

  constructor(
    source: ReadableStreamDefaultReader<Uint8Array>,
    sink: WritableStreamDefaultWriter<BufferSource>,
    maxDownload: number,
  ) {
    this.#source = source;
    this.#sink = sink;
    this.#maxDownload = maxDownload;
  }

  /** Never rejects: gives back why it stopped early, and ends the inflater's output with that. */
  async run(signal?: AbortSignal): Promise<Refusal | undefined> {
    // Each write is awaited; without a listener the same failure would also count as unhandled.
    this.#sink.closed.catch(() => {});
    const refusal = await this.#feed(signal);
    if (refusal) await this.#sink.abort(refusal).catch(() => {});
    return refusal;
  }

  async #feed(signal?: AbortSignal): Promise<Refusal | undefined> {
    while (true) {
      if (signal?.aborted) {
        return new Refusal("stopped", `unpacking was stopped: ${messageOf(signal.reason)}`);
      }
      let next;
      try {
        next = await this.#source.read();
      } catch (cause) {
        return new Refusal("source", `the archive could not be read: ${messageOf(cause)}`, {
          cause,
        });
      }
      if (signal?.aborted) continue;
      if (next.done) break;
      for (let start = 0; start < next.value.length; start += SLICE_BYTES) {
        const slice = next.value.slice(start, start + SLICE_BYTES);
        this.#firstByte ??= slice[0];
        this.taken += slice.length;
        if (this.taken > this.#maxDownload) {
          return new Refusal("archive", `the archive has more than ${this.#maxDownload} bytes`);
        }
        try {
          await this.#sink.ready;
          await this.#sink.write(slice);
        } catch (cause) {
          const reason = this.#firstByte === GZIP_FIRST_BYTE
            ? "the gzip data is damaged, or has bytes after its end"
            : "the archive is not gzip";
          return new Refusal("archive", reason, { cause });
        }
      }
    }
    try {
      await this.#sink.close();
    } catch (cause) {
      const reason = this.taken === 0
        ? "the archive is empty"
        : "the gzip data is cut off or does not match its checksum";
      return new Refusal("archive", reason, { cause });
    }
  }
}
