/** Files and folders that a stage writes on this host. What cannot be written is named. */
import { basename } from "../../lib/path.ts";
import { messageOf } from "./errors.ts";

/**
 * Writes a file. Where only a part of it could be written, as on a disk that is full, nothing is left
 * of it.
 *
 * @throws Error "Cannot write <name>: ...".
 */
export async function writeFile(
  path: string,
  text: string,
  options: { readonly mode?: number; readonly createNew?: boolean } = {},
): Promise<void> {
  let isOurs = false;
  try {
    const kind = options.createNew ? { createNew: true } : { create: true, truncate: true };
    using file = await Deno.open(path, { write: true, mode: options.mode ?? 0o666, ...kind });
    isOurs = true;
    await writeAll(file, new TextEncoder().encode(text));
  } catch (error) {
    if (isOurs) await Deno.remove(path).catch(() => {});
    throw new Error(`Cannot write ${basename(path)}: ${whyNot(error)}`, { cause: error });
  }
}

/**
 * Writes a file in the place of what is in it: in a container it may be a mount, which cannot be
 * replaced. What is there is not given up before, so that a full disk takes nothing from it.
 *
 * @throws Error "Cannot write <name>: ...".
 */
export async function rewriteFile(path: string, text: string): Promise<void> {
  try {
    using file = await Deno.open(path, { write: true, create: true });
    const bytes = new TextEncoder().encode(text);
    await writeAll(file, bytes);
    await file.truncate(bytes.length);
  } catch (error) {
    throw new Error(`Cannot write ${basename(path)}: ${whyNot(error)}`, { cause: error });
  }
}

/** Makes a folder, and those that it is in. @throws Error "Cannot make the folder <path>: ...". */
export async function makeFolder(path: string): Promise<void> {
  try {
    await Deno.mkdir(path, { recursive: true });
  } catch (error) {
    throw new Error(`Cannot make the folder ${path}: ${whyNot(error)}`, { cause: error });
  }
}

/** Writes all of it, whatever the system takes at once. */
export async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
}

/** A folder that nobody else can look into. It goes, with all that is in it, when it is disposed of. */
export interface TemporaryFolder extends AsyncDisposable {
  readonly path: string;
}

/**
 * Makes a folder.
 *
 * @param dir where. @default the system's place for temporary files
 * @throws Error "Cannot make a folder in <dir>: ...".
 */
export async function temporaryFolder(
  { prefix, dir }: { readonly prefix: string; readonly dir?: string },
): Promise<TemporaryFolder> {
  try {
    const path = await Deno.makeTempDir({ prefix, ...(dir === undefined ? {} : { dir }) });
    return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
  } catch (error) {
    const place = dir ?? "the folder for temporary files";
    throw new Error(`Cannot make a folder in ${place}: ${whyNot(error)}`, { cause: error });
  }
}

/** What the system says of it, without the call and the path, which are said in other words. */
export function whyNot(error: unknown): string {
  return messageOf(error).replace(/ \(os error \d+\).*$/s, "");
}
