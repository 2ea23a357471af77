/** Commands as a user without rights runs them, also where the tests run as root (as in CI). */

import { NOBODY } from "../../support/temp_folder.ts";

const IS_ROOT = Deno.uid() === 0;

export interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

export interface CommandOptions {
  env?: Record<string, string>;
  cwd?: string;
}

/** Starts `argv` as nobody (or as whoever runs the tests, unless that is root). */
export function startUnprivileged(
  argv: readonly string[],
  { env = {}, cwd = "/" }: CommandOptions = {},
): Deno.ChildProcess {
  const [program = "", ...args] = IS_ROOT
    ? ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups", "--", ...argv]
    : argv;
  return new Deno.Command(program, {
    args,
    cwd,
    clearEnv: true,
    env: { PATH: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Waits for the end of a process and reads what it printed. */
export async function ended(child: Deno.ChildProcess): Promise<Ran> {
  const { code, stdout, stderr } = await child.output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

export function runUnprivileged(argv: readonly string[], options?: CommandOptions): Promise<Ran> {
  return ended(startUnprivileged(argv, options));
}

/** Makes `path` and all below it nobody's, where nobody is who runs commands. */
export async function giveAway(path: string): Promise<void> {
  if (!IS_ROOT) return;
  const { success } = await new Deno.Command("chown", {
    args: ["-hR", `${NOBODY}:${NOBODY}`, path],
  }).output();
  if (!success) throw new Error(`cannot give ${path} away`);
}

/** A folder that nobody owns; removed at the end. */
export async function inFolder(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "testflinger-packaging-" });
  try {
    await Deno.chmod(folder, 0o755);
    await giveAway(folder);
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The shells of hosts that this is for; bash is `sh` on Red Hat's. */
export const SHELLS: readonly (readonly string[])[] = [["dash"], ["busybox", "sh"], [
  "bash",
  "--posix",
]];

/** Is a program there? What needs one that is missing says so instead of passing. */
export function isInstalled(program: string): boolean {
  try {
    new Deno.Command(program, { args: ["--version"], stdout: "null", stderr: "null" }).outputSync();
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Writes an executable script. */
export async function writeScript(path: string, text: string): Promise<void> {
  await Deno.writeTextFile(path, text);
  await Deno.chmod(path, 0o755);
}

const POLL_MS = 10;
const PATIENCE_MS = 30_000;

/** Waits for something that happens in another process. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** The command line of a process, its words ended by NUL. */
export async function commandLineOf(pid: number): Promise<string> {
  const { stdout } = await new Deno.Command("cat", { args: [`/proc/${pid}/cmdline`] }).output();
  return new TextDecoder().decode(stdout);
}

/** The file that a process executes. Deno itself reads nothing under /proc without `--allow-all`. */
export async function executableOf(pid: number): Promise<string> {
  const { stdout } = await new Deno.Command("readlink", {
    args: [`/proc/${pid}/exe`],
    stderr: "null",
  }).output();
  return new TextDecoder().decode(stdout).trim();
}
