import { within } from "../wait.ts";
import { type Clock, systemClock } from "../clock.ts";

/** What a pump needs. */
export interface PumpOptions {
  clock: Clock;
  /** Gets the output; while it works, no more is read. */
  onOutput(bytes: Uint8Array): void | Promise<void>;
  /** How long there has been no output when the pump begins, in milliseconds. @default {0} */
  silentForMs?: number | undefined;
  /**
   * Resolves when all that the command itself had written was handed on. @default it is taken for that
   * when no byte has come for a moment
   */
  whole?: Promise<void> | undefined;
  /**
   * With output that nobody wants any more: go on reading, so that nobody who writes is stopped by a
   * full pipe; or close the stream. @default {"read on"}
   */
  afterwards?: "read on" | "close" | undefined;
}

/**
 * The most that a pipe holds (/proc/sys/fs/pipe-max-size, 64 KiB unless a program asks for more):
 * a command that has ended cannot have more in there.
 */
const LARGEST_PIPE_BYTES = 1024 * 1024;
/** Bytes that are in a pipe are read within this time, or there are none. */
const SETTLE_MS = 20;
/** A host that takes longer to bring output from a pipe to a disk has lost it. */
const WHOLE_MS = 60_000;
/** Pause between reads of output that nobody wants: at most 6 MB/s of it costs us time. */
const DISCARD_PAUSE_MS = 10;

/**
 * Carries the output of a command to its reader, and lets go of it when the command has ended
 * but something else holds the stream open.
 */
export class Pump {
  /** Resolves when nothing more will be handed on; rejects with what `onOutput` threw. */
  readonly finished: Promise<void>;
  #finish: PromiseWithResolvers<void> = Promise.withResolvers();
  #reader: ReadableStreamDefaultReader<Uint8Array>;
  #options: PumpOptions;
  #bytes = 0;
  #lastByteAt: number;
  #ended = false;
  #dropped = false;
  /** Set while `onOutput` works. */
  #busy: PromiseWithResolvers<void> | undefined;

  constructor(stream: ReadableStream<Uint8Array>, options: PumpOptions) {
    this.#reader = stream.getReader();
    this.#options = options;
    this.#lastByteAt = options.clock.monotonic() - (options.silentForMs ?? 0);
    this.finished = this.#finish.promise;
    // The caller that waits hears of it; a run that ended before for another reason need not.
    this.finished.catch(() => {});
    this.#carry();
  }

  /** Rejects with the signal's reason; resolves when no byte has come for `ms`. */
  async silence(ms: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    while (true) {
      // A command that waits for us is not silent.
      await this.#busy?.promise;
      const left = this.#lastByteAt + ms - clock.monotonic();
      if (left <= 0) return;
      await clock.sleep(left, signal);
    }
  }

  /**
   * To call when the command has ended: waits for the end of the output, or `ms`, but in any case
   * until all that the command itself had written has been handed on.
   */
  async drain(ms: number): Promise<void> {
    const { clock, whole } = this.#options;
    const before = this.#bytes;
    await within(this.finished, { clock, ms });
    if (whole !== undefined) {
      const over = Promise.race([this.finished, whole]);
      await within(over, { clock: systemClock, ms: WHOLE_MS });
      return await this.drop();
    }
    while (!this.#ended && this.#bytes - before < LARGEST_PIPE_BYTES) {
      const seen = this.#bytes;
      await within(this.finished, { clock: systemClock, ms: SETTLE_MS });
      if (this.#busy === undefined && this.#bytes === seen) break;
    }
    await this.drop();
  }

  /**
   * Hands nothing on any more. Unless it is to be closed, the stream stays open and what comes is
   * thrown away, so that processes that go on to write are neither killed by SIGPIPE nor stopped by a
   * full pipe.
   */
  async drop(): Promise<void> {
    this.#dropped = true;
    if (this.#options.afterwards === "close") this.#reader.cancel().catch(() => {});
    if (this.#busy === undefined) this.#finish.resolve();
    await this.finished;
  }

  async #carry(): Promise<void> {
    while (true) {
      const value = await this.#read();
      if (value === undefined) break;
      if (this.#dropped) {
        this.#finish.resolve();
        await new Promise((resume) => Deno.unrefTimer(setTimeout(resume, DISCARD_PAUSE_MS)));
        continue;
      }
      this.#bytes += value.byteLength;
      this.#busy = Promise.withResolvers();
      try {
        await this.#options.onOutput(compact(value));
      } catch (error) {
        this.#dropped = true;
        this.#finish.reject(error);
      }
      this.#lastByteAt = this.#options.clock.monotonic();
      this.#busy.resolve();
      this.#busy = undefined;
      if (this.#dropped) this.#finish.resolve();
    }
    this.#ended = true;
    this.#finish.resolve();
  }

  async #read(): Promise<Uint8Array | undefined> {
    try {
      return (await this.#reader.read()).value;
    } catch {
      // A pipe that cannot be read has no more to say.
      return undefined;
    }
  }
}

/** Deno reads into buffers of 64 KiB; a byte that is kept must not keep one. */
function compact(bytes: Uint8Array): Uint8Array {
  return bytes.byteLength * 4 < bytes.buffer.byteLength ? bytes.slice() : bytes;
}
