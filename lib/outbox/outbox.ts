/**
 * One job on disk: its record and its two logs, in a folder of its own outside the job's working
 * folder. What runs the job writes here and never waits for the server; the uploader reads here and
 * never waits for the job.
 */
import { join } from "node:path";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import type { Phase } from "../phases.ts";
import { removeTree } from "../remove_tree.ts";
import type { JobEvent } from "../server/schema.ts";
import { Entry, LOG_NAMES, type LogName, type Message } from "./entries.ts";
import { JournalFile, openOwnFile } from "./journal.ts";
import { apply, emptyJobState, type JobState, reachesBeyond } from "./job_state.ts";
import { wholeCharacters } from "./utf8.ts";

/** Given up when the disk is full, so that a job can still be brought to its end in good order. */
const RESERVED_BYTES = 256 * 1024;

interface LogFile {
  /** Undefined while nothing is written to it. */
  file: Deno.FsFile | undefined;
  length: number;
  /** The end of the appends under way, so that they keep their order. */
  tail: Promise<void>;
}

/** What `Outbox.open()` found out about a record that an earlier process left. */
export interface OutboxReading {
  outbox: Outbox;
  /** Lines of the record that could not be read. */
  damaged: number;
  /** Entries that were written as they should be, and are not understood: a newer agent's. */
  unknown: number;
}

/** The record and the logs of one job. */
export class Outbox implements Disposable {
  readonly folder: string;
  readonly state: JobState = emptyJobState();
  /** Whether the journal says less than an earlier process wrote into it. */
  isIncomplete = false;
  readonly #record: JournalFile;
  readonly #logs: Record<LogName, LogFile>;
  readonly #log: Log;
  #waiters: (() => void)[] = [];
  #recordComplained = false;
  #closed = false;

  private constructor(
    folder: string,
    record: JournalFile,
    logs: Record<LogName, LogFile>,
    log: Log,
  ) {
    this.folder = folder;
    this.#record = record;
    this.#logs = logs;
    this.#log = log;
  }

  /**
   * Opens the job in `folder`, which must exist; an empty one is a new job.
   *
   * @throws {Error} what the file system says.
   */
  static open(folder: string, log: Log): OutboxReading {
    const { file, reading } = JournalFile.open(join(folder, "record"));
    const logs: Record<LogName, LogFile> = {
      output: { file: undefined, length: 0, tail: Promise.resolve() },
      serial: { file: undefined, length: 0, tail: Promise.resolve() },
    };
    const outbox = new Outbox(folder, file, logs, log);
    try {
      let unknown = 0;
      for (const value of reading.values) {
        const entry = Entry.safeParse(value);
        if (entry.success) apply(outbox.state, entry.data);
        else unknown++;
      }
      const { damaged } = reading;
      outbox.isIncomplete = damaged + unknown > 0;
      for (const name of LOG_NAMES) outbox.#examineLog(name);
      return { outbox, damaged, unknown };
    } catch (error) {
      outbox[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Lets go of the files until something is written again: many jobs may wait for their delivery.
   * Nobody may be writing.
   */
  rest(): void {
    this.#record.close();
    for (const log of LOG_NAMES) {
      this.#logs[log].file?.close();
      this.#logs[log].file = undefined;
    }
  }

  /** The job's id, from its record; from the name of the folder when the record lost it. */
  get jobId(): string {
    return this.state.accepted?.jobId ??
      this.folder.slice(this.folder.lastIndexOf("/") + 1).split("~")[0]!;
  }

  /** Bytes in a log so far. */
  length(log: LogName): number {
    return this.#logs[log].length;
  }

  /** Bytes of the logs that the server does not have yet. */
  get undeliveredBytes(): number {
    return LOG_NAMES.reduce(
      (sum, log) => sum + this.length(log) - this.state.logs[log].settled,
      0,
    );
  }

  /** How many fragments that will be at least. */
  get undeliveredFragments(): number {
    return LOG_NAMES.filter((log) => this.length(log) > this.state.logs[log].settled).length;
  }

  /** Takes up room that `release()` gives back when the disk is full. */
  holdBallast(): void {
    try {
      Deno.writeFileSync(join(this.folder, "ballast"), new Uint8Array(RESERVED_BYTES), {
        mode: 0o600,
      });
    } catch {
      // Without it, a full disk may cost the last lines of a log; no reason to refuse a job.
    }
  }

  #releaseBallast(): boolean {
    try {
      Deno.removeSync(join(this.folder, "ballast"));
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Writes an entry down and takes it into the state.
   *
   * A disk that is full must not stop a job from being ended: the entry then counts in this
   * process, is lost to the next one, and an error says so once.
   */
  append(entry: Entry): void {
    if (this.#closed) throw new Error(`Cannot append to a closed record: ${this.folder}`);
    try {
      this.#appendOrMakeRoom(entry);
    } catch (error) {
      if (!this.#recordComplained) {
        this.#recordComplained = true;
        this.#log.error(
          `Cannot write the record of job ${this.jobId}: ${
            messageOf(error)
          }. The job goes on, but ` +
            "if the agent is killed now, it will not know all of it. Make room on the disk.",
          { folder: this.folder },
        );
      }
    }
    apply(this.state, entry);
    this.#wake();
  }

  #appendOrMakeRoom(entry: Entry): void {
    try {
      this.#record.append(entry);
    } catch (error) {
      if (!this.#releaseBallast()) throw error;
      this.#record.append(entry);
    }
  }

  /** Queues a message behind everything that has been logged so far. */
  send(message: Message): number {
    const n = this.state.nextMessage;
    const after = { output: this.length("output"), serial: this.length("serial") };
    this.append({ t: "message", n, message, after });
    return n;
  }

  /** Adds an event to those that the job's webhook is told of. */
  sendEvent(event: JobEvent): void {
    this.append({ t: "event", event });
  }

  /**
   * Appends text to a log. `bytes` must be valid UTF-8, cut between characters.
   *
   * @throws {Error} what the file system says (a full disk); nothing of `bytes` is then in the log.
   */
  appendLog(log: LogName, phase: Phase, bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return Promise.resolve();
    const target = this.#logs[log];
    const done = target.tail.then(() => this.#write(log, phase, bytes));
    target.tail = done.catch(() => {});
    return done;
  }

  async #write(log: LogName, phase: Phase, bytes: Uint8Array): Promise<void> {
    const target = this.#logs[log];
    if (this.state.logs[log].regions.at(-1)?.phase !== phase) {
      this.append({ t: "region", log, phase, from: target.length });
    }
    const file = this.#opened(log);
    try {
      await file.seek(target.length, Deno.SeekMode.Start);
      for (let written = 0; written < bytes.length;) {
        written += await file.write(bytes.subarray(written));
      }
    } catch (error) {
      this.#releaseBallast();
      await file.truncate(target.length);
      throw error;
    }
    target.length += bytes.length;
    this.#wake();
  }

  /**
   * Gives up the logs or the artifacts of a job that has ended, to make room. The outcome stays, so
   * that nobody waits for the job for ever. No uploader may be at work on it.
   */
  async giveUp(part: "log" | "artifacts"): Promise<void> {
    this.append({ t: "given_up", part });
    if (part === "artifacts") {
      await removeTree(join(this.folder, "artifacts"));
      return;
    }
    for (const log of LOG_NAMES) {
      await this.#opened(log).truncate(0);
      this.#logs[log].length = 0;
    }
  }

  /** Reads bytes `from` to `to` of a log. */
  async readLog(log: LogName, from: number, to: number): Promise<Uint8Array<ArrayBuffer>> {
    let opened: Deno.FsFile;
    try {
      opened = await Deno.open(join(this.folder, log), { read: true });
    } catch (error) {
      // The folder was removed under the job: what is open is there still, until it is closed.
      const { file, tail } = this.#logs[log];
      if (!isGone(error) || file === undefined) throw error;
      const read = tail.then(() => readPart(file, from, to));
      this.#logs[log].tail = read.then(() => {}, () => {});
      return await read;
    }
    using file = opened;
    return await readPart(file, from, to);
  }

  /** Resolves when a power cut can no longer take what has been written so far. */
  async sync(): Promise<void> {
    for (const log of LOG_NAMES) {
      // Also what an earlier process wrote: it may have had no time for this.
      if (this.#logs[log].length > 0) await this.#opened(log).syncData();
    }
    await this.#record.sync();
  }

  /**
   * Resolves at the next change: an entry, or more of a log.
   *
   * @throws the signal's reason when it aborts.
   */
  changed(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const abort = () => {
        this.#waiters = this.#waiters.filter((waiter) => waiter !== wake);
        reject(signal?.reason);
      };
      const wake = () => {
        signal?.removeEventListener("abort", abort);
        resolve();
      };
      signal?.addEventListener("abort", abort, { once: true });
      this.#waiters.push(wake);
    });
  }

  /**
   * Resolves when the server has message `n`, or has refused it.
   *
   * @throws the signal's reason when it aborts.
   */
  async settled(n: number, signal?: AbortSignal): Promise<void> {
    while (this.state.pending.some((pending) => pending.n === n)) await this.changed(signal);
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }

  #opened(log: LogName): Deno.FsFile {
    if (this.#closed) throw new Error(`Cannot write to a closed job: ${this.folder}`);
    return this.#logs[log].file ??= openLog(this.folder, log);
  }

  /** What an earlier process, or a power cut, has left of a log. */
  #examineLog(log: LogName): void {
    const target = this.#logs[log];
    using file = openLog(this.folder, log);
    const size = file.statSync().size;
    // It had been given up, and was to be emptied.
    target.length = this.state.logGivenUp ? 0 : wholeLength(file, size);
    if (target.length < size) file.truncateSync(target.length);
    // The record may know of more than the disk has kept.
    if (reachesBeyond(this.state.logs[log], target.length)) {
      this.append({ t: "cut", log, length: target.length });
    }
  }

  /** Closes the files. What is on disk stays. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.rest();
    this.#wake();
  }
}

async function readPart(
  file: Deno.FsFile,
  from: number,
  to: number,
): Promise<Uint8Array<ArrayBuffer>> {
  await file.seek(from, Deno.SeekMode.Start);
  const bytes = new Uint8Array(to - from);
  let filled = 0;
  while (filled < bytes.length) {
    const read = await file.read(bytes.subarray(filled));
    if (read === null) break;
    filled += read;
  }
  return bytes.subarray(0, filled);
}

function isGone(error: unknown): boolean {
  return error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory;
}

function openLog(folder: string, name: LogName): Deno.FsFile {
  return openOwnFile(join(folder, name));
}

/** The length of a log without half a character that a power cut may leave at its end. */
function wholeLength(file: Deno.FsFile, size: number): number {
  const from = Math.max(0, size - 4);
  const end = new Uint8Array(size - from);
  file.seekSync(from, Deno.SeekMode.Start);
  const read = file.readSync(end) ?? 0;
  return from + wholeCharacters(end.subarray(0, read));
}
