/** The folder in which a job's commands run: made, trusted, handed over, removed. */
import { basename, dirname, exists, join } from "../path.ts";
import type { AgentConfig } from "../config/agent_config.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import type { Outbox } from "../outbox/outbox.ts";
import {
  fillJobFolder,
  JOB_FILE,
  leftoversOf,
  makeJobFolder,
  moveFolder,
  removeFolder,
  trashOf,
} from "./folder.ts";
import type { Job } from "./job.ts";
import { examineFolder } from "./untrusted_paths.ts";

/**
 * The working folder of one job: `execution_basedir/job_id`, or, where another agent of this host
 * works on a job of the same id there, a name next to it.
 */
export class WorkingFolder {
  readonly #job: Job;
  readonly #config: AgentConfig;
  readonly #log: Log;
  #path: string;

  constructor(job: Job, config: AgentConfig, log: Log) {
    this.#job = job;
    this.#config = config;
    this.#log = log;
    const isTaken = exists(this.#ownPath) ||
      claimantOf(this.#usualPath, config.agent_id) === "another agent";
    this.#path = isTaken ? this.#ownPath : this.#usualPath;
  }

  /** Where it is; settled when it has been made. */
  get path(): string {
    return this.#path;
  }

  get #usualPath(): string {
    return join(this.#config.execution_basedir, this.#job.jobId);
  }

  get #ownPath(): string {
    return `${this.#usualPath}~${encodeURIComponent(this.#config.agent_id)}`;
  }

  /** Takes the usual folder for this agent; false where another one has it. */
  #takeUsualPath(): boolean {
    try {
      // A link, since it has its content at once.
      Deno.symlinkSync(this.#config.agent_id, claimOf(this.#usualPath));
    } catch {
      // It exists, or the disk is full: nobody must do without a folder for that.
    }
    return claimantOf(this.#usualPath, this.#config.agent_id) !== "another agent";
  }

  /** Checked again for each job: `/tmp` is tidied now and then, and anybody may then be quicker. */
  whyDistrusted(): string | undefined {
    try {
      const { refusal } = examineFolder(this.#config.execution_basedir, Deno.uid() ?? 0);
      return refusal && `Cannot trust execution_basedir: ${refusal}`;
    } catch (error) {
      // A missing one is created again.
      if (error instanceof Deno.errors.NotFound) return undefined;
      return `Cannot use execution_basedir: ${messageOf(error)}`;
    }
  }

  /**
   * Creates it again, with the files that device connectors look for.
   *
   * @throws {Error} what the file system says, or why its place is not to be trusted.
   */
  async make(): Promise<void> {
    const distrust = this.whyDistrusted();
    if (distrust !== undefined) throw new Error(distrust);
    const { execution_basedir } = this.#config;
    await Deno.mkdir(execution_basedir, { recursive: true, mode: 0o755 });
    if (this.#path === this.#usualPath && !this.#takeUsualPath()) this.#path = this.#ownPath;
    if (this.#path !== this.#usualPath) {
      this.#log.warning(
        `Another agent of this host works on job ${this.#job.jobId} in ${this.#usualPath}: ` +
          `this one works in ${this.#path}. Give each agent its own execution_basedir`,
      );
    }
    await makeJobFolder(execution_basedir, basename(this.#path), { log: this.#log });
    await fillJobFolder(this.path, this.#job.text);
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
    const { agent_id, execution_basedir } = this.#config;
    const name = `.artifacts-${encodeURIComponent(agent_id)}-${basename(outbox.folder)}`;
    const aside = join(execution_basedir, name);
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
    const { agent_id } = this.#config;
    const trash = trashOf(this.#config);
    const log = this.#log;
    for (const folder of [this.path, keep]) {
      if (folder !== undefined) await Deno.remove(join(folder, JOB_FILE)).catch(() => {});
    }
    if (keep !== this.path && await isFolder(this.path)) {
      await removeFolder(this.path, { trash, log });
    }
    for (const leftover of await leftoversOf(this.path).catch(() => [])) {
      await removeFolder(leftover, { trash, log });
    }
    if (!await isFolder(this.#usualPath)) await forgetClaim(this.#usualPath, agent_id);
    if (keep === undefined) return;
    for await (const entry of Deno.readDir(keep)) {
      if (entry.name !== "artifacts") await removeFolder(join(keep, entry.name), { trash, log });
    }
  }
}

/** Says which agent a job's folder belongs to. It is next to it: the job may do as it likes in its own. */
function claimOf(folder: string): string {
  return join(dirname(folder), `.agent-of-${basename(folder)}`);
}

function claimantOf(folder: string, agentId: string): "this agent" | "another agent" | undefined {
  try {
    return Deno.readLinkSync(claimOf(folder)) === agentId ? "this agent" : "another agent";
  } catch (error) {
    // One that cannot be read is not this agent's own.
    return error instanceof Deno.errors.NotFound ? undefined : "another agent";
  }
}

/** A job's folder has been removed: its name is free for other agents of this host. */
export async function forgetClaim(folder: string, agentId: string): Promise<void> {
  if (claimantOf(folder, agentId) === "this agent") {
    await Deno.remove(claimOf(folder)).catch(() => {});
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
