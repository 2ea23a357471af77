/** `compile`: the runtime `denort` with the program inside, made by `deno compile`. */
import { join } from "node:path";
import { PERMISSIONS } from "../../lib/cli/command.ts";
import { denoDir, MAIN_FILE, type Program } from "./bundle.ts";
import { elfMachine } from "./elf.ts";
import { BuildError, DENO_VERSION, type Target } from "./targets.ts";

/** The variable with which Deno is told of a runtime. */
const DENORT_VARIABLE = "DENORT_BIN";

export interface CompileParts {
  target: Target;
  /** The bundled program, stamped. */
  program: Program;
  /** What Deno runs with, the variable that names a runtime among it. @default {this process's} */
  env?: Readonly<Record<string, string>>;
}

/** The whole file. */
export async function compile(
  { target, program, env = Deno.env.toObject() }: CompileParts,
): Promise<Uint8Array<ArrayBuffer>> {
  const { [DENORT_VARIABLE]: given, ...others } = env;
  if (given) await refuseWrongRuntime(given, target);
  const folder = await Deno.makeTempDir({ prefix: "testflinger-build-" });
  try {
    const main = join(folder, MAIN_FILE);
    const output = join(folder, "testflinger-agent");
    for (const [name, text] of Object.entries(program)) {
      await Deno.writeTextFile(join(folder, name), text);
    }
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["compile", "--quiet", "--no-config", "--no-lock", "--no-prompt", "--no-check"],
        // Else the runtime would let the program load code from a handful of sites.
        "--deny-import",
        ...PERMISSIONS,
        ...["--target", target.name, "--output", output, main],
      ],
      cwd: folder,
      clearEnv: true,
      // Deno takes an empty one for a file; to us and to everybody it is one that is not set.
      env: { ...others, ...(given && { [DENORT_VARIABLE]: given }), NO_COLOR: "1" },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).output();
    if (!success) throw new BuildError(await explain(target, new TextDecoder().decode(stderr)));
    return await Deno.readFile(output);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Where Deno looks for the runtime of a target when it is not told of one. */
async function cachedRuntime(target: Target): Promise<string> {
  return join(await denoDir(), "dl", "release", `v${DENO_VERSION}`, `denort-${target.name}.zip`);
}

/** Why there is no compiled file for `target` here, or `undefined` if there can be one. */
export async function runtimeMissing(target: Target): Promise<string | undefined> {
  const cached = await cachedRuntime(target);
  const given = Deno.env.get(DENORT_VARIABLE);
  if (given) {
    return await elfMachine(given) === target.elfMachine
      ? undefined
      : `${given} is no file for ${target.arch}`;
  }
  try {
    await Deno.lstat(cached);
    return undefined;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return `${DENORT_VARIABLE} is not set, and there is no ${cached}`;
  }
}

async function refuseWrongRuntime(file: string, target: Target): Promise<void> {
  const machine = await elfMachine(file);
  if (machine === target.elfMachine) return;
  const problem = machine === undefined
    ? "which cannot be read or is no ELF program"
    : "which is a program for another machine";
  throw new BuildError(
    `${DENORT_VARIABLE} names ${file}, ${problem}: ` +
      `name the denort for ${target.name}, and build one target at a time with --target.`,
  );
}

async function explain(target: Target, said: string): Promise<string> {
  const missing = await runtimeMissing(target);
  const lines = said.split("Stack backtrace")[0]?.trim() ?? "";
  if (missing === undefined) return `deno compile failed for ${target.name}:\n${lines}`;
  return [
    `The runtime for deno compile (denort ${DENO_VERSION} for ${target.name}) is not here and cannot be downloaded.`,
    "Looked for:",
    `  the file that ${DENORT_VARIABLE} names: not set`,
    `  ${await cachedRuntime(target)}: not there`,
    `  Deno's own site: ${lastCause(lines)}`,
    `Provide it: set ${DENORT_VARIABLE} to the unpacked file (and build one target at a time), or put the`,
    `zip that Deno publishes with release v${DENO_VERSION} at the path above.`,
    "Or build with --packaging portable, which needs none.",
  ].join("\n");
}

/** The innermost reason of an error as Deno prints it: the last indented line. */
function lastCause(said: string): string {
  const causes = said.split("\n").filter((line) => /^\s+\d*:?\s*\S/.test(line));
  return causes.at(-1)?.replace(/^\s*\d*:?\s*/, "") ?? "no reason given";
}
