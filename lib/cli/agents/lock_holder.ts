/** Who holds a lock, without taking it even for a moment: an agent that starts must not meet it. */
import { ask, processesOf } from "../../process/proc.ts";
import { pidIn } from "./agent_ref.ts";

/** The process that holds a lock. */
export interface LockHolder {
  pid: number;
  /** As it was started, in one line; empty where it may not be seen. */
  command: string;
}

/** Who holds the lock of that file; undefined when nobody does, or the file is not there. */
export async function lockHolder(path: string): Promise<LockHolder | undefined> {
  let inode: number | null;
  try {
    inode = (await Deno.stat(path)).ino;
  } catch {
    return undefined;
  }
  const { code, text } = await ask(["cat", "/proc/locks"]);
  if (code !== 0) {
    // A host that does not tell of locks: the process in the file is the best guess.
    const pid = await pidIn(path);
    if (pid === undefined || (await processesOf([pid])).length === 0) return undefined;
    return { pid, command: await commandOf(pid) };
  }
  for (const line of text.split("\n")) {
    // `1: FLOCK  ADVISORY  WRITE 14325 fe:00:2146567 0 EOF`, see proc_locks(5).
    const [, kind, , mode, pid, place] = line.trim().split(/\s+/);
    if (kind !== "FLOCK" || mode !== "WRITE" || place?.split(":")[2] !== String(inode)) continue;
    // A holder in another container has no number here.
    const number = Number(pid) > 0 ? Number(pid) : await pidIn(path) ?? 0;
    return { pid: number, command: await commandOf(number) };
  }
  return undefined;
}

async function commandOf(pid: number): Promise<string> {
  const { text } = await ask([
    "/bin/sh",
    "-c",
    'tr "\\000" " " <"/proc/$1/cmdline"',
    "sh",
    `${pid}`,
  ]);
  return text.trim().replaceAll(/\s+/g, " ");
}
