/**
 * The log of one phase: what its command prints and what the agent has to say of it. The way of
 * the bytes: cleaned to UTF-8, secrets masked, then to the outbox and to `<phase>.log`.
 */
import { writeAll } from "../bytes.ts";
import { messageOf } from "../message.ts";
import type { Emit } from "../observe/events.ts";
import type { Entry, Source } from "../outbox/entries.ts";
import type { LogAppend, MessageDraft, Outbox } from "../outbox/outbox.ts";
import { join } from "../path.ts";
import type { Phase } from "../phases.ts";
import type { Secrets } from "../process/redactor.ts";
import { TextFilter } from "../process/text_filter.ts";
import { openForWriting } from "./untrusted_paths.ts";

const NEWLINE = 0x0a;
const encoder = new TextEncoder();

/** Where a phase's log goes, and what must not be in it. */
export interface PhaseLogOptions {
  outbox: Outbox;
  phase: Phase;
  /** The job's folder. */
  folder: string;
  secrets: Secrets;
  emit: Emit;
  /** The phase is one that an earlier process has left running. @default false */
  isTakenUp?: boolean;
}

/** Something for the journal that goes with a line. */
export type Drafts = readonly (Entry | MessageDraft)[];

/** The log of one phase, open for writing. */
export class PhaseLog implements AsyncDisposable {
  readonly #options: PhaseLogOptions;
  readonly #filter: TextFilter;
  #file: Deno.FsFile | undefined;
  #atLineStart: boolean;
  /** Where in the output of the command that runs the byte is that comes so many before the next one. */
  #place: ((back: number) => Source) | undefined;
  /** Set when the disk is full: what room is left is for what the agent has to say. */
  #isFull = false;
  #isLeft = false;
  /** The end of the writes that have begun: the command and the agent write to the same log. */
  #tail: Promise<void> = Promise.resolve();

  private constructor(options: PhaseLogOptions, atLineStart: boolean) {
    this.#options = options;
    this.#filter = new TextFilter(options.secrets);
    this.#atLineStart = atLineStart;
    this.#file = openLog(options);
  }

  /**
   * Opens the log where it ends; without `<phase>.log` if that cannot be made, since the server's copy
   * counts.
   */
  static async open(options: PhaseLogOptions): Promise<PhaseLog> {
    const { outbox, phase } = options;
    const length = outbox.length("output");
    const latest = outbox.state.logs.output.regions.at(-1)?.phase ?? phase;
    const [last = NEWLINE] = latest !== phase || length === 0
      ? []
      : await outbox.readLog("output", length - 1, length);
    return new PhaseLog(options, last === NEWLINE);
  }

  /**
   * Takes what the command printed. The end of it may be held back while it could be the beginning
   * of a secret.
   *
   * @param place tells where the bytes arrived from: the place so many bytes before the end of `bytes`.
   * @throws {Error} what the file system says when the disk is full.
   */
  write(bytes: Uint8Array, place: (back: number) => Source): Promise<void> {
    return this.#inOrder(async () => {
      if (this.#isFull) return;
      this.#place = place;
      try {
        const text = this.#filter.push(bytes);
        await this.#emit(text, { source: place(this.#filter.held) });
      } catch (error) {
        this.#isFull = true;
        throw error;
      }
    });
  }

  /**
   * Adds a line of the agent's own, on a line of its own. A disk that is full takes it too, as long
   * as there is reserved space; after that it is lost, which must not be the end of a job.
   *
   * @param drafts are written down together with it, and in any case.
   */
  say(line: string, drafts: Drafts = []): Promise<void> {
    return this.#inOrder(async () => {
      let isWritten = false;
      try {
        await this.#releaseHeld();
        const text = this.#options.secrets.redactText(line);
        const bytes = encoder.encode(`${this.#atLineStart ? "" : "\n"}${text}\n`);
        await this.#toOutbox(bytes, { entries: drafts });
        isWritten = true;
        await this.#toOthers(bytes);
      } catch {
        if (!isWritten) this.#options.outbox.append(...drafts);
      }
    });
  }

  /** Closes the log in the middle: the next one goes on with what is held back now. */
  async leave(): Promise<void> {
    this.#isLeft = true;
    await this.#tail;
    this.#closeFile();
  }

  async #releaseHeld(): Promise<void> {
    await this.#emit(this.#filter.flush(), { source: this.#place?.(0) });
  }

  async #emit(bytes: Uint8Array, more: LogAppend): Promise<void> {
    await this.#toOutbox(bytes, more);
    if (bytes.length > 0) await this.#toOthers(bytes);
  }

  async #toOutbox(bytes: Uint8Array, more: LogAppend): Promise<void> {
    const { outbox, phase } = this.#options;
    await outbox.appendLog("output", phase, bytes, more);
    if (bytes.length > 0) this.#atLineStart = bytes.at(-1) === NEWLINE;
  }

  async #toOthers(bytes: Uint8Array): Promise<void> {
    const { emit, outbox, phase } = this.#options;
    emit({ type: "output", job: outbox.jobId, phase, bytes });
    await this.#toFile(bytes);
  }

  /** The file in the job's folder is a second copy: when it cannot be written, the job goes on. */
  async #toFile(bytes: Uint8Array): Promise<void> {
    if (this.#file === undefined) return;
    try {
      await writeAll(this.#file, bytes);
    } catch (error) {
      this.#closeFile();
      const { phase } = this.#options;
      const warning = encoder.encode(
        `${this.#atLineStart ? "" : "\n"}WARNING: ${phase}.log in the job's folder ends here: ` +
          `${messageOf(error)}\n`,
      );
      await this.#emit(warning, {});
    }
  }

  #inOrder(task: () => Promise<void>): Promise<void> {
    const done = this.#tail.then(task);
    this.#tail = done.catch(() => {});
    return done;
  }

  #closeFile(): void {
    this.#file?.close();
    this.#file = undefined;
  }

  /** Lets go of what was held back, and closes the file. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isLeft) await this.#inOrder(() => this.#releaseHeld()).catch(() => {});
    this.#closeFile();
  }
}

/** A job may have put a link or a FIFO there: then there is no such file. */
function openLog(
  { folder, phase, outbox, isTakenUp = false }: PhaseLogOptions,
): Deno.FsFile | undefined {
  try {
    const file = openForWriting(join(folder, `${phase}.log`), { mode: 0o644, append: true });
    // The earlier process may have written what is read again now.
    const length = outbox.lengthOf("output", phase);
    if (isTakenUp && file.statSync().size > length) file.truncateSync(length);
    return file;
  } catch {
    return undefined;
  }
}
