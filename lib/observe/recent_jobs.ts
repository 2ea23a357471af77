/** The last jobs of an agent, kept on disk so that they are known after a restart. */
import { Said } from "../once.ts";
import * as z from "zod";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { join } from "../path.ts";
import { PastJob } from "./status_schema.ts";

/** As many as a person reads through. */
const MAX_JOBS = 20;
const FILE_NAME = "recent-jobs.json";

/** A file that some other program has filled is not read into memory. */
const MAX_FILE_BYTES = 1024 * 1024;

const File = z.strictObject({ version: z.literal(1), jobs: z.array(PastJob) });

/** The last jobs, newest first. */
export interface RecentJobs {
  readonly jobs: readonly PastJob[];
  /** Written to disk soon after; a disk that takes nothing is told once. */
  add(job: PastJob): void;
  /** Waits until everything is written. */
  close(): Promise<void>;
}

/** Reads what an earlier process has kept in `folder`; what cannot be read is told and left aside. */
export async function openRecentJobs(folder: string, log: Log): Promise<RecentJobs> {
  const path = join(folder, FILE_NAME);
  let jobs = await read(path, log);
  let writing: Promise<void> | undefined;
  let dirty = false;
  const said = new Said();

  const writeAll = async () => {
    while (dirty) {
      dirty = false;
      try {
        await write(path, JSON.stringify({ version: 1, jobs } satisfies z.infer<typeof File>));
        said.forget("write");
      } catch (error) {
        if (said.isNew("write")) {
          log.warning("Cannot keep the list of recent jobs on disk; jobs are not affected", {
            path,
            reason: messageOf(error),
          });
        }
      }
    }
  };

  return {
    get jobs() {
      return jobs;
    },
    add(job) {
      jobs = [job, ...jobs].slice(0, MAX_JOBS);
      dirty = true;
      writing ??= writeAll().finally(() => writing = undefined);
    },
    async close() {
      await writing;
    },
  };
}

async function read(path: string, log: Log): Promise<PastJob[]> {
  const result = await readFile(path);
  if (result.ok) return result.jobs;
  const { reason } = result;
  log.warning("The list of recent jobs cannot be read; a new one is begun", { path, reason });
  return [];
}

/** The last jobs, newest first, or why they are not known. */
export type RecentJobsRead = { ok: true; jobs: PastJob[] } | {
  ok: false;
  path: string;
  reason: string;
  /** This user may not read it, which says nothing of what is in it. */
  isForbidden: boolean;
};

/** Reads what an agent keeps in `folder`, and changes nothing. */
export async function readRecentJobs(folder: string): Promise<RecentJobsRead> {
  return await readFile(join(folder, FILE_NAME));
}

async function readFile(path: string): Promise<RecentJobsRead> {
  try {
    const { size, isFile } = await Deno.lstat(path);
    if (!isFile || size > MAX_FILE_BYTES) throw new Error("not a file of ours");
    const { jobs } = File.parse(JSON.parse(await Deno.readTextFile(path)));
    return { ok: true, jobs: jobs.slice(0, MAX_JOBS) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { ok: true, jobs: [] };
    const reason = error instanceof z.ZodError ? z.prettifyError(error) : messageOf(error);
    return { ok: false, path, reason, isForbidden: error instanceof Deno.errors.PermissionDenied };
  }
}

/** Atomically: a reader, or a crash, sees the old list or the new one. */
async function write(path: string, text: string): Promise<void> {
  const fresh = `${path}.new`;
  // A left-over of a crash, or another user's link.
  await Deno.remove(fresh).catch(() => {});
  await Deno.writeTextFile(fresh, text, { createNew: true, mode: 0o640 });
  await Deno.rename(fresh, path);
}
