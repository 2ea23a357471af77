/**
 * One job on disk: its journal and its two logs, in a folder of its own outside the job's working
 * folder. What runs the job writes here and never waits for the server; the uploader reads here and
 * never waits for the job.
 */
import { Said } from "../once.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { join } from "../path.ts";
import type { Phase } from "../phases.ts";
import { removeTree } from "../remove_tree.ts";
import { cutAtEnd, writeAll } from "../bytes.ts";
import type { JobEvent } from "../server/schema.ts";
import {
  Entry,
  JOURNAL_VERSION,
  LOG_NAMES,
  type LogName,
  type Message,
  type Source,
} from "./entries.ts";
import { JournalFile, type JournalHook, openOwnFile } from "./journal.ts";
import {
  apply,
  compacted,
  emptyJobState,
  type JobState,
  lengthOf,
  reachesBeyond,
} from "./job_state.ts";

/** Given up when the disk is full, so that a job can still be ended in good order. */
const RESERVED_BYTES = 256 * 1024;

/**
 * With so many bytes since it was last done, the journal is rewritten with fewer entries: a job that
 * prints a line a second for a day makes 60 MB of them, which the next process would have to read.
 */
const COMPACT_AFTER_BYTES = 256 * 1024;

interface OpenLog {
  /** Undefined while nothing is written to it. */
  file: Deno.FsFile | undefined;
  /** Whether that stands at the end of the log. */
  isAtEnd: boolean;
  length: number;
  /** What has been read of the command that runs to come as far as `length`. */
  source: Source | undefined;
  /** The end of the appends that have begun, so that they keep their order. */
  tail: Promise<void>;
  /** What a power cut can no longer take of it, as far as this process knows; bytes. */
  synced: number;
}

/** Who waits for a change. */
interface Waiter {
  wake: () => void;
  /** Whether more of a log is of interest, or entries alone. */
  ofLogs: boolean;
}

/** What `Outbox.open()` found out about a journal that an earlier process left. */
export interface OutboxReading {
  outbox: Outbox;
  /** Lines of the journal that could not be read. */
  damaged: number;
  /** Entries that were written as they should be, and are not understood: a newer agent's. */
  unknown: number;
}

/** A message whose number and place are those of the moment in which it is written down. */
export interface MessageDraft {
  t: "send";
  message: Message;
}

/** What goes with an append to a log. */
export interface LogAppend {
  /** What has been read of the command that runs to come so far. */
  source?: Source | undefined;
  /** Written down together with it: with the text, or not at all. */
  entries?: readonly (Entry | MessageDraft)[] | undefined;
}

/** The journal and the logs of one job. */
export class Outbox implements Disposable {
  readonly folder: string;
  readonly state: JobState = emptyJobState();
  readonly #journal: JournalFile;
  readonly #logs: Record<LogName, OpenLog>;
  readonly #log: Log;
  /** Bytes that the journal had when it was compacted, or opened. */
  #compactedLength = 0;
  #waiters: Waiter[] = [];
  readonly #said = new Said();
  #closed = false;

  private constructor(
    folder: string,
    journal: JournalFile,
    logs: Record<LogName, OpenLog>,
    log: Log,
  ) {
    this.folder = folder;
    this.#journal = journal;
    this.#logs = logs;
    this.#log = log;
  }

  /**
   * Opens the job in `folder`, which must exist; an empty one is a new job.
   *
   * @throws {Error} what the file system says.
   */
  static open(folder: string, log: Log, onAppend?: JournalHook): OutboxReading {
    const damage: Entry = { t: "damaged" };
    const { file, reading } = JournalFile.open(join(folder, "record"), { onAppend, damage });
    const logs: Record<LogName, OpenLog> = {
      output: emptyLog(),
      serial: emptyLog(),
    };
    const outbox = new Outbox(folder, file, logs, log);
    try {
      let unknown = 0;
      for (const value of reading.values.flat()) {
        const entry = Entry.safeParse(value);
        if (entry.success) apply(outbox.state, entry.data);
        if (!entry.success || isNewer(entry.data)) unknown++;
      }
      const { damaged } = reading;
      if (damaged + unknown > 0) outbox.#noteDamage(damage);
      for (const name of LOG_NAMES) outbox.#examineLog(name);
      return { outbox, damaged, unknown };
    } catch (error) {
      outbox[Symbol.dispose]();
      throw error;
    }
  }

  /** Once it was opened, what was damaged may not be seen any more. */
  #noteDamage(damage: Entry): void {
    if (this.state.isDamaged) return;
    apply(this.state, damage);
    try {
      this.#journal.append(damage);
    } catch {
      // The disk is full: this process knows.
    }
  }

  /** Whether the journal says less than earlier processes wrote into it. */
  get isIncomplete(): boolean {
    return this.state.isDamaged;
  }

  /**
   * Lets go of the files until something is written again: many jobs may wait for their delivery.
   * Nobody may be writing.
   */
  rest(): void {
    this.#journal.close();
    for (const log of LOG_NAMES) {
      this.#logs[log].file?.close();
      this.#logs[log].file = undefined;
      this.#logs[log].isAtEnd = false;
    }
  }

  /** The job's id, from its journal; from the name of the folder when the journal lost it. */
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

  /** Whether the job is complete on the server, with its logs and artifacts. */
  get isComplete(): boolean {
    const { finished, pending } = this.state;
    return finished !== undefined && this.undeliveredBytes === 0 &&
      pending.every(({ message }) => message.kind === "provision_log");
  }

  /** How many fragments that will be at least. */
  get undeliveredFragments(): number {
    return LOG_NAMES.filter((log) => this.length(log) > this.state.logs[log].settled).length;
  }

  /** Takes up room that `release()` gives back when the disk is full. */
  reserveSpace(): void {
    try {
      Deno.writeFileSync(join(this.folder, "ballast"), new Uint8Array(RESERVED_BYTES), {
        mode: 0o600,
      });
    } catch {
      // Without it, a full disk may cost the last lines of a log; no reason to refuse a job.
    }
  }

  #releaseReserve(): boolean {
    try {
      Deno.removeSync(join(this.folder, "ballast"));
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Writes entries down, all of them or none, and takes them into the state. With them goes how far
   * the logs have come: so nothing of a log is posted, and nothing is said of it, that the journal
   * does not know.
   *
   * A disk that is full must not stop a job from being ended: the entry then counts in this
   * process, is lost to the next one, and an error says so once.
   */
  append(...drafts: readonly (Entry | MessageDraft)[]): void {
    if (this.#closed) throw new Error(`Cannot append to a closed journal: ${this.folder}`);
    let n = this.state.nextMessage;
    const after = { output: this.length("output"), serial: this.length("serial") };
    const entries = [
      ...LOG_NAMES.flatMap((log) => this.#progressOf(log)),
      ...drafts.map((draft) =>
        draft.t === "send" ? messageEntry(draft.message, n++, after) : draft
      ),
    ];
    if (entries.length === 0) return;
    try {
      this.#appendOrMakeRoom(entries.length === 1 ? entries[0] : entries);
    } catch (error) {
      if (this.#said.isNew("journal")) {
        this.#log.error(
          `Cannot write the journal of job ${this.jobId}: ${
            messageOf(error)
          }. The job goes on, but ` +
            "if the agent is killed now, it will not know all of it. Make room on the disk.",
          { folder: this.folder },
        );
      }
    }
    for (const entry of entries) {
      apply(this.state, entry);
      // What comes next is of a new command.
      if (entry.t === "command") {
        for (const log of LOG_NAMES) this.#logs[log].source = undefined;
      }
    }
    if (this.#journal.length > this.#compactedLength + COMPACT_AFTER_BYTES) this.#compact();
    this.#wake("entry");
  }

  #appendOrMakeRoom(line: unknown): void {
    try {
      this.#journal.append(line);
    } catch (error) {
      if (!this.#releaseReserve()) throw error;
      this.#journal.append(line);
    }
  }

  #progressOf(log: LogName): Entry[] {
    const { length, source } = this.#logs[log];
    const { taken, source: known } = this.state.logs[log];
    if (length === taken && source === known) return [];
    return [{ t: "taken", log, to: length, ...(source !== undefined && { source }) }];
  }

  /** Says in fewer entries what the journal says. Where the disk does not take it, it stays as it is. */
  #compact(): void {
    try {
      this.#journal.replaceAll(compacted(this.#journal.read().flat(), this.state));
    } catch {
      // A full disk.
    }
    this.#compactedLength = this.#journal.length;
  }

  /** Queues a message behind everything that has been logged so far. */
  send(message: Message): number {
    this.append({ t: "send", message });
    return this.state.nextMessage - 1;
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
  appendLog(log: LogName, phase: Phase, bytes: Uint8Array, more: LogAppend = {}): Promise<void> {
    const target = this.#logs[log];
    const done = target.tail.then(() => this.#write(log, phase, bytes, more));
    target.tail = done.catch(() => {});
    return done;
  }

  async #write(
    log: LogName,
    phase: Phase,
    bytes: Uint8Array,
    { source, entries = [] }: LogAppend,
  ): Promise<void> {
    if (bytes.length > 0) await this.#writeBytes(log, phase, bytes);
    if (source !== undefined) this.#logs[log].source = source;
    if (entries.length > 0) this.append(...entries);
    else if (bytes.length > 0) this.#wake("log");
  }

  async #writeBytes(log: LogName, phase: Phase, bytes: Uint8Array): Promise<void> {
    const target = this.#logs[log];
    if (this.state.logs[log].regions.at(-1)?.phase !== phase) {
      this.append({ t: "region", log, phase, from: target.length });
    }
    const file = this.#opened(log);
    try {
      if (!target.isAtEnd) file.seekSync(target.length, Deno.SeekMode.Start);
      target.isAtEnd = false;
      await writeAll(file, bytes);
      target.isAtEnd = true;
    } catch (error) {
      this.#releaseReserve();
      await file.truncate(target.length);
      throw error;
    }
    target.length += bytes.length;
  }

  /** Bytes that a phase has in a log. */
  lengthOf(log: LogName, phase: Phase): number {
    return lengthOf(this.state.logs[log], phase, this.length(log));
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
      Object.assign(this.#logs[log], { length: 0, synced: 0, isAtEnd: false });
    }
  }

  /**
   * Reads bytes `from` to `to` of a log.
   *
   * @param into where they are put; it has room for all of them.
   */
  async readLog(
    log: LogName,
    from: number,
    to: number,
    into: Uint8Array<ArrayBuffer> = new Uint8Array(to - from),
  ): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = into.subarray(0, to - from);
    let opened: Deno.FsFile;
    try {
      opened = Deno.openSync(join(this.folder, log), { read: true });
    } catch (error) {
      // The folder was removed under the job: what is open is there still, until it is closed.
      const { file, tail } = this.#logs[log];
      if (!isGone(error) || file === undefined) throw error;
      const read = tail.then(() => {
        this.#logs[log].isAtEnd = false;
        return readPart(file, from, bytes);
      });
      this.#logs[log].tail = read.then(() => {}, () => {});
      return await read;
    }
    using file = opened;
    return await readPart(file, from, bytes);
  }

  /** Resolves when a power cut can no longer take what has been written so far. */
  async sync(): Promise<void> {
    for (const log of LOG_NAMES) await this.syncLog(log, this.length(log));
    await this.#journal.sync();
  }

  /** Resolves when a power cut can no longer take the first `to` bytes of a log. */
  async syncLog(log: LogName, to: number): Promise<void> {
    const target = this.#logs[log];
    // Nothing is known of what an earlier process wrote: it may have had no time for this.
    if (target.synced >= to) return;
    const { length } = target;
    // Opened once more: what is written meanwhile would wait in the same queue.
    using file = Deno.openSync(join(this.folder, log));
    await file.syncData();
    target.synced = Math.max(target.synced, length);
  }

  /** The same of all entries so far. */
  async syncEntries(): Promise<void> {
    await this.#journal.sync();
  }

  /**
   * Resolves at the next entry.
   *
   * @param options.ofLogs also when there is more of a log. @default false
   * @throws the signal's reason when it aborts.
   */
  changed(signal?: AbortSignal, { ofLogs = false } = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const waiter: Waiter = {
        ofLogs,
        wake: () => {
          signal?.removeEventListener("abort", abort);
          resolve();
        },
      };
      const abort = () => {
        this.#waiters = this.#waiters.filter((each) => each !== waiter);
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", abort, { once: true });
      this.#waiters.push(waiter);
    });
  }

  /**
   * Resolves when the server has message `n`, or has refused it.
   *
   * @throws the signal's reason when it aborts.
   */
  async acknowledged(n: number, signal?: AbortSignal): Promise<void> {
    while (this.state.pending.some((pending) => pending.n === n)) await this.changed(signal);
  }

  #wake(change: "entry" | "log"): void {
    const { woken = [], waiting = [] } = Object.groupBy(
      this.#waiters,
      ({ ofLogs }) => change === "entry" || ofLogs ? "woken" : "waiting",
    );
    this.#waiters = waiting;
    for (const { wake } of woken) wake();
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
    const { taken, source } = this.state.logs[log];
    target.source = source;
    // It had been given up, and was to be emptied.
    target.length = this.state.logGivenUp ? 0 : wholeLength(file, size);
    // Where the rest came from is not known: it is read again from there.
    if (this.state.takenUp !== undefined) target.length = Math.min(target.length, taken);
    if (target.length < size) file.truncateSync(target.length);
    // The journal may know of more than the disk has kept.
    if (reachesBeyond(this.state.logs[log], target.length)) {
      this.append({ t: "cut", log, length: target.length });
    }
  }

  /** Closes the files. What is on disk stays. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.rest();
    this.#wake("entry");
  }
}

function emptyLog(): OpenLog {
  return {
    file: undefined,
    isAtEnd: false,
    length: 0,
    source: undefined,
    tail: Promise.resolve(),
    synced: 0,
  };
}

/** Up to so much is read at once. */
const SHORT_BYTES = 32 * 1024;

/** Fills `bytes` from a place in a file. @returns as much of them as there was. */
async function readPart(
  file: Deno.FsFile,
  from: number,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  file.seekSync(from, Deno.SeekMode.Start);
  let filled = 0;
  while (filled < bytes.length) {
    const rest = bytes.subarray(filled);
    // What is short was written a moment ago, and takes less time than asking another thread for it.
    const read = rest.length <= SHORT_BYTES ? file.readSync(rest) : await file.read(rest);
    if (read === null) break;
    filled += read;
  }
  return bytes.subarray(0, filled);
}

/** Whether a newer version began the journal, whose entries may mean what this one does not know. */
function isNewer(entry: Entry): boolean {
  return entry.t === "accepted" && (entry.version ?? 0) > JOURNAL_VERSION;
}

function isGone(error: unknown): boolean {
  return error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory;
}

function messageEntry(message: Message, n: number, after: Record<LogName, number>): Entry {
  return { t: "message", n, message, after };
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
  return from + read - cutAtEnd(end.subarray(0, read));
}
