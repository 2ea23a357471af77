/**
 * The jobs of which the server has everything. Should it hand one of them out again, the log of the new run goes
 * behind the one that is there.
 */
import { replaceFile } from "../bytes.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { Said } from "../once.ts";
import { join } from "../path.ts";
import { isJobId } from "../server/answers.ts";
import { readSmallFile } from "./untrusted_paths.ts";

/** Those of some days; an id is forgotten when so many jobs were delivered after it. */
const MOST_JOBS = 500;
const MOST_BYTES = 1024 * 1024;
const FILE_NAME = "delivered";

/** Their ids, oldest first, in memory and in a file: one a line. */
export class DeliveredJobs {
  readonly #path: string;
  readonly #log: Log;
  readonly #said = new Said();
  #ids: string[];

  /** @param folder the agent's own. What cannot be read in it is as if it were not there. */
  constructor(folder: string, log: Log) {
    this.#path = join(folder, FILE_NAME);
    this.#log = log;
    this.#ids = this.#read();
  }

  #read(): string[] {
    try {
      const text = new TextDecoder().decode(readSmallFile(this.#path, MOST_BYTES));
      return text.split("\n").filter(isJobId).slice(-MOST_JOBS);
    } catch {
      return []; // A first start.
    }
  }

  has(jobId: string): boolean {
    return this.#ids.includes(jobId);
  }

  /** A disk that does not take it is told of once: the jobs of this process are known all the same. */
  add(jobId: string): void {
    const others = this.#ids.filter((id) => id !== jobId);
    this.#ids = [...others, jobId].slice(-MOST_JOBS);
    try {
      replaceFile(this.#path, `${this.#ids.join("\n")}\n`);
      this.#said.forget("write");
    } catch (error) {
      if (!this.#said.isNew("write")) return;
      this.#log.warning(
        `Cannot write ${this.#path}: ${
          messageOf(error)
        }. A job that the server hands out again after ` +
          "the next start of the agent may have the logs of both runs mixed up; other jobs are not affected.",
      );
    }
  }
}
