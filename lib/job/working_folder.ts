/** The folder in which a job's commands run: made, trusted, handed over, removed. */
import { basename, join } from "node:path";
import type { AgentConfig } from "../config/agent_config.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { fillJobFolder, JOB_FILE, makeJobFolder, moveFolder, removeFolder } from "./folder.ts";
import type { Job } from "./job.ts";
import { examineFolder } from "./trusted_folder.ts";

/** The working folder of one job. */
export class WorkingFolder {
  readonly path: string;
  readonly #job: Job;
  readonly #config: AgentConfig;
  readonly #log: Log;

  constructor(job: Job, config: AgentConfig, log: Log) {
    this.path = join(config.execution_basedir, job.jobId);
    this.#job = job;
    this.#config = config;
    this.#log = log;
  }

  /** Looked at anew for each job: `/tmp` is tidied now and then, and anybody may then be quicker. */
  whyDistrusted(): string | undefined {
    try {
      const { refusal } = examineFolder(this.#config.execution_basedir, Deno.uid() ?? 0);
      return refusal && `Cannot trust execution_basedir: ${refusal}`;
    } catch (error) {
      // One that is gone is made anew.
      if (error instanceof Deno.errors.NotFound) return undefined;
      return `Cannot use execution_basedir: ${messageOf(error)}`;
    }
  }

  /**
   * Makes it anew, with the files that device connectors look for.
   *
   * @throws {Error} what the file system says, or why its place is not to be trusted.
   */
  async make(): Promise<void> {
    const distrust = this.whyDistrusted();
    if (distrust !== undefined) throw new Error(distrust);
    await makeJobFolder(this.#config.execution_basedir, this.#job.jobId, { log: this.#log });
    await fillJobFolder(this.path, JSON.stringify(this.#job.received));
  }

  /** A cleanup command finds its folder and `testflinger.json`, whatever became of them. */
  async remake(): Promise<void> {
    if (await isFolder(this.path)) return;
    await this.make().catch((error) => {
      this.#log.error(
        `Cannot make the folder ${this.path} again, cleanup will fail: ${messageOf(error)}`,
      );
    });
  }

  /**
   * Moves the artifacts to where they wait for their delivery, and sends them. May be done again
   * after a kill at any moment.
   *
   * @returns the folder that holds them when they cannot be moved into the outbox's; it has to be
   * removed when they have been delivered.
   */
  async handOverArtifacts(outbox: Outbox): Promise<string | undefined> {
    const aside = join(this.#config.execution_basedir, `.artifacts-${basename(outbox.folder)}`);
    let place: string | undefined;
    if (outbox.state.sent.has("artifacts")) {
      place = waitingIn(outbox) ?? (await isFolder(aside) ? aside : undefined);
    } else {
      place = await this.#moveArtifacts(outbox, aside);
      if (place !== undefined) outbox.send({ kind: "artifacts", folder: place });
    }
    return place === outbox.folder ? undefined : place;
  }

  /** Returns the folder in which the artifacts are then; undefined when there are none. */
  async #moveArtifacts(outbox: Outbox, aside: string): Promise<string | undefined> {
    const to = join(outbox.folder, "artifacts");
    // An earlier process may have come as far as this.
    if (await isFolder(to)) return outbox.folder;
    if (await isFolder(aside)) return aside;
    const from = join(this.path, "artifacts");
    if (!await isFolder(from)) return undefined;
    if (await moveFolder(from, to).catch(() => false)) return outbox.folder;
    // Another file system, or a folder that a container has left to another user. The name of the
    // working folder should be free for a job that is handed out again.
    return await Deno.rename(this.path, aside).then(() => aside, () => this.path);
  }

  /**
   * Removes it. Its secrets go first of all.
   *
   * @param keep what `handOverArtifacts()` gave back: all but the artifacts is removed from it.
   */
  async remove(keep?: string): Promise<void> {
    const { execution_basedir, agent_id } = this.#config;
    const trash = join(execution_basedir, `.trash-${encodeURIComponent(agent_id)}`);
    const log = this.#log;
    for (const folder of [this.path, keep]) {
      if (folder !== undefined) await Deno.remove(join(folder, JOB_FILE)).catch(() => {});
    }
    if (keep !== this.path && await isFolder(this.path)) {
      await removeFolder(this.path, { trash, log });
    }
    if (keep === undefined) return;
    for await (const entry of Deno.readDir(keep)) {
      if (entry.name !== "artifacts") await removeFolder(join(keep, entry.name), { trash, log });
    }
  }
}

/** Where the artifacts are that wait for their delivery. */
function waitingIn(outbox: Outbox): string | undefined {
  for (const { message } of outbox.state.pending) {
    if (message.kind === "artifacts") return message.folder;
  }
}

async function isFolder(path: string): Promise<boolean> {
  return await Deno.lstat(path).then((info) => info.isDirectory, () => false);
}
