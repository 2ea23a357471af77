/** The licences of what is inside a built file, collected from the packages themselves. */
import { join } from "node:path";
import { denoDir, type Program } from "./bundle.ts";
import { BuildError, DENO_VERSION } from "./targets.ts";

/** How the bundler names a module of a package: name and version. */
const MODULE = /\bnpm\/((?:@[^/\s"'`]+\/)?[^@/\s"'`]+)\/(\d[^/\s"'`]*)\//g;

const LICENCE_FILE = /^(?:licen[cs]e|copying|notice)(?:[.-].*)?$/i;

/** Packages of the Deno project that come without the file: Deno's own licence is theirs. */
const OF_DENO = ["deno-std"];

const RULE = "=".repeat(80);

/** Packages in the program, as `name version`, sorted. */
export function packagesIn(program: Program): string[] {
  const found = new Set<string>();
  for (const text of Object.values(program)) {
    for (const [, name, version] of text.matchAll(MODULE)) found.add(`${name} ${version}`);
  }
  return [...found].sort();
}

/**
 * The text for people: our own licence's name, then each part with its licence.
 *
 * @throws {BuildError} a package's licence cannot be found: what is built could not be handed on.
 */
export async function collectNotices(program: Program): Promise<string> {
  const deno = await Deno.readTextFile(new URL("./deno_license.txt", import.meta.url));
  const parts = [{
    title:
      `Deno ${DENO_VERSION} (the runtime; V8 and the libraries inside it are named, with their ` +
      `licences,\nin the source of that release)`,
    text: deno,
  }];
  const npm = join(await denoDir(), "npm");
  for (const title of packagesIn(program)) {
    const [name = "", version = ""] = title.split(" ");
    const text = OF_DENO.includes(name) ? deno : await licenceOf(npm, name, version);
    if (text === undefined) throw new BuildError(`Cannot find the licence of ${title} in ${npm}`);
    parts.push({ title, text });
  }
  return [
    "testflinger-agent is made of the following parts of others.\n",
    ...parts.map(({ title, text }) => `${RULE}\n${title}\n${RULE}\n\n${text.trim()}\n`),
  ].join("\n");
}

async function licenceOf(npm: string, name: string, version: string): Promise<string | undefined> {
  // A folder for each registry; they have the same package, by its checksum in deno.lock.
  for (const registry of await entries(npm)) {
    const folder = join(npm, registry, name, version);
    const files = (await entries(folder)).filter((file) => LICENCE_FILE.test(file));
    if (files.length === 0) continue;
    const texts = await Promise.all(files.map((file) => Deno.readTextFile(join(folder, file))));
    return texts.map((text) => text.replaceAll("\r\n", "\n").trim()).join("\n\n");
  }
  return undefined;
}

async function entries(folder: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name).sort();
  } catch (error) {
    const isAbsent = error instanceof Deno.errors.NotFound ||
      error instanceof Deno.errors.NotADirectory;
    if (isAbsent) return [];
    throw error;
  }
}
