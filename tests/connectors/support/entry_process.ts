/** The command as a process of its own. */
import type { Lab } from "./lab.ts";

const ENTRY = new URL("./entry.ts", import.meta.url).pathname;
const CONFIG = new URL("../../../deno.json", import.meta.url).pathname;

/** A run of the command. */
export interface Running {
  readonly child: Deno.ChildProcess;
  stdout(): string;
  end(): Promise<{ code: number; signal: string | null; stderr: string }>;
}

/** Starts the command in a process of its own, in the lab. */
export function startEntry(
  lab: Lab,
  args: readonly string[],
  env: Record<string, string> = {},
): Running {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--config", CONFIG, ENTRY, ...args],
    cwd: lab.cwd,
    env: {
      ...lab.env(env),
      DENO_DIR: Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno`,
    },
    clearEnv: true,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let stdout = "";
  const reading = (async () => {
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) stdout += text;
  })();
  const stderr = new Response(child.stderr).text();
  return {
    child,
    stdout: () => stdout,
    async end() {
      const { code, signal } = await child.status;
      await reading;
      return { code, signal, stderr: await stderr };
    },
  };
}
