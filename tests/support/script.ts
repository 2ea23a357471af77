/**
 * Code in a process of its own: for what a process has only once, as its umask, its environment and
 * its limits. All tests that run at the time would see them changed.
 */
import { join } from "node:path";

const CONFIG = `--config=${join(import.meta.dirname ?? "", "../deno.json")}`;

/** How a script is run. */
export interface ScriptOptions {
  /** A command that runs it: `["unshare", "--mount"]`. */
  readonly through?: readonly string[];
  /** Its `Deno.args`. */
  readonly args?: readonly string[];
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** @default reading and writing */
  readonly permissions?: readonly string[];
}

/** A command for `through`: a shell that does something before it becomes the program. */
export function after(command: string): readonly string[] {
  return ["sh", "-c", `${command} && exec "$@"`, "sh"];
}

/** The URL of a module of the checkout, in quotation marks, for the `import` of a script. */
export function moduleAt(path: string): string {
  return JSON.stringify(new URL(`../../${path}`, import.meta.url).href);
}

/**
 * Runs a module and returns what it prints.
 *
 * @throws Error with all that it said, when it fails.
 */
export async function runScript(text: string, options: ScriptOptions = {}): Promise<string> {
  const { through = [], args = [], env = {}, permissions = ["--allow-read", "--allow-write"] } =
    options;
  const folder = await Deno.makeTempDir();
  try {
    const module = join(folder, "script.ts");
    await Deno.writeTextFile(module, text);
    const deno = [Deno.execPath(), "run", "--quiet", "--no-check", CONFIG, ...permissions];
    const [command = "", ...argv] = [...through, ...deno, module, ...args];
    const { success, stdout, stderr } = await new Deno.Command(command, { args: argv, env })
      .output();
    const [said, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    if (!success) throw new Error(`${said}${errors}`);
    return said ?? "";
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
