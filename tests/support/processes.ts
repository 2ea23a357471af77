/** Processes that tests have started, or that have been started by what they test. */
import { allProcesses, processesWith } from "../../lib/process/proc.ts";
import { NOBODY } from "./temp_folder.ts";

/** Whether a process runs; a zombie does not. */
export async function isRunning(pid: number): Promise<boolean> {
  const { stdout } = await new Deno.Command("ps", { args: ["-o", "stat=", "-p", `${pid}`] })
    .output();
  const state = new TextDecoder().decode(stdout).trim();
  return state !== "" && !state.startsWith("Z");
}

/** Kills whatever has this `NAME=VALUE` in its environment, until nothing of it is left. */
export async function killAll(entry: string): Promise<void> {
  while (true) {
    const having = new Set(await processesWith(entry));
    const alive = (await allProcesses()).filter(({ pid, dead }) => having.has(pid) && !dead);
    if (alive.length === 0) return;
    for (const { pid } of alive) {
      try {
        Deno.kill(pid, "SIGKILL");
      } catch {
        // It has ended in this moment.
      }
    }
  }
}

/** Runs a program as that user; it may still read the program and what it imports, wherever they are. */
export const AS_NOBODY = [
  "setpriv",
  `--reuid=${NOBODY}`,
  `--regid=${NOBODY}`,
  "--clear-groups",
  "--inh-caps=+dac_read_search",
  "--ambient-caps=+dac_read_search",
  "--",
];
