/**
 * The log of one phase: what its command prints and what the agent has to say of it. The way of
 * the bytes: cleaned to UTF-8, secrets masked, then to `<phase>.log` and to the outbox.
 */
import { join } from "node:path";
import { messageOf } from "../message.ts";
import type { Observer } from "../observe/observer.ts";
import type { Outbox } from "../outbox/outbox.ts";
import type { Phase } from "../phases.ts";
import type { RedactorStream, Secrets } from "../process/redactor.ts";
import { utf8Cleaner } from "../process/utf8.ts";
import { openForWriting } from "./regular_file.ts";

const NEWLINE = 0x0a;
const encoder = new TextEncoder();

/** Where a phase's log goes, and what must not be in it. */
export interface PhaseLogOptions {
  outbox: Outbox;
  phase: Phase;
  /** The job's folder. */
  folder: string;
  secrets: Secrets;
  observer: Observer;
}

/** The log of one phase, open for writing. */
export class PhaseLog implements AsyncDisposable {
  readonly #options: PhaseLogOptions;
  readonly #cleaner = utf8Cleaner();
  readonly #redactor: RedactorStream;
  #file: Deno.FsFile | undefined;
  #atLineStart = true;
  /** Set when the disk is full: what room is left is for what the agent has to say. */
  #isFull = false;
  /** The end of the writes under way: the command and the agent write to the same log. */
  #tail: Promise<void> = Promise.resolve();

  private constructor(options: PhaseLogOptions, file: Deno.FsFile | undefined) {
    this.#options = options;
    this.#file = file;
    this.#redactor = options.secrets.stream();
  }

  /** Opens the log; without `<phase>.log` if that cannot be made, since the server's copy counts. */
  static open(options: PhaseLogOptions): Promise<PhaseLog> {
    return Promise.resolve(new PhaseLog(options, openLog(options)));
  }

  /**
   * Takes what the command printed. The end of it may be held back while it could be the beginning
   * of a secret.
   *
   * @throws {Error} what the file system says when the disk is full.
   */
  write(bytes: Uint8Array): Promise<void> {
    return this.#inOrder(async () => {
      if (this.#isFull) return;
      try {
        await this.#emit(this.#redactor.push(this.#cleaner.push(bytes)));
      } catch (error) {
        this.#isFull = true;
        throw error;
      }
    });
  }

  /**
   * Adds a line of the agent's own, on a line of its own. A disk that is full takes it too, as long
   * as there is ballast; after that it is lost, which must not be the end of a job.
   */
  say(line: string): Promise<void> {
    return this.#inOrder(async () => {
      await this.#releaseHeld();
      const text = this.#options.secrets.redactText(line);
      await this.#emit(encoder.encode(`${this.#atLineStart ? "" : "\n"}${text}\n`));
    }).catch(() => {});
  }

  async #releaseHeld(): Promise<void> {
    const cleaned = this.#redactor.push(this.#cleaner.flush());
    await this.#emit(cleaned);
    await this.#emit(this.#redactor.flush());
  }

  async #emit(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return;
    const { outbox, phase, observer } = this.#options;
    await outbox.appendLog("output", phase, bytes);
    this.#atLineStart = bytes.at(-1) === NEWLINE;
    observer.output(bytes);
    await this.#emitToFile(bytes);
  }

  /** The file in the job's folder is a second copy: when it cannot be written, the job goes on. */
  async #emitToFile(bytes: Uint8Array): Promise<void> {
    if (this.#file === undefined) return;
    try {
      for (let written = 0; written < bytes.length;) {
        written += await this.#file.write(bytes.subarray(written));
      }
    } catch (error) {
      this.#file.close();
      this.#file = undefined;
      const { phase } = this.#options;
      await this.#emit(encoder.encode(
        `${this.#atLineStart ? "" : "\n"}WARNING: ${phase}.log in the job's folder ends here: ` +
          `${messageOf(error)}\n`,
      ));
    }
  }

  #inOrder(task: () => Promise<void>): Promise<void> {
    const done = this.#tail.then(task);
    this.#tail = done.catch(() => {});
    return done;
  }

  /** Lets go of what was held back, and closes the file. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inOrder(() => this.#releaseHeld()).catch(() => {});
    this.#file?.close();
    this.#file = undefined;
  }
}

/** A job may have put a link or a FIFO there: then there is no such file. */
function openLog({ folder, phase }: PhaseLogOptions): Deno.FsFile | undefined {
  try {
    return openForWriting(join(folder, `${phase}.log`), { mode: 0o644, append: true });
  } catch {
    return undefined;
  }
}
