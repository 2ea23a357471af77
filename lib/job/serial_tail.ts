/** Follows `<phase>-serial.log` while a connector writes it, into the job's serial log. */
import type { Clock } from "../clock.ts";
import type { Emit } from "../observe/events.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { join } from "../path.ts";
import type { Phase } from "../phases.ts";
import type { Secrets } from "../process/redactor.ts";
import { concat } from "../bytes.ts";
import { TextFilter } from "../process/text_filter.ts";
import { openForReading, type ReadableFile } from "./untrusted_paths.ts";

/** A person who watches a boot over serial sees it within half a second. */
const LOOK_EVERY_MS = 500;
const CHUNK_BYTES = 64 * 1024;
/** Holes of a file begin and end where its blocks do. */
const BLOCK_BYTES = 4096;
const NO_DATA = new Uint8Array(CHUNK_BYTES);
/** After so many chunks of nothing but holes, which are read without waiting, others have a turn. */
const CHUNKS_AT_ONCE = 256;
/** A larger hole is not searched to its end: the next thing that is read is the end of the file. */
const LARGEST_HOLE_BYTES = 256 * 1024 ** 2;
const END_BYTES = 1024 * 1024;

/** When its phase has ended, what is left of a serial log is copied for so long. */
const REST_MS = 30_000;
/** The same when the phase was ended by a cancellation or a stop. */
const REST_AFTER_ABORT_MS = 2_000;

/** What a tail reads from and writes to. */
export interface SerialTailOptions {
  outbox: Outbox;
  phase: Phase;
  /** The job's folder. */
  folder: string;
  secrets: Secrets;
  emit: Emit;
  clock: Clock;
  /** Copying waits while more than this is on its way to the server, in bytes. */
  mostUndelivered: number;
  /** Has aborted when the phase was not to end by itself. */
  signal: AbortSignal;
  /** Ends copying. */
  forceStop: AbortSignal;
  /** Leaves the rest to the next process. */
  leave: AbortSignal;
}

/**
 * Copies what is and will be in the serial log of the phase until `over` aborts, and then the rest,
 * as far as that takes no more than a moment. Never throws: the serial log is an extra.
 */
export async function tailSerial(options: SerialTailOptions, over: AbortSignal): Promise<void> {
  const { clock, signal, forceStop, leave } = options;
  const tail = new SerialTail(options);
  const rest = new AbortController();
  const pause = AbortSignal.any([over, leave]);
  try {
    while (!pause.aborted) {
      await tail.copy(pause);
      await clock.sleep(LOOK_EVERY_MS, pause).catch(() => {});
    }
    if (leave.aborted) return;
    const ends = AbortSignal.any([rest.signal, forceStop]);
    const ms = signal.aborted ? REST_AFTER_ABORT_MS : REST_MS;
    clock.sleep(ms, ends).then(() => rest.abort(), () => {});
    while (await tail.copy(ends) === "more" && !ends.aborted) {
      await clock.sleep(LOOK_EVERY_MS, ends).catch(() => {});
    }
    await tail.end();
  } catch {
    // A full disk: the phase's own log says so.
  } finally {
    rest.abort();
  }
}

/** One serial log, on its way from the job's folder to the outbox. */
class SerialTail {
  readonly #options: SerialTailOptions;
  readonly #filter: TextFilter;
  /** How much of the file has been dealt with. */
  #offset: number;
  /** Bytes of holes since the last byte of data. */
  #hole = 0;
  /** Bytes at the end of the file that have not been copied. */
  #left = 0;

  constructor(options: SerialTailOptions) {
    this.#options = options;
    this.#filter = new TextFilter(options.secrets);
    // Where an earlier process has stopped.
    this.#offset = options.outbox.state.logs.serial.source?.total ?? 0;
  }

  /** Copies what is there now. Returns "more" when it stopped before the end of the file. */
  async copy(until: AbortSignal): Promise<"more" | "end"> {
    const { folder, phase, outbox, mostUndelivered } = this.#options;
    let opened;
    try {
      opened = openForReading(join(folder, `${phase}-serial.log`));
    } catch {
      return "end"; // Not there yet, or nothing that a connector has written.
    }
    using file = opened;
    // As far as it goes now: whatever appends to it faster than we read is not followed for good.
    const { size } = file;
    const hasHoles = file.allocated < size;
    for (let chunks = 1; this.#offset < size; chunks++) {
      this.#left = size - this.#offset;
      if (until.aborted || outbox.undeliveredBytes >= mostUndelivered) return "more";
      const chunk = this.#read(file, size);
      if (chunk.length === 0) break;
      if (hasHoles) await this.#emitData(chunk);
      else await this.#emit(chunk, this.#offset);
      if (this.#hole > LARGEST_HOLE_BYTES) this.#skipTo(size - END_BYTES);
      if (chunks % CHUNKS_AT_ONCE === 0) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    this.#left = 0;
    return "end";
  }

  #read(file: ReadableFile, size: number): Uint8Array {
    // From one boundary of blocks to another.
    const most = CHUNK_BYTES - this.#offset % BLOCK_BYTES;
    const chunk = new Uint8Array(Math.min(most, size - this.#offset));
    const read = file.read(chunk, this.#offset);
    this.#offset += read;
    return chunk.subarray(0, read);
  }

  #skipTo(offset: number): void {
    if (offset <= this.#offset) return;
    this.#hole += offset - this.#offset;
    this.#offset = offset;
  }

  /** Emits a chunk that ends at `#offset`, without the blocks in it that are nothing but zeros. */
  async #emitData(chunk: Uint8Array): Promise<void> {
    if (isNoData(chunk)) {
      this.#hole += chunk.length;
      return;
    }
    const start = this.#offset - chunk.length;
    let data = 0;
    for (let at = 0; at < chunk.length;) {
      const end = Math.min(chunk.length, at + BLOCK_BYTES - (start + at) % BLOCK_BYTES);
      if (isNoData(chunk.subarray(at, end))) {
        await this.#emit(chunk.subarray(data, at), start + at);
        this.#hole += end - at;
        data = end;
      }
      at = end;
    }
    await this.#emit(chunk.subarray(data), this.#offset);
  }

  /** @param end of the bytes in the file. */
  async #emit(bytes: Uint8Array, end: number): Promise<void> {
    if (bytes.length === 0) return;
    await this.#sayHole(end - bytes.length);
    const text = this.#filter.push(bytes);
    await this.#append(text, end - this.#filter.held);
  }

  async #sayHole(end: number): Promise<void> {
    if (this.#hole === 0) return;
    const hole = this.#hole;
    this.#hole = 0;
    await this.#say(`[A hole of ${hole} bytes in the serial log is left out.]`, end);
  }

  async #say(line: string, at: number): Promise<void> {
    const text = concat(this.#filter.flush(), new TextEncoder().encode(`\n${line}\n`));
    await this.#append(text, at);
  }

  /** @param at the place in the file up to which everything is in the log then. */
  async #append(bytes: Uint8Array, at: number): Promise<void> {
    const source = { piece: 0, offset: at, total: at };
    const { outbox, phase, emit } = this.#options;
    await outbox.appendLog("serial", phase, bytes, { source });
    if (bytes.length > 0) emit({ type: "serial", job: outbox.jobId, bytes });
  }

  /** Says what is missing, and lets go of what was held back. */
  async end(): Promise<void> {
    await this.#sayHole(this.#offset);
    if (this.#left > 0) {
      const line = `[The last ${this.#left} bytes of the serial log are left out.]`;
      await this.#say(line, this.#offset);
    }
    await this.#append(this.#filter.flush(), this.#offset);
  }
}

function isNoData(bytes: Uint8Array): boolean {
  return Buffer.compare(NO_DATA.subarray(0, bytes.length), bytes) === 0;
}
