/** The real program as a process, for what only a process shows: signals, exit statuses, crashes. */
import { dirname, join } from "node:path";
import { PERMISSIONS } from "../../lib/cli/command.ts";
import type { TestHost } from "./injected_main.ts";

const HERE = dirname(import.meta.filename ?? "");
const MAIN = join(dirname(dirname(HERE)), "main.ts");
const INJECTED_MAIN = join(HERE, "injected_main.ts");

/** A process of ours that runs. */
export interface AgentProcess extends AsyncDisposable {
  readonly pid: number;
  /** Exit status; `128 + n` after a signal. */
  readonly exited: Promise<number>;
  /** What it printed so far, both streams. */
  output(): string;
  kill(signal: Deno.Signal): void;
}

/** Options of `startProgram()`. */
export interface ProgramOptions {
  /** A command that runs the program: `["unshare", "--mount"]`. */
  through?: readonly string[];
  /** The program, in place of the checkout's main module run by this Deno. */
  program?: string;
  /** The checkout's modules, with a host that is not the real one. */
  host?: TestHost;
  cwd?: string;
  env?: Record<string, string>;
}

/** Starts `testflinger-agent` with `args`. */
export function startProgram(args: readonly string[], options: ProgramOptions = {}): AgentProcess {
  const { through = [], program, host, ...spawnOptions } = options;
  const deno = [Deno.execPath(), "run", "--quiet", ...PERMISSIONS];
  const start = host !== undefined
    ? [...deno, INJECTED_MAIN, JSON.stringify(host)]
    : program === undefined
    ? [...deno, MAIN]
    : [program];
  const [command = "", ...argv] = [...through, ...start, ...args];
  const child = new Deno.Command(command, {
    args: argv,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    ...spawnOptions,
  }).spawn();
  let text = "";
  const collect = async (stream: ReadableStream<Uint8Array>) => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) text += decoder.decode(chunk, { stream: true });
  };
  const streams = [collect(child.stdout), collect(child.stderr)];
  let isOver = false;
  const exited = Promise.all([child.status, ...streams]).then(([status]) => {
    isOver = true;
    return status.code;
  });
  const kill = (signal: Deno.Signal) => {
    if (!isOver) child.kill(signal);
  };
  return {
    pid: child.pid,
    exited,
    output: () => text,
    kill,
    async [Symbol.asyncDispose]() {
      try {
        kill("SIGKILL");
      } catch {
        // It has ended in this moment.
      }
      await exited;
    },
  };
}
