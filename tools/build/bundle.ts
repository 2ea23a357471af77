/** The program as one file of JavaScript, the same bytes wherever it is built. */
import { isAbsolute, join, relative } from "node:path";
import { BUILD_SYMBOL } from "../../lib/version.ts";
import { BuildError, type Packaging, type Target } from "./targets.ts";

/**
 * The bundler names each module by its path from the working directory to the download cache:
 * another path on every machine. What is left is package, version and file.
 */
const CACHED_PACKAGE = /(?:\.\.\/)+[^\s"'`]*?\/npm\/[^/\s"'`]+\/(?=[^\s"'`])/g;

/** Bundles `entry`; `root` is the folder of `deno.json` and `deno.lock`. */
export async function bundle(entry: string, root: string): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: "testflinger-build-" });
  try {
    const output = join(folder, "main.js");
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["bundle", "--quiet", "--frozen", "--platform", "deno", "--output", output, entry],
      cwd: root,
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).output();
    if (!success) {
      throw new BuildError(`Cannot bundle ${entry}:\n${new TextDecoder().decode(stderr).trim()}`);
    }
    const text = (await Deno.readTextFile(output)).replaceAll(CACHED_PACKAGE, "npm/");
    refusePaths(text, [root, await denoDir()]);
    return text;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A path of the building machine would make each machine's file another one. */
function refusePaths(text: string, paths: readonly string[]): void {
  for (const path of paths) {
    const line = text.split("\n").find((line) => line.includes(path));
    if (line !== undefined) {
      throw new BuildError(
        `The bundle names a folder of this machine: ${line.trim().slice(0, 200)}`,
      );
    }
  }
}

/** Where the runtime keeps what it downloads. */
export async function denoDir(): Promise<string> {
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--no-config", "--json"],
    stdin: "null",
    stderr: "null",
  }).output();
  const info: unknown = success ? JSON.parse(new TextDecoder().decode(stdout)) : undefined;
  const folder = typeof info === "object" && info !== null && "denoDir" in info && info.denoDir;
  if (typeof folder !== "string") throw new BuildError("Cannot find out Deno's download cache");
  return folder;
}

/** What only the build knows, and what a packaging has to do first of all. */
export interface Stamp {
  commit: string;
  target: Target;
  packaging: Packaging;
}

/** The launcher's variables are for the runtime: the program and its children have the user's own. */
const RESTORE_ENVIRONMENT = `{
  const env = Deno.env;
  for (const name of (env.get("TESTFLINGER_AGENT_UNSET") ?? "").split(" ")) if (name) env.delete(name);
  const own = env.get("TESTFLINGER_AGENT_DENO_DIR");
  if (own !== undefined) env.set("DENO_DIR", own);
  env.delete("TESTFLINGER_AGENT_UNSET");
  env.delete("TESTFLINGER_AGENT_DENO_DIR");
}
`;

/** The bundle with the build's facts in front. */
export function stampBundle(text: string, { commit, target, packaging }: Stamp): string {
  const facts = JSON.stringify({ commit, target: target.name, packaging });
  const symbol = JSON.stringify(BUILD_SYMBOL);
  return `globalThis[Symbol.for(${symbol})] = Object.freeze(${facts});\n` +
    (packaging === "portable" ? RESTORE_ENVIRONMENT : "") + text;
}

/** `path` as it is shortest to read: from `root` if it lies below it. */
export function shortPath(path: string, root: string): string {
  const short = relative(root, path);
  return short.startsWith("..") || isAbsolute(short) ? path : short;
}
