/**
 * One agent per `agent_id` on a host. Two locks are taken: one in what the agent keeps on disk,
 * which nobody else can touch, and one in /tmp, which also catches a second copy that was given
 * other folders.
 */
import { NotRegular, openForWriting } from "../job/untrusted_paths.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { join } from "../path.ts";

const LOCK_MODE = 0o600;

/** How often the file may be removed while it is taken; then there is something else wrong. */
const MOST_TRIES = 100;

/** What became of taking the lock. */
export type LockResult =
  | ({ held: true } & Lock)
  | { held: false; path: string; owner: string };

/** Both locks of an agent. */
export interface Lock {
  /** Takes it again when the file was removed, as programs do that clean up /tmp. */
  renew(): void;
  release(): void;
}

/** Where the locks are. */
export interface LockOptions {
  agentId: string;
  /** The agent's own folder in `results_basedir`; exists. */
  folder: string;
  log: Log;
  /** @default "/tmp" */
  sharedFolder?: string;
  /** @default the process's */
  uid?: number;
}

/** The lock by which agents of one name see each other whatever their folders are. */
export function sharedLockPath(sharedFolder: string, agentId: string): string {
  return join(sharedFolder, `testflinger-agent-${encodeURIComponent(agentId)}.lock`);
}

/** Takes the locks of an agent, or says who has them. */
export function takeLock(options: LockOptions): LockResult {
  const { agentId, folder, sharedFolder = "/tmp" } = options;
  const ownPath = join(folder, "lock");
  const sharedPath = sharedLockPath(sharedFolder, agentId);
  const own = takeOwn(ownPath);
  if (!own.held) return { held: false, path: ownPath, owner: own.owner };
  const shared = takeShared(sharedPath, options);
  if (shared !== undefined && !shared.held) {
    letGo(own.file);
    return { held: false, path: sharedPath, owner: shared.owner };
  }
  let [ownFile, sharedFile] = [own.file, shared?.file];
  return {
    held: true,
    renew() {
      const again = isAt(ownPath, ownFile) ? undefined : takeOwn(ownPath);
      if (again?.held) ownFile = replaced(ownFile, again.file);
      if (sharedFile === undefined || isAt(sharedPath, sharedFile)) return;
      const sharedAgain = takeShared(sharedPath, options);
      if (sharedAgain?.held) sharedFile = replaced(sharedFile, sharedAgain.file);
    },
    release() {
      if (sharedFile !== undefined) {
        // As long as it is locked: later it may be another one's. Files of agents that are no more
        // would pile up in a folder that each look at all agents reads.
        if (isAt(sharedPath, sharedFile)) removeQuietly(sharedPath);
        letGo(sharedFile);
      }
      letGo(ownFile);
    },
  };
}

function replaced(before: Deno.FsFile, after: Deno.FsFile): Deno.FsFile {
  letGo(before);
  return after;
}

function takeOwn(path: string): Locked {
  return lockFile(openForWriting(path, { mode: LOCK_MODE }));
}

/** Undefined when the file in the folder of everybody cannot be used; then the own one must do. */
function takeShared(path: string, { log, uid = Deno.uid() ?? 0 }: LockOptions): Locked | undefined {
  for (let tries = 1;; tries++) {
    const opened = openShared(path, uid);
    if (opened.file === undefined) {
      // Or it was removed, and perhaps made again, while it was opened.
      if (tries < MOST_TRIES) continue;
      log.warning(`The lock file ${path} is ignored: it ${opened.trouble}; remove it`);
      return undefined;
    }
    const shared = lockFile(opened.file);
    if (!shared.held) return shared;
    // The process that had it may have removed it since it was opened: then it keeps nobody out.
    if (isAt(path, shared.file) || tries >= MOST_TRIES) return shared;
    letGo(shared.file);
  }
}

/** A program that is just being started has the open file for a moment, too: closing it alone is not enough. */
function letGo(file: Deno.FsFile): void {
  file.unlockSync();
  file.close();
}

/** Whether this very file has the name. */
function isAt(path: string, file: Deno.FsFile): boolean {
  try {
    const { dev, ino } = Deno.lstatSync(path);
    const own = file.statSync();
    return dev === own.dev && ino === own.ino;
  } catch {
    return false;
  }
}

function removeQuietly(path: string): void {
  try {
    Deno.removeSync(path);
  } catch {
    // The folder was made unwritable: the file does no harm.
  }
}

/** Opens, or makes, the lock in a folder of everybody: one that this agent's user has made, or none. */
function openShared(
  path: string,
  uid: number,
): { file: Deno.FsFile } | { file: undefined; trouble: string } {
  let file: Deno.FsFile;
  try {
    file = openForWriting(path, { mode: LOCK_MODE, oneName: true });
  } catch (error) {
    const trouble = error instanceof NotRegular
      ? error.message.slice(`${path} `.length)
      : `cannot be opened (${messageOf(error)})`;
    return { file: undefined, trouble };
  }
  const owner = file.statSync().uid ?? uid;
  if (owner === uid) return { file };
  file.close();
  return { file: undefined, trouble: `belongs to user ${owner}` };
}

type Locked = { held: true; file: Deno.FsFile } | { held: false; owner: string };

/** Locks a file and writes into it who did. The kernel lets go of the lock when the process ends. */
function lockFile(file: Deno.FsFile): Locked {
  if (!file.tryLockSync(true)) {
    const owner = ownerIn(file);
    file.close();
    return { held: false, owner };
  }
  file.truncateSync(0);
  file.writeSync(new TextEncoder().encode(`${Deno.pid}\n`));
  return { held: true, file };
}

function ownerIn(file: Deno.FsFile): string {
  const bytes = new Uint8Array(32);
  const read = file.readSync(bytes) ?? 0;
  const pid = new TextDecoder().decode(bytes.subarray(0, read)).trim();
  return /^\d+$/.test(pid) ? `process ${pid}` : "another process";
}
