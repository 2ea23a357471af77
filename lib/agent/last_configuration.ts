/** With which configuration an agent last ran: where two files name its id, the next start knows which one it is. */
import { replaceFile } from "../bytes.ts";
import type { AgentConfig } from "../config/agent_config.ts";
import { agentFolder } from "../job/store.ts";
import { join, resolve } from "../path.ts";

const FILE_NAME = "configuration";

/** The absolute path of the file; undefined where nothing is known. */
export function lastConfiguration(
  { results_basedir, agent_id }: Pick<AgentConfig, "results_basedir" | "agent_id">,
): string | undefined {
  return readIn(agentFolder(results_basedir, agent_id));
}

function readIn(folder: string): string | undefined {
  try {
    return Deno.readTextFileSync(join(folder, FILE_NAME)).trimEnd();
  } catch {
    return undefined;
  }
}

/**
 * Remembers it.
 *
 * @param folder the agent's own folder in `results_basedir`; exists.
 */
export function rememberConfiguration(folder: string, file: string): void {
  const path = resolve(file);
  if (readIn(folder) === path) return;
  try {
    replaceFile(join(folder, FILE_NAME), `${path}\n`);
  } catch {
    // It matters only where two files have one id, and then a person is asked.
  }
}
