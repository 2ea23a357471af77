/** Whether an agent could make and use its folders. Nothing is made to find out. */
import { access, constants } from "node:fs/promises";
import { dirname, resolve } from "node:path";

/** Why files cannot be written below `folder`; undefined where they can. */
export async function whyNotWritable(folder: string): Promise<string | undefined> {
  let existing = resolve(folder);
  while (true) {
    try {
      const { isDirectory } = await Deno.stat(existing);
      if (!isDirectory) return `${existing} is not a folder`;
      break;
    } catch (error) {
      if (!isMissing(error)) {
        return `${existing} cannot be looked at by user ${Deno.uid()}`;
      }
      const parent = dirname(existing);
      if (parent === existing) return "there is no such folder";
      existing = parent;
    }
  }
  try {
    await access(existing, constants.W_OK | constants.X_OK);
    return undefined;
  } catch (error) {
    // The same error for a mount without writing, whoever asks.
    const isReadOnly = error instanceof Error && "code" in error && error.code === "EROFS";
    return isReadOnly
      ? `${existing} is on a file system that cannot be written`
      : `${existing} cannot be written by user ${Deno.uid()}`;
  }
}

/** Also below something that is no folder: the loop says so when it gets there. */
function isMissing(error: unknown): boolean {
  return error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory;
}
