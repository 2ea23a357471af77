/** The kernel's list of what is mounted where, in the namespace of the process that reads it. */
const MOUNT_TABLE = "/proc/self/mountinfo";

/** Which of the fields of a line is the mount point. Source: proc_pid_mountinfo(5). */
const MOUNT_POINT_FIELD = 4;

/**
 * The mount points at or below a folder. A device number alone does not tell: a folder of the same
 * file system may be mounted there, and removing would empty the original.
 *
 * The table is read through `cat`, since the runtime gives files in `/proc` only to programs that
 * may do everything. Where that fails the answer is that there are none.
 */
export async function mountsBelow(folder: string): Promise<string[]> {
  try {
    const real = await Deno.realPath(folder);
    const { stdout } = await new Deno.Command("cat", {
      args: [MOUNT_TABLE],
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
