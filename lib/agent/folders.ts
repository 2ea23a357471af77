/** The folders in which an agent keeps what it has: made at start, and trusted only if nobody else owns them. */
import type { AgentConfig } from "../config/agent_config.ts";
import { agentFolder, jobsFolderIn } from "../job/store.ts";
import { examineFolder } from "../job/untrusted_paths.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { dirname, resolve } from "../path.ts";

/** Administrators look into these. */
const BASE_FOLDER_MODE = 0o755;
/** Nobody but the agent looks into this one: it holds jobs as they were received. */
const OWN_FOLDER_MODE = 0o700;

/** Makes the folders that an agent needs; `folder` is its own one in `results_basedir`. */
export function prepareFolders(
  config: AgentConfig,
): { ok: true; folder: string } | { ok: false; message: string } {
  const folder = agentFolder(config.results_basedir, config.agent_id);
  const message = makeFolders([
    ["execution_basedir", config.execution_basedir, BASE_FOLDER_MODE],
    ["logging_basedir", config.logging_basedir, BASE_FOLDER_MODE],
    ["results_basedir", config.results_basedir, BASE_FOLDER_MODE],
    ["results_basedir", folder, OWN_FOLDER_MODE],
  ]) ?? whyNotOwn(folder);
  return message === undefined ? { ok: true, folder } : { ok: false, message };
}

/** In which a job keeps what it has, whether or not they are there. */
export function foldersOfJobs(config: AgentConfig): string[] {
  const own = agentFolder(config.results_basedir, config.agent_id);
  return [config.execution_basedir, own, jobsFolderIn(own)];
}

/**
 * Changes when one of an agent's folders was replaced, or has another owner or mode; undefined
 * when one is not there.
 */
export function markOfFolders(config: AgentConfig): string | undefined {
  const { execution_basedir, logging_basedir, results_basedir } = config;
  const own = agentFolder(results_basedir, config.agent_id);
  const paths = [execution_basedir, logging_basedir, results_basedir, own, jobsFolderIn(own)];
  try {
    return paths.map((path) => {
      const { dev, ino, mode, uid } = Deno.statSync(path);
      return [dev, ino, mode, uid].join(" ");
    }).join("\n");
  } catch {
    return undefined;
  }
}

/** Whether folders are there still: what is in /tmp may be cleaned up under an agent. */
export function areFolders(paths: readonly string[]): boolean {
  return paths.every((path) => {
    try {
      return Deno.statSync(path).isDirectory;
    } catch {
      return false;
    }
  });
}

/** Makes the folders; what went wrong, or must not be trusted, names the folder and its key. */
function makeFolders(
  folders: readonly [key: string, path: string, mode: number][],
): string | undefined {
  for (const [key, path, mode] of folders) {
    try {
      const above = existingPart(path);
      // Nothing is made in a folder of another user either.
      const before = examineFolder(above, Deno.uid() ?? 0);
      if (before.refusal === undefined) Deno.mkdirSync(path, { recursive: true, mode });
      const { refusal } = before.refusal === undefined
        ? examineFolder(path, Deno.uid() ?? 0)
        : before;
      if (refusal !== undefined) {
        return `Cannot trust the folder ${path} (${key}): ${refusal}. ` +
          "Have it removed or given to the agent's user, or configure another one.";
      }
    } catch (error) {
      return `Cannot make the folder ${path} (${key}): ${messageOf(error)}. ` +
        "Make it by hand, owned by the agent's user, or configure another one.";
    }
  }
  return undefined;
}

/** As much of a path as there is. */
function existingPart(path: string): string {
  const whole = resolve(path);
  try {
    Deno.statSync(whole);
    return whole;
  } catch {
    return dirname(whole) === whole ? whole : existingPart(dirname(whole));
  }
}

/** The owner of the agent's folder decides what the agent remembers; nobody else may read it. */
function whyNotOwn(folder: string): string | undefined {
  const { uid: owner, mode } = Deno.statSync(folder);
  if (owner !== Deno.uid()) {
    return `Cannot trust the folder ${folder} (results_basedir): it belongs to user ${owner}. ` +
      "Give it, with all that is in it, to the agent's user.";
  }
  try {
    if (((mode ?? 0) & 0o777) !== OWN_FOLDER_MODE) Deno.chmodSync(folder, OWN_FOLDER_MODE);
  } catch (error) {
    return `Cannot close the folder ${folder} (results_basedir) to other users: ${
      messageOf(error)
    }.`;
  }
  return undefined;
}

/** Says which of the folders are open to every account, which may be meant so. */
export function warnOfOpenFolders(config: AgentConfig, log: Log): void {
  const { execution_basedir, logging_basedir, results_basedir } = config;
  const open = [execution_basedir, logging_basedir, results_basedir]
    .flatMap((path) => examineFolder(path, Deno.uid() ?? 0).open);
  for (const path of new Set(open)) {
    log.warning(
      `Every account on this host may replace what is in ${path}, jobs and their secrets included: ` +
        `chmod o-w ${path}`,
    );
  }
}
