/**
 * Removes a folder with everything that a job may have put into it: closed folders, names that are
 * no text, folders inside one another without end.
 */
import { messageOf } from "./message.ts";
import { inOwnSession } from "./own_session.ts";
import { join } from "./path.ts";

/**
 * The runtime removes folders by calling itself for each folder in a folder, and some ten thousand
 * of them overflow its stack, which ends the process. Deeper ones are removed by `rm`, which goes
 * through them in a loop.
 */
const DEEPEST = 100;

/** What the runtime makes of a name that is not UTF-8, in part: nothing can be opened by it. */
const REPLACEMENT_CHARACTER = "\ufffd";

/**
 * Removes a folder with all that is in it, or a file. Follows no link, crosses into no other file
 * system, opens folders without permissions where the agent may do that, and never throws. What is
 * not there is removed.
 *
 * @returns what was in the way; undefined when it is gone.
 */
export async function removeTree(path: string): Promise<string | undefined> {
  try {
    const { isDirectory, dev } = await Deno.lstat(path);
    if (!isDirectory) return void await Deno.remove(path);
    const found = await openFolders(path, dev);
    const mount = (await mountsBelow(path))[0] ?? found.mount;
    if (mount !== undefined) return `a file system is mounted at ${mount}`;
    if (found.isPlain) await Deno.remove(path, { recursive: true });
    else return await removeByTools(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) return messageOf(error);
  }
}

/** What is known of a tree when each folder in it has been looked at. */
interface Survey {
  /** The first folder that is on another device, where the survey ended. */
  mount?: string;
  /** Whether the runtime can remove it. */
  isPlain: boolean;
}

/**
 * Gives the owner all permissions on each folder in a tree, so that it can be removed. Folders of
 * others stay as they are.
 */
async function openFolders(top: string, device: number): Promise<Survey> {
  const folders = [{ path: top, depth: 0 }];
  let isPlain = true;
  for (let folder; (folder = folders.pop()) !== undefined;) {
    const { path, depth } = folder;
    try {
      const { dev, isDirectory, mode } = await Deno.lstat(path);
      if (!isDirectory) continue;
      if (dev !== device) return { mount: path, isPlain };
      if (((mode ?? 0) & 0o700) !== 0o700) await Deno.chmod(path, 0o700);
      for await (const { name, isDirectory } of Deno.readDir(path)) {
        if (!isDirectory) continue;
        if (depth >= DEEPEST || name.includes(REPLACEMENT_CHARACTER)) isPlain = false;
        else folders.push({ path: join(path, name), depth: depth + 1 });
      }
    } catch {
      // Not ours to open. Whether that matters shows when it is removed.
    }
  }
  return { isPlain };
}

/** Both tools go from each folder to the next, so that no path is too long for them. */
async function removeByTools(path: string): Promise<string | undefined> {
  const closed = ["-xdev", "-type", "d", "!", "-perm", "-700"];
  await complaintsOf("find", [path, ...closed, "-execdir", "chmod", "u+rwx", "{}", ";"]);
  const complaints = await complaintsOf("rm", ["-rf", "--one-file-system", "--", path]);
  // rm: cannot remove 'PATH': REASON
  return complaints?.split("\n", 1)[0]?.split(": ").at(-1);
}

/** What a tool prints when it fails. */
async function complaintsOf(tool: string, args: string[]): Promise<string | undefined> {
  const { stderr, success } = await inOwnSession(tool, {
    args,
    clearEnv: true,
    // -execdir runs nothing where PATH has a folder that is not absolute.
    env: { PATH: "/usr/bin:/bin", LC_ALL: "C" },
    cwd: "/",
    stdin: "null",
    stdout: "null",
    stderr: "piped",
    // A Ctrl-C on the agent's terminal does not leave half of a folder.
  }).output();
  return success ? undefined : new TextDecoder().decode(stderr).trim() || `${tool} failed`;
}

/** Which of the fields of a line of /proc/self/mountinfo is the mount point (proc_pid_mountinfo(5)). */
const MOUNT_POINT_FIELD = 4;

/**
 * The mount points at or below a folder. A device number alone does not tell: a folder of the same
 * file system may be mounted there, and removing would empty the original.
 *
 * The table is read through `cat`, since the runtime gives files in `/proc` only to programs that
 * may do everything. Where that fails the answer is that there are none.
 */
async function mountsBelow(folder: string): Promise<string[]> {
  try {
    const real = await Deno.realPath(folder);
    const { stdout } = await new Deno.Command("cat", {
      args: ["/proc/self/mountinfo"],
      stdin: "null",
      stderr: "null",
    }).output();
    return new TextDecoder().decode(stdout).split("\n")
      .map((line) => unescaped(line.split(" ")[MOUNT_POINT_FIELD] ?? ""))
      .filter((point) => point === real || point.startsWith(`${real}/`));
  } catch {
    return [];
  }
}

/** The kernel writes space, tab, newline and backslash as three octal digits. */
function unescaped(field: string): string {
  return field.replaceAll(
    /\\([0-7]{3})/g,
    (_, digits: string) => String.fromCharCode(parseInt(digits, 8)),
  );
}
