/**
 * The agent's log file: one file a day, the old ones named as Python's TimedRotatingFileHandler
 * names them, because log shippers in the field look for those names.
 *
 * `@logtape/file` does not fit: its daily files have the date in the name of the file being written,
 * it follows links, it buffers, and what it cannot write it drops without a word.
 */
import * as fs from "node:fs";
import { basename, dirname, join } from "node:path";
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
  fd: number;
  dev: number;
  ino: number;
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
    const { fd } = current;
    current = undefined;
    fs.closeSync(fd);
  };

  const todaysFile = (now: number): Open => {
    // Another agent on the host may share the folder and have moved the file, logrotate may have
    // taken it away, or somebody the whole folder: look before each line.
    if (current !== undefined && !isStill(path, current)) close();
    current ??= open(path, now);
    const today = localDate(now);
    if (today <= current.day) return current;
    try {
      moveAside(path, current);
    } catch (error) {
      onRotationFailed(error instanceof Error ? error.message : String(error));
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
        writeWhole(file.fd, encoder.encode(`${file.torn ? "\n" : ""}${line}\n`));
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
  fs.mkdirSync(folder, { recursive: true, mode: FOLDER_MODE });
  const fd = openNoLink(path);
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile() || !isStill(path, stat)) {
      throw new Error(`${path} is a link or not a regular file: remove it`);
    }
    if (stat.uid !== Deno.uid() && isOpenToOthers(folder)) {
      throw new Error(
        `${path} belongs to another user in a folder that others may write to: remove it`,
      );
    }
    // Lines that are there already are of the day on which the last of them was written.
    const day = localDate(stat.size > 0 ? stat.mtimeMs : now);
    return { fd, dev: stat.dev, ino: stat.ino, day, torn: endsWithinLine(fd, stat.size) };
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

function endsWithinLine(fd: number, size: number): boolean {
  const last = new Uint8Array(1);
  return size > 0 && fs.readSync(fd, last, 0, 1, size - 1) === 1 && last[0] !== NEW_LINE;
}

function isOpenToOthers(folder: string): boolean {
  return (fs.statSync(folder).mode & 0o022) !== 0;
}

/**
 * Opens or makes the file. O_NOFOLLOW alone does not do: unless everything is permitted, the runtime
 * resolves links itself before it opens, so the caller must look whether the path is what was opened.
 */
function openNoLink(path: string): number {
  const { O_APPEND, O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDWR } = fs.constants;
  try {
    return fs.openSync(path, O_RDWR | O_APPEND | O_CREAT | O_EXCL, FILE_MODE);
  } catch (error) {
    if (!isExistsError(error)) throw error;
  }
  // O_NONBLOCK: a FIFO must not make us wait for its other end.
  return fs.openSync(path, O_RDWR | O_APPEND | O_NOFOLLOW | O_NONBLOCK);
}

function isExistsError(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "EEXIST";
}

function isStill(path: string, open: Pick<Open, "dev" | "ino">): boolean {
  const stat = fs.lstatSync(path, { throwIfNoEntry: false });
  return stat !== undefined && stat.ino === open.ino && stat.dev === open.dev;
}

/** Renames the file after its day, and removes the oldest ones. */
function moveAside(path: string, open: Open): void {
  const aside = nameFor(path, open);
  // Without a name another agent with the same folder has already begun to do the same.
  if (aside !== undefined) linkOrRename(path, aside);
  if (isStill(path, open)) fs.rmSync(path);
  removeOldest(path);
}

function nameFor(path: string, open: Open): string | undefined {
  for (let n = 0; n < MAX_FILES_A_DAY; n++) {
    const aside = `${path}.${open.day}${n === 0 ? "" : `.${n}`}`;
    const there = fs.lstatSync(aside, { throwIfNoEntry: false });
    if (there === undefined) return aside;
    if (there.ino === open.ino && there.dev === open.dev) return undefined;
  }
  throw new Error(`${path}.${open.day} and ${MAX_FILES_A_DAY - 1} more names are taken`);
}

/** A link fails where a rename would silently replace lines that are there already. */
function linkOrRename(path: string, aside: string): void {
  try {
    fs.linkSync(path, aside);
  } catch (error) {
    // Somebody was quicker; a rename would replace the lines that are there.
    if (isExistsError(error)) throw error;
    // No hard links on this file system, or not for us.
    fs.renameSync(path, aside);
  }
}

function removeOldest(path: string): void {
  const prefix = `${basename(path)}.`;
  const byDay = new Map<string, string[]>();
  for (const name of fs.readdirSync(dirname(path))) {
    if (!name.startsWith(prefix)) continue;
    const day = /^(\d{4}-\d{2}-\d{2})(\.\d+)?$/.exec(name.slice(prefix.length))?.[1];
    if (day !== undefined) byDay.set(day, [...(byDay.get(day) ?? []), name]);
  }
  for (const day of [...byDay.keys()].sort().slice(0, -KEPT_DAYS)) {
    for (const name of byDay.get(day) ?? []) fs.rmSync(join(dirname(path), name), { force: true });
  }
}

function writeWhole(fd: number, bytes: Uint8Array): void {
  for (let written = 0; written < bytes.length;) written += fs.writeSync(fd, bytes, written);
}
