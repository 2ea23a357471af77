/** The packaged program, built for this machine: what the benchmarks measure. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PERMISSIONS } from "../lib/cli/command.ts";
import { VERSION } from "../lib/version.ts";

export const ROOT = fileURLToPath(new URL("..", import.meta.url));

/**
 * Builds the portable file of this checkout into `folder`.
 *
 * @returns its path.
 * @throws {Error} with what the build said.
 */
export async function buildProgram(folder: string): Promise<string> {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "--quiet", ...PERMISSIONS, join(ROOT, "tools", "build", "main.ts")],
      ...["--packaging", "portable", "--target", Deno.build.target, "--out", folder],
    ],
    cwd: ROOT,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return join(folder, `testflinger-agent-${VERSION}-${Deno.build.arch}`);
}

/** The program as it is in the checkout, for working on it. */
export function sourceProgram(): string[] {
  return [Deno.execPath(), "run", "--quiet", ...PERMISSIONS, join(ROOT, "main.ts")];
}

/** What a program prints, as text. */
export async function output(program: string, ...args: string[]): Promise<string> {
  const { stdout } = await new Deno.Command(program, { args, stdin: "null", stderr: "null" })
    .output();
  return new TextDecoder().decode(stdout);
}

/** Milliseconds that `work` takes. */
export async function milliseconds(work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
}

/** Runs a shell command to its end; one that fails is an error. */
export async function shell(command: string): Promise<void> {
  const { success, stderr } = await new Deno.Command("/bin/sh", {
    args: ["-c", command],
    stdin: "null",
  }).output();
  if (!success) throw new Error(`${command}: ${new TextDecoder().decode(stderr)}`);
}
