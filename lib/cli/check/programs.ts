/** Finding programs as a shell does. */
import { access, constants } from "node:fs/promises";
import { isAbsolute, join } from "node:path";

const USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Where a program is; undefined where it is not, or may not be run. */
export async function findProgram(
  name: string,
  path = Deno.env.get("PATH") ?? USUAL_PATH,
): Promise<string | undefined> {
  const candidates = isAbsolute(name)
    ? [name]
    : path.split(":").filter((folder) => folder !== "").map((folder) => join(folder, name));
  for (const candidate of candidates) {
    if (await isExecutable(candidate)) return candidate;
  }
  return undefined;
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await Deno.stat(path)).isFile;
  } catch {
    return false;
  }
}
