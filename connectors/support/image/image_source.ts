/** Reads an image while it arrives, wherever its bytes come from. */
import { createHash } from "node:crypto";
import { ProvisioningError } from "../errors.ts";

/** How much is read at once. */
const CHUNK_BYTES = 1024 * 1024;

/** What there is of an image at a moment. */
export interface ArrivedSoFar {
  readonly size: number;
  readonly isComplete: boolean;
  /** Counts how often the image was started again: what was read before is of no use then. */
  readonly generation: number;
}

/** An image on its way. Give it up by disposing of it. */
export interface ArrivingImage extends AsyncDisposable {
  /** Of the whole, in bytes; undefined where nobody says. */
  readonly size: number | undefined;
  /**
   * The image from its first byte on, each piece as soon as it is there. The stream fails when the
   * image cannot be had, or is not the right one: the last piece comes after that has been seen.
   */
  stream(): ReadableStream<Uint8Array>;
  /** The first bytes, at most `length` of them. */
  head(length: number): Promise<Uint8Array>;
  /** Path of the whole image, once it is there and verified. */
  whole(): Promise<string>;
}

/** Where the bytes are, and how to wait for more of them. */
export interface ArrivalSource {
  readonly size: number | undefined;
  /**
   * Waits until there is more than `beyond`, or all there will be, or it was started again since
   * `generation`. Throws when it cannot be had.
   */
  wait(beyond: number, generation: number): Promise<ArrivedSoFar>;
  /** Undefined: what is read has been verified as it was written. */
  readonly verify?: (digest: string) => Promise<void>;
  /** Opens what is there of it, which may get its final name at any moment. */
  open(): Promise<Deno.FsFile>;
  /** Path of the whole image, once it is there. */
  finalPath(): string;
  close(): Promise<void>;
}

/** The image that a source has. */
export function arriving(source: ArrivalSource): ArrivingImage {
  return {
    size: source.size,
    stream: () => streamOf(source),
    async head(length) {
      let progress = await source.wait(0, 0);
      while (progress.size < length && !progress.isComplete) {
        progress = await source.wait(progress.size, progress.generation);
      }
      using file = await source.open();
      const bytes = new Uint8Array(Math.min(length, progress.size));
      let filled = 0;
      while (filled < bytes.length) {
        const read = await file.read(bytes.subarray(filled));
        if (read === null) break;
        filled += read;
      }
      return bytes.subarray(0, filled);
    },
    async whole() {
      // Reading it to the end verifies it.
      if (source.verify !== undefined) { for await (const _ of streamOf(source)); }
      for (let progress = await source.wait(0, 0); !progress.isComplete;) {
        progress = await source.wait(progress.size, progress.generation);
      }
      return source.finalPath();
    },
    [Symbol.asyncDispose]: () => source.close(),
  };
}

/** The last piece is held back until all of it is known to be right. */
function streamOf(source: ArrivalSource): ReadableStream<Uint8Array> {
  const hash = source.verify === undefined ? undefined : createHash("sha256");
  let file: Deno.FsFile | undefined;
  let at = 0;
  let known: ArrivedSoFar = { size: 0, isComplete: false, generation: 0 };
  let held: Uint8Array | undefined;
  const close = () => {
    file?.close();
    file = undefined;
  };
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        while (true) {
          while (at >= known.size && !known.isComplete) {
            const { generation } = known;
            known = await source.wait(at, generation);
            if (at > 0 && known.generation !== generation) throw changed();
          }
          file ??= await source.open();
          const chunk = new Uint8Array(Math.min(CHUNK_BYTES, known.size - at));
          const read = chunk.length === 0 ? null : await file.read(chunk);
          if (read === null) {
            if (at < known.size) {
              throw new ProvisioningError("The image became shorter while it was read");
            }
            await source.verify?.(hash?.digest("hex") ?? "");
            if (held !== undefined) controller.enqueue(held);
            close();
            return controller.close();
          }
          at += read;
          hash?.update(chunk.subarray(0, read));
          const ready = held;
          held = chunk.subarray(0, read);
          if (ready !== undefined) return controller.enqueue(ready);
        }
      } catch (error) {
        close();
        throw error;
      }
    },
    cancel: close,
  }, { highWaterMark: 1 });
}

/** Another image than the one that has been begun is there now. */
export function changed(): ProvisioningError {
  return new ProvisioningError(
    "The image changed on the server while it was being read: run the job again",
  );
}
