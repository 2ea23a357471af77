/**
 * The jobs of one agent on disk, in `results_basedir/agent-<agent_id>/jobs`: one folder per job,
 * from the moment the server hands it out until the server has everything of it.
 */
import { writeAll } from "../bytes.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { JOURNAL_VERSION } from "../outbox/entries.ts";
import type { JournalHook } from "../outbox/journal.ts";
import { Outbox } from "../outbox/outbox.ts";
import { basename, join } from "../path.ts";
import { PHASES } from "../phases.ts";
import { removeTree } from "../remove_tree.ts";
import type { PhaseStatuses } from "../server/schema.ts";
import { isJobId } from "../server/answers.ts";
import { DamagedJobs } from "./damaged_jobs.ts";
import { DeliveredJobs } from "./delivered_jobs.ts";
import type { Job } from "./job.ts";
import { readSmallFile } from "./untrusted_paths.ts";

/** The job as it was received, secrets included; gone when the job has ended. */
const RECEIVED_NAME = "job.json";
/** Larger than any answer that a job is read from. */
const MOST_RECEIVED_BYTES = 64 * 1024 * 1024;

/** The folder in `results_basedir` that holds everything an agent keeps. */
export function agentFolder(resultsBasedir: string, agentId: string): string {
  return join(resultsBasedir, `agent-${encodeURIComponent(agentId)}`);
}

/** The folder of the jobs, in an agent's own one. */
export function jobsFolderIn(agentFolder: string): string {
  return join(agentFolder, "jobs");
}

/** A job as it was received. */
interface Received {
  job: Record<string, unknown>;
  text: string;
}

/** A job that an earlier process left. */
export interface Leftover {
  outbox: Outbox;
  /** The job as it was received, secrets included; undefined once it has ended. */
  received: Received | undefined;
}

/** The jobs of one agent. */
export class JobStore {
  readonly folder: string;
  readonly #log: Log;
  readonly #damaged: DamagedJobs;
  readonly #delivered: DeliveredJobs;
  readonly #onJournal: JournalHook | undefined;

  /**
   * @param folder from `agentFolder()`; made if it does not exist.
   * @throws {Error} what the file system says.
   */
  constructor(folder: string, log: Log, onJournal?: JournalHook) {
    this.folder = folder;
    this.#log = log;
    this.#onJournal = onJournal;
    this.#damaged = new DamagedJobs(join(folder, "damaged"), log);
    this.makeFolder();
    this.#delivered = new DeliveredJobs(folder, log);
  }

  /** Where the jobs are; each has a folder in it. */
  get jobsFolder(): string {
    return jobsFolderIn(this.folder);
  }

  /**
   * Makes the folder of the jobs where it is missing.
   *
   * @throws {Error} what the file system says.
   */
  makeFolder(): void {
    Deno.mkdirSync(this.jobsFolder, { recursive: true, mode: 0o700 });
  }

  /** What is half there, on its way in or out; the next start clears it. */
  get #partial(): string {
    return join(this.folder, "partial");
  }

  #makePartial(): string {
    Deno.mkdirSync(this.#partial, { recursive: true, mode: 0o700 });
    return Deno.makeTempDirSync({ dir: this.#partial });
  }

  /**
   * Writes down that the job is ours, and the job itself, before anything else is done with it.
   *
   * @param earlier outboxes of the same job id that the server does not have wholly yet.
   * @throws {Error} what the file system says; nothing is left behind then.
   */
  async accept(job: Job, earlier: readonly Outbox[], now: number): Promise<Outbox> {
    // Not before the earlier ones, whatever has become of the host's clock since.
    const at = Math.max(now, ...earlier.map((outbox) => acceptedAt(outbox) + 1));
    const name = earlier.length === 0 ? job.jobId : `${job.jobId}~${at.toString(36)}`;
    const folder = join(this.jobsFolder, name);
    await Deno.mkdir(folder, { mode: 0o700 });
    try {
      await writeReceived(folder, job);
      const { outbox } = Outbox.open(folder, this.#log, this.#onJournal);
      outbox.reserveSpace();
      outbox.append({
        t: "accepted",
        version: JOURNAL_VERSION,
        at,
        jobId: job.jobId,
        queue: job.queue,
        ...(job.webhook !== undefined && { webhook: job.webhook }),
        rerun: earlier.length > 0 || this.hasDelivered(job.jobId),
      });
      await outbox.sync();
      syncFolder(folder);
      syncFolder(this.jobsFolder);
      return outbox;
    } catch (error) {
      await Deno.remove(folder, { recursive: true }).catch(() => {});
      throw error;
    }
  }

  /**
   * Takes in a job that has ended elsewhere: atomically, since half of it would be taken for one
   * that was interrupted. `leftovers()` will find it.
   *
   * @param statuses those of the phases that ran; they make up the outcome.
   * @param folder holds the folder `artifacts`, if there is one; removed when all is delivered.
   * @throws {Error} what the file system says.
   */
  async takeIn(
    job: Job,
    { statuses, folder, now }: { statuses: PhaseStatuses; folder: string; now: number },
  ): Promise<void> {
    const draft = this.#makePartial();
    try {
      using outbox = Outbox.open(draft, this.#log).outbox;
      const accepted = { t: "accepted", version: JOURNAL_VERSION, rerun: false } as const;
      outbox.append({ ...accepted, at: now, jobId: job.jobId, queue: job.queue });
      for (const phase of PHASES) {
        const status = statuses[phase];
        if (status === undefined) continue;
        outbox.append({ t: "phase_started", phase });
        outbox.append({ t: "phase_ended", phase, status });
      }
      if (await isFolder(join(folder, "artifacts"))) outbox.send({ kind: "artifacts", folder });
      outbox.send({ kind: "outcome", status: statuses });
      outbox.append({ t: "finished", at: now, folder });
      await outbox.sync();
      syncFolder(draft);
      await Deno.rename(draft, this.#takenIn(job));
      syncFolder(this.jobsFolder);
    } catch (error) {
      await Deno.remove(draft, { recursive: true }).catch(() => {});
      throw error;
    }
  }

  /** Whether a job was taken in and is not wholly delivered yet. */
  async hasTakenIn(job: Job): Promise<boolean> {
    return await Deno.lstat(this.#takenIn(job)).then(() => true, () => false);
  }

  #takenIn(job: Job): string {
    return join(this.jobsFolder, `${job.jobId}~adopted`);
  }

  /**
   * Opens what earlier processes left, oldest first. What cannot be opened is moved to damaged/; a job whose
   * id is known by the name of its folder is there anyway, with nothing but that, to be ended.
   */
  async leftovers(): Promise<Leftover[]> {
    await this.#clearPartial();
    const leftovers: Leftover[] = [];
    for (const entry of [...Deno.readDirSync(this.jobsFolder)]) {
      if (entry.name.startsWith(".")) continue; // What a file system hides.
      const leftover = this.#openOrPutAside(entry.name);
      if (leftover === undefined) continue;
      leftover.outbox.rest();
      leftovers.push(leftover);
    }
    return leftovers.sort((a, b) => acceptedAt(a.outbox) - acceptedAt(b.outbox));
  }

  #openOrPutAside(name: string): Leftover | undefined {
    const folder = join(this.jobsFolder, name);
    const [jobId] = name.split("~");
    try {
      if (!isJobId(jobId)) throw new Error("it does not have the name of a job");
      return this.#open(folder, jobId);
    } catch (error) {
      if (isPassing(error)) {
        this.#leaveForLater(folder, error);
        return undefined;
      }
      const aside = this.#damaged.putAside(folder, error);
      if (aside === undefined) return undefined;
      // It waits for a person, and for as long as that takes: without the job's secrets.
      removeQuietly(join(aside, RECEIVED_NAME));
      return isJobId(jobId) ? this.#startOver(folder, jobId) : undefined;
    }
  }

  #open(folder: string, jobId: string): Leftover {
    if (!Deno.lstatSync(folder).isDirectory) throw new Error("it is no folder");
    const path = join(folder, "record");
    // Read before Outbox.open() cuts off what is torn, so that a person can look at all of it.
    const bytes = existingBytes(path);
    const { outbox, damaged, unknown } = Outbox.open(folder, this.#log, this.#onJournal);
    const named = outbox.state.accepted?.jobId;
    if (named !== undefined && named !== jobId) {
      outbox[Symbol.dispose]();
      throw new Error(`its journal is that of another job, ${named}`);
    }
    if (damaged + unknown > 0) {
      const fault = { jobId: outbox.jobId, path, bytes, damaged, unknown };
      this.#damaged.keepCopy(fault, basename(folder));
    }
    return { outbox, received: this.#readReceived(folder, jobId) };
  }

  /** A job of which nothing is known but its id: its submitter waits for its end. */
  #startOver(folder: string, jobId: string): Leftover | undefined {
    try {
      Deno.mkdirSync(folder, { mode: 0o700 });
      const { outbox } = Outbox.open(folder, this.#log, this.#onJournal);
      // The server may have something of it.
      const accepted = { t: "accepted", version: JOURNAL_VERSION, queue: "" } as const;
      outbox.append({ ...accepted, at: 0, jobId, rerun: true });
      return { outbox, received: undefined };
    } catch (error) {
      this.#log.error(
        `Cannot end job ${jobId}, whose journal cannot be read: ${
          messageOf(error)
        }. Cancel it on ` +
          "the server: the agent cannot end it.",
      );
      return undefined;
    }
  }

  /** The job as it was received; undefined where it cannot be read, or is another job. */
  #readReceived(folder: string, jobId: string): Received | undefined {
    const path = join(folder, RECEIVED_NAME);
    try {
      const text = new TextDecoder().decode(readSmallFile(path, MOST_RECEIVED_BYTES));
      const value: unknown = JSON.parse(text);
      if (typeof value !== "object" || value === null) return undefined;
      if ("job_id" in value && value.job_id === jobId) return { job: { ...value }, text };
      this.#log.error(`${path} is not job ${jobId}, which is ended without it.`);
      return undefined;
    } catch {
      return undefined; // The job has ended, or its secrets are lost.
    }
  }

  #leaveForLater(folder: string, error: unknown): void {
    this.#log.error(
      `Cannot open what an earlier run left in ${folder}: ${messageOf(error)}. ` +
        "It is tried again at the next start of the agent.",
    );
  }

  /** The job has ended: nobody needs its secrets any more. */
  forgetReceived(outbox: Outbox): void {
    try {
      Deno.removeSync(join(outbox.folder, RECEIVED_NAME));
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  /** Whether the server has had everything of an earlier run of the job, as far as that is remembered. */
  hasDelivered(jobId: string): boolean {
    return this.#delivered.has(jobId);
  }

  /** Removes a job that the server has wholly; only its id is kept. */
  async remove(outbox: Outbox): Promise<void> {
    this.#delivered.add(outbox.jobId);
    outbox[Symbol.dispose]();
    try {
      // Atomically: half of a job would be taken for one that was interrupted at its beginning.
      const place = this.#makePartial();
      Deno.renameSync(outbox.folder, place);
      const obstacle = await removeTree(place);
      if (obstacle !== undefined) throw new Error(obstacle);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) this.#reportUnremoved(outbox, error);
    }
  }

  #reportUnremoved(outbox: Outbox, error: unknown): void {
    this.#log.error(
      `Cannot remove what was kept of job ${outbox.jobId}, which the server has: ${
        messageOf(error)
      }. ` +
        `It is tried again at the next start of the agent; look at ${outbox.folder} and ${this.#partial}.`,
    );
  }

  /** What an earlier process was about to remove, or to take in. */
  async #clearPartial(): Promise<void> {
    const obstacle = await removeTree(this.#partial);
    if (obstacle === undefined) return;
    this.#log.error(`Cannot remove ${this.#partial}: ${obstacle}. Remove it by hand.`);
  }
}

/** What says nothing of the job itself: too many open files, a full disk, one that cannot be written to. */
const PASSING = ["EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EDQUOT", "EROFS"];

function isPassing(error: unknown): boolean {
  return error instanceof Error && "code" in error && typeof error.code === "string" &&
    PASSING.includes(error.code);
}

function removeQuietly(path: string): void {
  try {
    Deno.removeSync(path);
  } catch {
    // There is none.
  }
}

/** On the disk, since the cleanup after a power cut needs it. */
async function writeReceived(folder: string, job: Job): Promise<void> {
  using file = await Deno.open(join(folder, RECEIVED_NAME), {
    write: true,
    createNew: true,
    mode: 0o600,
  });
  await writeAll(file, new TextEncoder().encode(job.text));
  await file.syncData();
}

/** A file is found again after a power cut when its folder is on the disk, too. */
function syncFolder(path: string): void {
  using folder = Deno.openSync(path);
  folder.syncSync();
}

function existingBytes(path: string): Uint8Array {
  try {
    return readSmallFile(path, Infinity);
  } catch {
    return new Uint8Array();
  }
}

function acceptedAt(outbox: Outbox): number {
  return outbox.state.accepted?.at ?? 0;
}

async function isFolder(path: string): Promise<boolean> {
  return await Deno.lstat(path).then((info) => info.isDirectory, () => false);
}
