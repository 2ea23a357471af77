/** What of the jobs on disk cannot be read: put where a person can look at it, and said. */
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { basename, join } from "../path.ts";

/** What was found when a journal was opened. */
export interface JournalFault {
  jobId: string;
  /** The journal. */
  path: string;
  /** As it was before anything was mended. */
  bytes: Uint8Array;
  /** Lines that cannot be read. */
  damaged: number;
  /** Entries that are whole, and of a kind that this version does not know. */
  unknown: number;
}

/** The folder `damaged` of an agent. */
export class DamagedJobs {
  readonly #folder: string;
  readonly #log: Log;

  /** @param folder made when it is needed. */
  constructor(folder: string, log: Log) {
    this.#folder = folder;
    this.#log = log;
  }

  /** Keeps a copy of a journal that is about to be used as far as it can be. */
  keepCopy({ jobId, path, bytes, damaged, unknown }: JournalFault, name: string): void {
    const copy = join(this.#folder, `${name}-${Date.now()}.record`);
    try {
      Deno.mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
      Deno.writeFileSync(copy, bytes, { mode: 0o600 });
    } catch (error) {
      this.#log.error(`Cannot keep a copy of the damaged journal ${path}: ${messageOf(error)}`);
    }
    if (unknown > 0) {
      this.#log.warning(
        `The journal of job ${jobId} has ${unknown} entries of a newer version of the agent. The job ` +
          "is ended without them; they are kept in a copy.",
        { journal: path, copy },
      );
    }
    if (damaged > 0) {
      this.#log.error(
        `The journal of job ${jobId} is damaged: ${damaged} of its entries cannot be read. ` +
          "The job is ended with the rest; check the disk for errors.",
        { journal: path, copy },
      );
    }
  }

  /**
   * Moves away what cannot be used at all.
   *
   * @returns where it is now; undefined when it cannot be moved.
   */
  putAside(folder: string, error: unknown): string | undefined {
    const aside = join(this.#folder, `${basename(folder)}-${Date.now()}`);
    const reason = messageOf(error);
    try {
      Deno.mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
      Deno.renameSync(folder, aside);
      this.#log.error(
        `Cannot read what an earlier run left in ${folder}: ${reason}. It is moved to ${aside}; ` +
          "look at it, and remove it.",
      );
      return aside;
    } catch (renameError) {
      this.#log.error(
        `Cannot read what an earlier run left in ${folder}: ${reason}; nor put it aside: ` +
          `${messageOf(renameError)}. Remove it by hand.`,
      );
      return undefined;
    }
  }
}
