/** Who holds a lock, without taking it even for a moment: an agent that starts must not meet it. */
import { ask, processesOf } from "../../process/proc.ts";

/** The process that holds a lock. */
export interface LockHolder {
  pid: number;
  /** As it was started, in one short line; empty where it may not be seen. */
  command: string;
}

/** The locks that processes of this host hold: inode to pid, which is 0 for one in a container. */
export async function heldLocks(): Promise<Map<number, number> | undefined> {
  const { code, text } = await ask(["cat", "/proc/locks"]);
  if (code !== 0) return undefined;
  const held = new Map<number, number>();
  for (const line of text.split("\n")) {
    // `1: FLOCK  ADVISORY  WRITE 14325 fe:00:2146567 0 EOF`, see proc_locks(5).
    const [, kind, , mode, pid, place] = line.trim().split(/\s+/);
    if (kind !== "FLOCK" || mode !== "WRITE") continue;
    held.set(Number(place?.split(":")[2]), Math.max(0, Number(pid)));
  }
  return held;
}

/** Who holds the lock of that file; undefined when nobody does, or the file is not there. */
export async function lockHolder(path: string): Promise<LockHolder | undefined> {
  let inode: number | null;
  try {
    inode = (await Deno.stat(path)).ino;
  } catch {
    return undefined;
  }
  const held = await heldLocks();
  if (held === undefined) {
    // A host that does not tell of locks: the process in the file is the best guess.
    const pid = await pidIn(path);
    if (pid === undefined || (await processesOf([pid])).length === 0) return undefined;
    return { pid, command: await commandOf(pid) };
  }
  const holder = held.get(inode ?? 0);
  if (holder === undefined) return undefined;
  const pid = holder > 0 ? holder : await pidIn(path) ?? 0;
  return { pid, command: await commandOf(pid) };
}

/** The process that wrote itself into a lock file. */
export async function pidIn(lock: string): Promise<number | undefined> {
  try {
    const { isFile, size } = await Deno.lstat(lock);
    if (!isFile || size > 20) return undefined;
    const text = (await Deno.readTextFile(lock)).trim();
    return /^[1-9]\d*$/.test(text) ? Number(text) : undefined;
  } catch {
    return undefined;
  }
}

async function commandOf(pid: number): Promise<string> {
  const { text } = await ask([
    "/bin/sh",
    "-c",
    'tr "\\000" "\\n" <"/proc/$1/cmdline"',
    "sh",
    `${pid}`,
  ]);
  return shortCommand(text.trim().split("\n"));
}

/** More of a command line tells nobody more. */
const LONGEST_COMMAND = 120;

/** A command line for a message: without the options of the runtime that runs a program. */
export function shortCommand(args: readonly string[]): string {
  const [program = "", ...rest] = args;
  const first = rest.findIndex((arg) => arg !== "run" && !arg.startsWith("-"));
  const isRuntime = /\.[jt]s$/.test(rest[first] ?? "");
  const words = [program, ...isRuntime ? rest.slice(first + 1) : rest].join(" ")
    .replaceAll(/\s+/g, " ");
  return words.length > LONGEST_COMMAND ? `${words.slice(0, LONGEST_COMMAND)}...` : words;
}

/** Whether this user may not see who holds that lock: then nothing is known of it. */
export async function isLockHidden(path: string): Promise<boolean> {
  return await Deno.stat(path).then(
    () => false,
    (error) => error instanceof Deno.errors.PermissionDenied,
  );
}
