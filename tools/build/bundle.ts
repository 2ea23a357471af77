/**
 * The program as a few files of JavaScript, the same bytes wherever it is built. A command loads only
 * those that it needs: reading all of it would take longer than everything else that a start does.
 */
import { isAbsolute, join, relative } from "node:path";
import { BUILD_SYMBOL } from "../../lib/version.ts";
import { BuildError, type Packaging, type Target } from "./targets.ts";

/** The file that is started. */
export const MAIN_FILE = "main.js";

/** The text of each file of the program by its name; {@linkcode MAIN_FILE} is one of them. */
export type Program = Readonly<Record<string, string>>;

/**
 * The bundler names each module by its path from the working directory to the download cache:
 * another path on every machine. What is left is package, version and file.
 */
const CACHED_PACKAGE = /(?:\.\.\/)+[^\s"'`]*?\/npm\/[^/\s"'`]+\/(?=[^\s"'`])/g;

/** How the bundler names a file: a stem, and a hash of what depends on the machine. */
const BUNDLED_FILE = /^(.+)-[A-Z0-9]{8}\.js$/;

/**
 * How packages in the old format load modules of Node.js: through a module that takes 15 ms to load,
 * for what the runtime has a function for.
 */
const REQUIRE =
  /import \{ createRequire as (\w+) \} from "node:module";\nvar __require = \1\(import\.meta\.url\);/;
const QUICK_REQUIRE = `var __require = (name) => name === "node:process" || name === "node:buffer"
  // Not before something of it is used: they take 20 ms to load. What is in the environment is the agent's.
  ? new Proxy({}, { get: (_, key) => key === "env" ? {} : process.getBuiltinModule(name)[key] })
  : process.getBuiltinModule(name);`;

/** Bundles `entry`; `root` is the folder of `deno.json` and `deno.lock`. */
export async function bundle(entry: string, root: string): Promise<Program> {
  const folder = await Deno.makeTempDir({ prefix: "testflinger-build-" });
  try {
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["bundle", "--quiet", "--frozen", "--platform", "deno"],
        ...["--code-splitting", "--outdir", folder, entry],
      ],
      cwd: root,
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).output();
    if (!success) {
      throw new BuildError(`Cannot bundle ${entry}:\n${new TextDecoder().decode(stderr).trim()}`);
    }
    const files: Record<string, string> = {};
    for await (const { name } of Deno.readDir(folder)) {
      const text = await Deno.readTextFile(join(folder, name));
      files[name] = quickRequire(text.replaceAll(CACHED_PACKAGE, "npm/"));
    }
    const program = renamed(files);
    if (program[MAIN_FILE] === undefined) throw new BuildError(`${entry} makes no ${MAIN_FILE}`);
    const paths = [root, await denoDir()];
    for (const text of Object.values(program)) refusePaths(text, paths);
    return program;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Names that depend on nothing but the files' contents, in the order of these. */
function renamed(files: Record<string, string>): Program {
  const names = Object.keys(files).filter((name) => name !== MAIN_FILE);
  const withoutNames = (text: string) =>
    names.reduce((masked, name) => masked.replaceAll(`"./${name}"`, '""'), text);
  const sorted = names
    .map((name) => ({ name, content: withoutNames(files[name] ?? "") }))
    .sort((a, b) => a.content < b.content ? -1 : 1);
  const counts = new Map<string, number>();
  const newNames = new Map(sorted.map(({ name }) => {
    const stem = BUNDLED_FILE.exec(name)?.[1] ?? "";
    const shown = /^[a-z_]+$/.test(stem) ? stem : "package";
    const count = (counts.get(shown) ?? 0) + 1;
    counts.set(shown, count);
    return [name, `${shown}-${count}.js`];
  }));
  return Object.fromEntries(
    Object.entries(files).map(([name, text]) => {
      let renamed = text;
      for (const [from, to] of newNames) renamed = renamed.replaceAll(`"./${from}"`, `"./${to}"`);
      return [newNames.get(name) ?? name, renamed];
    }),
  );
}

/** Only for modules of Node.js: a bundle holds everything else. */
function quickRequire(text: string): string {
  const other = /__require\((?!"node:)[^)]*\)/.exec(text);
  if (other !== null) {
    throw new BuildError(`A package loads what the bundle cannot hold: ${other[0]}`);
  }
  return text.replace(REQUIRE, QUICK_REQUIRE);
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
  /** Licences of what is inside, for people. */
  notices: string;
}

/** The notices are loaded only when they are asked for. */
const NOTICES_FILE = "notices.js";

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

/** The program with the build's facts in front, and the notices as a file of its own. */
export function stampBundle(
  program: Program,
  { commit, target, packaging, notices }: Stamp,
): Program {
  const facts = JSON.stringify({ commit, target: target.name, packaging });
  const symbol = JSON.stringify(BUILD_SYMBOL);
  const loader = `notices: async () => (await import("./${NOTICES_FILE}")).default`;
  return {
    ...program,
    [MAIN_FILE]:
      `globalThis[Symbol.for(${symbol})] = Object.freeze({ ...${facts}, ${loader} });\n` +
      (packaging === "portable" ? RESTORE_ENVIRONMENT : "") + program[MAIN_FILE],
    [NOTICES_FILE]: `export default ${JSON.stringify(notices)};\n`,
  };
}

/** `path` as it is shortest to read: from `root` if it lies below it. */
export function shortPath(path: string, root: string): string {
  const short = relative(root, path);
  return short.startsWith("..") || isAbsolute(short) ? path : short;
}
