/**
 * The agent's log file: one file a day, the old ones named as Python's TimedRotatingFileHandler
 * names them, because log shippers in the field look for those names.
 */
import { writeAllSync } from "../bytes.ts";
import { messageOf } from "../message.ts";
import { basename, dirname, join } from "../path.ts";
import { localDate } from "./log_format.ts";

/** Files of other days that are kept, as the established agent does. */
const KEPT_DAYS = 6;

/** The group may read: log shippers run in group `adm` or the agent's own. */
const FILE_MODE = 0o640;
const FOLDER_MODE = 0o755;

/** A day never has this many files; a bound for a loop, no more. */
const MAX_FILES_A_DAY = 1000;

const NEW_LINE = 0x0a;

/** A file that takes lines. */
export interface LogFile {
  /**
   * Appends a line; on disk, as far as the operating system is concerned, when this returns.
   *
   * @throws whatever keeps the line from being written. The next call starts afresh.
   */
  write(line: string, now: number): void;
  close(): void;
}

/** What is open: which file on disk, and of which day its lines are. */
interface Open {
  file: Deno.FsFile;
  dev: number;
  ino: number | null;
  day: string;
  /** The file ends within a line: a full disk or a power cut took the rest. */
  torn: boolean;
}

/** Options of {@link createLogFile}. */
export interface LogFileOptions {
  /** The day's file could not be moved aside; lines go on into the same file until tomorrow. */
  onRotationFailed: (reason: string) => void;
}

/** Makes the log file `path`; nothing is opened before the first line. */
export function createLogFile(path: string, { onRotationFailed }: LogFileOptions): LogFile {
  const encoder = new TextEncoder();
  let current: Open | undefined;

  const close = () => {
    if (current === undefined) return;
    const { file } = current;
    current = undefined;
    file.close();
  };

  const todaysFile = (now: number): Open => {
    // Another agent on the host may share the folder and have moved the file, logrotate may have
    // taken it away, or a person the whole folder: look before each line.
    if (current !== undefined && !isStill(path, current)) close();
    current ??= open(path, now);
    const today = localDate(now);
    if (today <= current.day) return current;
    try {
      moveAside(path, current);
    } catch (error) {
      onRotationFailed(messageOf(error));
      current.day = today;
      return current;
    }
    close();
    return current = open(path, now);
  };

  return {
    write(line, now) {
      const file = todaysFile(now);
      try {
        writeAllSync(file.file, encoder.encode(`${file.torn ? "\n" : ""}${line}\n`));
        file.torn = false;
      } catch (error) {
        close();
        throw error;
      }
    },
    close,
  };
}

function open(path: string, now: number): Open {
  const folder = dirname(path);
  Deno.mkdirSync(folder, { recursive: true, mode: FOLDER_MODE });
  const file = openOrMake(path);
  try {
    const stat = file.statSync();
    if (!stat.isFile || !isStill(path, stat)) {
      throw new Error(`${path} is a link or not a regular file: remove it`);
    }
    if (stat.uid !== Deno.uid() && isOpenToOthers(folder)) {
      throw new Error(
        `${path} belongs to another user in a folder that others may write to: remove it`,
      );
    }
    // Lines that are there already are of the day on which the last of them was written.
    const day = localDate(stat.size > 0 ? stat.mtime?.getTime() ?? now : now);
    return { file, dev: stat.dev, ino: stat.ino, day, torn: endsWithinLine(file, stat.size) };
  } catch (error) {
    file.close();
    throw error;
  }
}

function endsWithinLine(file: Deno.FsFile, size: number): boolean {
  if (size === 0) return false;
  const last = new Uint8Array(1);
  file.seekSync(size - 1, Deno.SeekMode.Start);
  return file.readSync(last) === 1 && last[0] !== NEW_LINE;
}

function isOpenToOthers(folder: string): boolean {
  return ((Deno.statSync(folder).mode ?? 0) & 0o022) !== 0;
}

/**
 * Opens or makes the file. An existing one is opened through a link, too, so the caller must look
 * whether the path is what was opened. (O_NOFOLLOW would not do: unless everything is permitted, the
 * runtime resolves links itself before it opens. And the functions of Node.js that have it take as
 * long to load as the rest of the agent.)
 */
function openOrMake(path: string): Deno.FsFile {
  // Reading too: a FIFO that is opened for both makes nobody wait.
  const how = { read: true, append: true };
  try {
    // createNew is O_EXCL: it takes nothing that is there, and follows no link.
    return Deno.openSync(path, { ...how, createNew: true, mode: FILE_MODE });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
  return Deno.openSync(path, how);
}

/** What stands at the path, not what a link there points to; undefined if nothing does. */
function lookAt(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.lstatSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function isStill(path: string, open: Pick<Open, "dev" | "ino">): boolean {
  const stat = lookAt(path);
  return stat !== undefined && stat.ino === open.ino && stat.dev === open.dev;
}

/** Renames the file after its day, and removes the oldest ones. */
function moveAside(path: string, open: Open): void {
  const aside = nameFor(path, open);
  // Without a name another agent with the same folder has already begun to do the same.
  if (aside !== undefined) linkOrRename(path, aside);
  if (isStill(path, open)) Deno.removeSync(path);
  removeOldest(path);
}

function nameFor(path: string, open: Open): string | undefined {
  for (let n = 0; n < MAX_FILES_A_DAY; n++) {
    const aside = `${path}.${open.day}${n === 0 ? "" : `.${n}`}`;
    const there = lookAt(aside);
    if (there === undefined) return aside;
    if (there.ino === open.ino && there.dev === open.dev) return undefined;
  }
  throw new Error(`${path}.${open.day} and ${MAX_FILES_A_DAY - 1} more names are taken`);
}

/** A link fails where a rename would silently replace lines that are there already. */
function linkOrRename(path: string, aside: string): void {
  try {
    Deno.linkSync(path, aside);
  } catch (error) {
    // Another process was quicker; a rename would replace the lines that are there.
    if (error instanceof Deno.errors.AlreadyExists) throw error;
    // No hard links on this file system, or not for us.
    Deno.renameSync(path, aside);
  }
}

function removeOldest(path: string): void {
  const prefix = `${basename(path)}.`;
  const byDay = new Map<string, string[]>();
  for (const { name } of Deno.readDirSync(dirname(path))) {
    if (!name.startsWith(prefix)) continue;
    const day = /^(\d{4}-\d{2}-\d{2})(\.\d+)?$/.exec(name.slice(prefix.length))?.[1];
    if (day !== undefined) byDay.set(day, [...(byDay.get(day) ?? []), name]);
  }
  for (const day of [...byDay.keys()].sort().slice(0, -KEPT_DAYS)) {
    for (const name of byDay.get(day) ?? []) removeIfThere(join(dirname(path), name));
  }
}

/** Another agent with the same folder may be removing the same files. */
function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
