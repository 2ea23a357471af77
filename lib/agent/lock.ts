/**
 * One agent per `agent_id` on a host. Two locks are taken: one in what the agent keeps on disk,
 * which nobody else can touch, and one in /tmp, which also catches a second copy that was given
 * other folders.
 */
import { join } from "node:path";
import type { Log } from "../log.ts";

/** What became of taking the lock. */
export type LockResult =
  | { held: true; release(): void }
  | { held: false; path: string; owner: string };

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

/** Takes the locks of an agent, or says who has them. */
export function takeLock(options: LockOptions): LockResult {
  const { agentId, folder, log, sharedFolder = "/tmp", uid = Deno.uid() ?? 0 } = options;
  const own = lockFile(join(folder, "lock"));
  if (own.file === undefined) return { held: false, path: own.path, owner: own.owner };
  const sharedPath = join(
    sharedFolder,
    `testflinger-agent-${encodeURIComponent(agentId)}.lock`,
  );
  const trouble = distrust(sharedPath, uid);
  if (trouble !== undefined) {
    log.warning(`The lock file ${sharedPath} is ignored: it ${trouble}; remove it`);
    return { held: true, release: () => own.file.close() };
  }
  const shared = lockFile(sharedPath);
  if (shared.file === undefined) {
    own.file.close();
    return { held: false, path: shared.path, owner: shared.owner };
  }
  return {
    held: true,
    release: () => {
      shared.file.close();
      own.file.close();
    },
  };
}

/** What is wrong with a file in a folder that everybody may write to. */
function distrust(path: string, uid: number): string | undefined {
  try {
    const info = Deno.lstatSync(path);
    if (!info.isFile) return "is not a regular file";
    if (info.uid !== uid && info.uid !== 0) return `belongs to user ${info.uid}`;
    // Root's agent may meet the lock of an agent that ran as root before: both are fine.
    return info.uid === 0 && uid !== 0 ? "belongs to root" : undefined;
  } catch {
    return undefined;
  }
}

type Locked =
  | { path: string; file: Deno.FsFile }
  | { path: string; file: undefined; owner: string };

/** Locks a file and writes into it who did. The kernel lets go of the lock when the process ends. */
function lockFile(path: string): Locked {
  const file = openLockFile(path);
  if (!file.tryLockSync(true)) {
    file.close();
    return { path, file: undefined, owner: ownerIn(path) };
  }
  file.truncateSync(0);
  file.writeSync(new TextEncoder().encode(`${Deno.pid}\n`));
  return { path, file };
}

function openLockFile(path: string): Deno.FsFile {
  try {
    return Deno.openSync(path, { read: true, write: true, createNew: true, mode: 0o600 });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    return Deno.openSync(path, { read: true, write: true });
  }
}

function ownerIn(path: string): string {
  try {
    const pid = Deno.readTextFileSync(path).trim();
    return /^\d+$/.test(pid) ? `process ${pid}` : "another process";
  } catch {
    return "another process";
  }
}
