/** Files and folders that a stage writes on this host. What cannot be written is named. */
import { writeAll } from "../../lib/bytes.ts";
import { basename } from "../../lib/path.ts";
import { fullMessageOf } from "./errors.ts";

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
    throw new Error(`Cannot write ${basename(path)}: ${systemReason(error)}`, { cause: error });
  }
}

/**
 * Writes a file in the place of what is in it: in a container it may be a mount, which cannot be
 * replaced. What is there is not given up before, so that a full disk takes nothing from it.
 *
 * @throws Error "Cannot write <name>: ...".
 */
export async function writeInPlace(path: string, text: string): Promise<void> {
  try {
    using file = await Deno.open(path, { write: true, create: true });
    const bytes = new TextEncoder().encode(text);
    await writeAll(file, bytes);
    await file.truncate(bytes.length);
  } catch (error) {
    throw new Error(`Cannot write ${basename(path)}: ${systemReason(error)}`, { cause: error });
  }
}

/** Makes a folder, and those that it is in. @throws Error "Cannot make the folder <path>: ...". */
export async function makeFolder(path: string): Promise<void> {
  try {
    await Deno.mkdir(path, { recursive: true });
  } catch (error) {
    throw new Error(`Cannot make the folder ${path}: ${systemReason(error)}`, { cause: error });
  }
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
    throw new Error(`Cannot make a folder in ${place}: ${systemReason(error)}`, { cause: error });
  }
}

/** What the system says of it, without the call and the path, which are said in other words. */
export function systemReason(error: unknown): string {
  return fullMessageOf(error).replace(/ \(os error \d+\).*$/s, "");
}
