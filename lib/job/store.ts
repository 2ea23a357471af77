/**
 * The jobs of one agent on disk, in `results_basedir/agent-<agent_id>/jobs`: one folder per job,
 * from the moment the server hands it out until the server has everything of it.
 */
import { basename, join } from "node:path";
import type { Log } from "../log.ts";
import { Spool } from "../outbox/spool.ts";
import { isJobId, type Job } from "./job.ts";

/** The job as it was received, secrets included; gone when the job has ended. */
const RECEIVED_NAME = "job.json";

/** The folder in `results_basedir` that holds everything an agent keeps. */
export function agentFolder(resultsBasedir: string, agentId: string): string {
  return join(resultsBasedir, `agent-${encodeURIComponent(agentId)}`);
}

/** A job that an earlier process left. */
export interface Leftover {
  spool: Spool;
  /** The job as it was received, secrets included; undefined once it has ended. */
  received: Record<string, unknown> | undefined;
}

/** The jobs of one agent. */
export class JobStore {
  readonly folder: string;
  readonly #log: Log;

  /**
   * @param folder from `agentFolder()`; made if it does not exist.
   * @throws {Error} what the file system says.
   */
  constructor(folder: string, log: Log) {
    this.folder = folder;
    this.#log = log;
    Deno.mkdirSync(this.#jobs, { recursive: true, mode: 0o700 });
  }

  get #jobs(): string {
    return join(this.folder, "jobs");
  }

  /**
   * Writes down that the job is ours, and the job itself, before anything else is done with it.
   *
   * @param earlier spools of the same job id that the server does not have wholly yet.
   * @throws {Error} what the file system says; nothing is left behind then.
   */
  async accept(job: Job, earlier: readonly Spool[], now: number): Promise<Spool> {
    const folder = join(
      this.#jobs,
      earlier.length === 0 ? job.jobId : `${job.jobId}~${now.toString(36)}`,
    );
    await Deno.mkdir(folder, { mode: 0o700 });
    try {
      await Deno.writeTextFile(join(folder, RECEIVED_NAME), JSON.stringify(job.received), {
        createNew: true,
        mode: 0o600,
      });
      const { spool } = Spool.open(folder, this.#log);
      spool.holdBallast();
      spool.append({
        t: "accepted",
        at: now,
        jobId: job.jobId,
        queue: job.queue,
        ...(job.webhook !== undefined && { webhook: job.webhook }),
        rerun: earlier.length > 0,
      });
      await spool.sync();
      return spool;
    } catch (error) {
      await Deno.remove(folder, { recursive: true }).catch(() => {});
      throw error;
    }
  }

  /** Opens what earlier processes left, oldest first. What cannot be opened is put aside. */
  async leftovers(): Promise<Leftover[]> {
    const leftovers: Leftover[] = [];
    for (const entry of Deno.readDirSync(this.#jobs)) {
      const folder = join(this.#jobs, entry.name);
      try {
        if (!entry.isDirectory || !isJobId(entry.name.split("~")[0])) {
          throw new Error("not the folder of a job");
        }
        leftovers.push(this.#open(folder, await readReceived(folder)));
      } catch (error) {
        this.#putAside(folder, error);
      }
    }
    return leftovers.sort((a, b) => acceptedAt(a.spool) - acceptedAt(b.spool));
  }

  #open(folder: string, received: Record<string, unknown> | undefined): Leftover {
    // Read before Spool.open() cuts off what is torn, so that a person can look at all of it.
    const record = join(folder, "record");
    const before = existingBytes(record);
    const { spool, damaged } = Spool.open(folder, this.#log);
    if (damaged === 0) return { spool, received };
    const copy = join(this.folder, "damaged", `${basename(folder)}-${Date.now()}.record`);
    Deno.mkdirSync(join(this.folder, "damaged"), { recursive: true, mode: 0o700 });
    Deno.writeFileSync(copy, before, { mode: 0o600 });
    this.#log.error(
      `The record of job ${spool.jobId} is damaged: ${damaged} of its entries cannot be read. ` +
        "The job is brought to an end with what can be; look for a failing disk.",
      { record, copy },
    );
    return { spool, received };
  }

  #putAside(folder: string, error: unknown): void {
    const aside = join(this.folder, "damaged", `${basename(folder)}-${Date.now()}`);
    const reason = error instanceof Error ? error.message : String(error);
    try {
      Deno.mkdirSync(join(this.folder, "damaged"), { recursive: true, mode: 0o700 });
      Deno.renameSync(folder, aside);
      removeReceived(aside);
      this.#log.error(
        `Cannot read what an earlier run left in ${folder}: ${reason}. It is put aside as ${aside}; ` +
          "look at it, and remove it.",
      );
    } catch (renameError) {
      const why = renameError instanceof Error ? renameError.message : String(renameError);
      this.#log.error(
        `Cannot read what an earlier run left in ${folder}: ${reason}; nor put it aside: ${why}. ` +
          "Remove it by hand.",
      );
    }
  }

  /** The job has ended: nobody needs its secrets any more. */
  forgetReceived(spool: Spool): void {
    try {
      Deno.removeSync(join(spool.folder, RECEIVED_NAME));
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  /** Removes a job that the server has wholly, or that has to make room. */
  async remove(spool: Spool): Promise<void> {
    spool[Symbol.dispose]();
    await Deno.remove(spool.folder, { recursive: true }).catch((error) => {
      if (error instanceof Deno.errors.NotFound) return;
      this.#putAside(spool.folder, error);
    });
  }

  /** Bytes that a job takes up on disk. */
  async size(spool: Spool): Promise<number> {
    return await sizeOf(spool.folder);
  }
}

/** What is put aside waits for a person, and for as long as that takes: without the job's secrets. */
function removeReceived(folder: string): void {
  try {
    Deno.removeSync(join(folder, RECEIVED_NAME));
  } catch {
    // There is none, or it was no folder.
  }
}

async function readReceived(folder: string): Promise<Record<string, unknown> | undefined> {
  try {
    const value: unknown = JSON.parse(await Deno.readTextFile(join(folder, RECEIVED_NAME)));
    return typeof value === "object" && value !== null ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

function existingBytes(path: string): Uint8Array {
  try {
    return Deno.readFileSync(path);
  } catch {
    return new Uint8Array();
  }
}

function acceptedAt(spool: Spool): number {
  return spool.standing.accepted?.at ?? 0;
}

async function sizeOf(path: string): Promise<number> {
  const info = await Deno.lstat(path).catch(() => undefined);
  if (info === undefined) return 0;
  if (!info.isDirectory) return info.size;
  let size = 0;
  try {
    for await (const entry of Deno.readDir(path)) size += await sizeOf(join(path, entry.name));
  } catch {
    // A folder that resists is counted as what could be seen of it.
  }
  return size;
}
