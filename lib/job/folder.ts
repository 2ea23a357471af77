/**
 * The working folder of a job: created from scratch, never mixed with what an earlier run left, and removed
 * in the end whatever the job has put into it.
 */
import type { AgentConfig } from "../config/agent_config.ts";
import { Said } from "../once.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { basename, dirname, join } from "../path.ts";
import { shellWord } from "../shell.ts";
import { removeTree } from "../remove_tree.ts";

/** Nobody but the agent looks into a job's folder: it holds the job's secrets. */
const FOLDER_MODE = 0o700;
const SECRET_FILE_MODE = 0o600;

/** The job as it was received, secrets included. */
export const JOB_FILE = "testflinger.json";

/** Connectors mount these into containers, where other users read them. */
const SHARED_FILE_MODE = 0o644;
const ATTACHMENTS_MODE = 0o755;

/** Where an agent keeps what it cannot remove. */
export function trashOf(
  { execution_basedir, agent_id }: Pick<AgentConfig, "execution_basedir" | "agent_id">,
): string {
  return join(execution_basedir, `.trash-${encodeURIComponent(agent_id)}`);
}

/** What {@linkcode removeFolder} needs. */
export interface RemoveOptions {
  /** Where a folder goes that cannot be removed; on the same file system. Made when needed. */
  trash: string;
  log: Log;
  /** Of those that stay where they are the log speaks once. @default each time */
  said?: Said;
}

/** What {@linkcode makeJobFolder} needs. */
export interface MakeOptions {
  log: Log;
  /**
   * Where a leftover goes that cannot be removed.
   *
   * @default `.trash` in the base folder
   */
  trash?: string;
}

/**
 * Makes the folder `basedir/jobId`, empty and with mode 0700. Something of that name that is
 * already there is moved aside first, and removed.
 *
 * @returns the folder's path.
 * @throws when it cannot be made; the message says why.
 */
export async function makeJobFolder(
  basedir: string,
  jobId: string,
  { log, trash = join(basedir, ".trash") }: MakeOptions,
): Promise<string> {
  if (basename(jobId) !== jobId || ["", ".", ".."].includes(jobId)) {
    throw new TypeError(`Cannot make a folder for job ${JSON.stringify(jobId)}: it is no job id`);
  }
  await Deno.mkdir(basedir, { recursive: true, mode: 0o755 });
  const folder = join(basedir, jobId);
  const leftover = await moveAside(folder, log);
  await makeFolder(folder, FOLDER_MODE);
  if (leftover !== undefined) {
    // First of all, since the rest may resist.
    await Deno.remove(join(leftover, JOB_FILE)).catch(() => {});
    await removeFolder(leftover, { trash, log });
  }
  return folder;
}

/**
 * Puts into a job's new folder what is there before any phase: the job as it was received, an
 * outcome without statuses, and an empty file for a connector's error.
 *
 * @param jobText JSON, secrets included.
 * @throws when a file cannot be written, or is there already.
 */
export async function fillJobFolder(folder: string, jobText: string): Promise<void> {
  await makeFile(join(folder, JOB_FILE), jobText, SECRET_FILE_MODE);
  await makeFile(join(folder, "testflinger-outcome.json"), "{}", SHARED_FILE_MODE);
  await makeFile(join(folder, "device-connector-error.json"), "", SHARED_FILE_MODE);
}

/**
 * Makes the folder for the attachments of a job that has any.
 *
 * @returns its path.
 * @throws when it is there already, or cannot be made.
 */
export async function makeAttachmentsFolder(folder: string): Promise<string> {
  const path = join(folder, "attachments");
  await makeFolder(path, ATTACHMENTS_MODE);
  return path;
}

/**
 * Renames a folder.
 *
 * @returns false when the new place is on another file system.
 * @throws when it cannot be renamed for any other reason.
 */
export async function moveFolder(from: string, to: string): Promise<boolean> {
  try {
    await Deno.rename(from, to);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EXDEV") return false;
    throw error;
  }
}

/**
 * Removes a folder with all that is in it, or a file. Folders without permissions are opened where
 * the agent may do that. What still resists (files of other users in folders of theirs, a mounted
 * file system) is moved to the trash, and the log says once what to do about it. Follows no link,
 * crosses into no other file system, and never throws.
 *
 * @returns where it is now.
 */
export async function removeFolder(
  path: string,
  { trash, log, said }: RemoveOptions,
): Promise<"removed" | "trash" | "left"> {
  const obstacle = await removeTree(path);
  if (obstacle === undefined) return "removed";
  try {
    const place = await moveToTrash(path, trash);
    log.error(
      `Cannot remove ${path}: ${obstacle}. It is now ${place}: remove it by hand, with ` +
        `sudo rm -rf --one-file-system ${shellWord(place)}`,
      { path, place },
    );
    return "trash";
  } catch (error) {
    if (said?.isNew(path) ?? true) {
      log.error(
        `Cannot remove ${path}: ${obstacle}. It cannot be moved to ${trash} either: ` +
          `${messageOf(error)}. Remove it by hand, with ` +
          `sudo rm -rf --one-file-system ${shellWord(path)}`,
        { path },
      );
    }
    return "left";
  }
}

async function moveToTrash(path: string, trash: string): Promise<string> {
  await Deno.mkdir(trash, { recursive: true, mode: FOLDER_MODE });
  if (!(await Deno.lstat(trash)).isDirectory) throw new Error(`${trash} is not a folder`);
  const place = await freeName(join(trash, basename(path)));
  await Deno.rename(path, place);
  return place;
}

/** Moves what has the name of a job's new folder out of its way. */
async function moveAside(folder: string, log: Log): Promise<string | undefined> {
  if (!await exists(folder)) return undefined;
  const leftover = await freeName(`${folder}.leftover`);
  try {
    await Deno.rename(folder, leftover);
  } catch (cause) {
    throw new Error(
      `Cannot make the folder ${folder}: an earlier one is in its place and cannot be moved ` +
        `aside: ${messageOf(cause)}. Remove it by hand`,
      { cause },
    );
  }
  log.warning(`An earlier run left ${folder}: it is removed`, { folder });
  return leftover;
}

/** What is left of folders that were in the way of this one, when the agent was killed meanwhile. */
export async function leftoversOf(folder: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name } of Deno.readDir(dirname(folder))) {
    if (name.startsWith(`${basename(folder)}.leftover-`)) found.push(join(dirname(folder), name));
  }
  return found;
}

/** The first of `path-1`, `path-2`, ... that nothing has; rename() would replace an empty folder. */
async function freeName(path: string): Promise<string> {
  for (let n = 1;; n++) {
    if (!await exists(`${path}-${n}`)) return `${path}-${n}`;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** The mode is set twice, since the umask takes bits from the first time. */
async function makeFolder(path: string, mode: number): Promise<void> {
  await Deno.mkdir(path, { mode });
  await Deno.chmod(path, mode);
}

/** createNew is O_EXCL: it takes nothing that is there, and follows no link. */
async function makeFile(path: string, text: string, mode: number): Promise<void> {
  await Deno.writeTextFile(path, text, { createNew: true, mode });
  await Deno.chmod(path, mode);
}
