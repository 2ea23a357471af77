/** Finds the runtime for a target: downloaded by Deno's own npm client, checked against our pin. */
import { join } from "node:path";
import { denoDir } from "./bundle.ts";
import { sha256 } from "./digest.ts";
import { BuildError, DENO_VERSION, type Target } from "./targets.ts";

/** The bytes of the pinned `deno` for `target`. */
export async function denoFor(target: Target): Promise<Uint8Array<ArrayBuffer>> {
  const looked: string[] = [];
  // The one that runs the build may be it.
  const own = await pinned(Deno.execPath(), target, looked);
  if (own !== undefined) return own;
  const inCache = await fromCache(target, looked);
  if (inCache !== undefined) return inCache;
  const problem = await download(target);
  const downloaded = await fromCache(target, looked);
  if (downloaded !== undefined) return downloaded;
  throw new BuildError(
    `Cannot get the runtime for ${target.name}: no file with the pinned checksum at\n  ` +
      `${[...new Set(looked)].join("\n  ")}\n` +
      `and npm:${target.denoPackage}@${DENO_VERSION} could not be downloaded` +
      `${problem === "" ? "" : `: ${problem}`}.\n` +
      "Set NPM_CONFIG_REGISTRY to a registry that can be reached, or copy Deno's download cache " +
      "(the folder 'npm') from a machine where it is filled.",
  );
}

async function fromCache(target: Target, looked: string[]) {
  const npm = join(await denoDir(), "npm");
  // A folder for each registry; which one it came from does not matter, its checksum does.
  for (const registry of await names(npm)) {
    const file = join(npm, registry, target.denoPackage, DENO_VERSION, "deno");
    const bytes = await pinned(file, target, looked);
    if (bytes !== undefined) return bytes;
  }
  looked.push(join(npm, "*", target.denoPackage, DENO_VERSION, "deno"));
  return undefined;
}

async function pinned(file: string, target: Target, looked: string[]) {
  let bytes;
  try {
    bytes = await Deno.readFile(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return;
    throw error;
  }
  if (await sha256(bytes) === target.denoSha256) return bytes;
  looked.push(file);
  return undefined;
}

async function names(folder: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name).sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** Returns what went wrong, or an empty text. */
async function download({ denoPackage }: Target): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: "testflinger-build-" });
  try {
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["cache", "--quiet", "--no-config", "--no-lock", `npm:${denoPackage}@${DENO_VERSION}`],
      cwd: folder,
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).output();
    if (success) return "";
    const lines = new TextDecoder().decode(stderr).trim().split("\n");
    return lines.find((line) => line.startsWith("error")) ?? lines[0] ?? "";
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
