import { once } from "../once.ts";
import { ask, parseStat, processesOf } from "./proc.ts";

/**
 * Which process is meant, also after it has ended, its number has been given to another one, and
 * the host was rebooted.
 */
export interface ProcessIdentity {
  /** Also the number of the process group and session that it leads, for a group of ours. */
  pid: number;
  /** Field 22 of /proc/<pid>/stat: clock ticks from the start of the host to that of the process. */
  startTime: number;
  /** /proc/sys/kernel/random/boot_id */
  bootId: string;
}

/** A shell's own identity, on one line: `parseIdentity()` reads it. */
export const SAY_IDENTITY = "read -r boot </proc/sys/kernel/random/boot_id && " +
  `read -r stat </proc/$$/stat && printf '%s %s\\n' "$boot" "$stat"`;

/** Reads what `SAY_IDENTITY` printed. */
export function parseIdentity(line: string): ProcessIdentity | undefined {
  const space = line.indexOf(" ");
  const stat = parseStat(line.slice(space + 1));
  if (space <= 0 || stat === undefined) return undefined;
  return { pid: stat.pid, startTime: stat.startTime, bootId: line.slice(0, space) };
}

/** Changes with each start of the host. */
export const bootId: () => Promise<string> = once(async () => {
  const { text } = await ask(["cat", "/proc/sys/kernel/random/boot_id"]);
  if (text.trim() === "") throw new Error("Cannot read /proc/sys/kernel/random/boot_id");
  return text.trim();
});

/** The identity of a process that lives; undefined when there is none of that number. */
export async function identityOf(pid: number): Promise<ProcessIdentity | undefined> {
  const [stat] = await processesOf([pid]);
  if (stat === undefined || stat.dead) return undefined;
  return { pid, startTime: stat.startTime, bootId: await bootId() };
}

/** Whether this very process lives. One that has ended and waits for its parent (a zombie) does not. */
export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  if (identity.bootId !== await bootId()) return false;
  return (await identityOf(identity.pid))?.startTime === identity.startTime;
}
