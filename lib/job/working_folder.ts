/** The folder in which a job's commands run: made, trusted, handed over, removed. */
import { join } from "node:path";
import type { AgentConfig } from "../config/agent_config.ts";
import type { Log } from "../log.ts";
import type { Spool } from "../outbox/spool.ts";
import { fillJobFolder, JOB_FILE, makeJobFolder, moveFolder, removeFolder } from "./folder.ts";
import type { Job } from "./job.ts";
import { messageOf } from "./message.ts";
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
   * Moves the artifacts to where they wait for their delivery, and sends them.
   *
   * @returns this folder when they cannot be moved out of it: it is on another file system.
   */
  async handOverArtifacts(spool: Spool): Promise<string | undefined> {
    if (spool.standing.sent.has("artifacts")) return undefined;
    const from = join(this.path, "artifacts");
    const to = join(spool.folder, "artifacts");
    if (await isFolder(from) && !await isFolder(to)) {
      if (!await moveFolder(from, to)) {
        spool.send({ kind: "artifacts", folder: this.path });
        return this.path;
      }
    }
    if (await isFolder(to)) spool.send({ kind: "artifacts", folder: spool.folder });
    return undefined;
  }

  /** Removes it, or all but the artifacts in it. Its secrets go first of all. */
  async remove(keepArtifacts: boolean): Promise<void> {
    const { execution_basedir, agent_id } = this.#config;
    const trash = join(execution_basedir, `.trash-${encodeURIComponent(agent_id)}`);
    const log = this.#log;
    await Deno.remove(join(this.path, JOB_FILE)).catch(() => {});
    if (!keepArtifacts) {
      if (await isFolder(this.path)) await removeFolder(this.path, { trash, log });
      return;
    }
    for await (const entry of Deno.readDir(this.path)) {
      if (entry.name !== "artifacts") {
        await removeFolder(join(this.path, entry.name), { trash, log });
      }
    }
  }
}

async function isFolder(path: string): Promise<boolean> {
  return await Deno.lstat(path).then((info) => info.isDirectory, () => false);
}
