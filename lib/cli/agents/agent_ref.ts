/** The agents of this host: those that are set up, and those that run. */
import { isAbsolute, join } from "node:path";
import { type AgentConfig, loadAgentConfig } from "../../config/agent_config.ts";
import { agentFolder } from "../../job/store.ts";
import { ask } from "../../process/proc.ts";
import { DEFAULT_CONFIG } from "../command.ts";
import { heldLocks, pidIn } from "./lock_holder.ts";

/** Where `install.sh` puts configurations, each in a folder of the agent's name. */
export const CONFIG_FOLDER = "/etc/testflinger-agent";

/** Where locks and markers are. */
export const SHARED_FOLDER = "/tmp";

/** One agent, by its configuration. */
export interface AgentRef {
  file: string;
  config: AgentConfig;
  /** The agent's own folder in `results_basedir`. */
  folder: string;
}

/** An agent from its configuration, or what is wrong with the file in one line. */
export async function readAgentRef(
  file: string,
): Promise<{ ok: true; agent: AgentRef } | { ok: false; message: string }> {
  const result = await loadAgentConfig(file);
  if (result.ok) {
    const { value: config } = result;
    const folder = agentFolder(config.results_basedir, config.agent_id);
    return { ok: true, agent: { file, config, folder } };
  }
  const [first, ...more] = result.mistakes;
  const others = more.length === 0 ? "" : ` (and ${more.length} more)`;
  const place = first !== undefined && first.line > 0 ? `${first.line}:${first.column}: ` : "";
  const key = first === undefined || first.path === "" ? "" : `${first.path}: `;
  return {
    ok: false,
    message: `${file} cannot be used: ${place}${key}${first?.message ?? ""}${others}`,
  };
}

/** All agents that can be found, by their ids, and what was in the way. */
export interface FoundAgents {
  agents: AgentRef[];
  complaints: string[];
}

/** Where agents are looked for. */
export interface AgentPlaces {
  /** @default CONFIG_FOLDER */
  configFolder?: string;
  /** Where their locks are. @default SHARED_FOLDER */
  sharedFolder?: string;
}

/** Looks for agents. */
export async function findAgents(
  { configFolder = CONFIG_FOLDER, sharedFolder = SHARED_FOLDER }: AgentPlaces = {},
): Promise<FoundAgents> {
  const agents = new Map<string, AgentRef>();
  const complaints: string[] = [];
  for (const file of await installedConfigs(configFolder, complaints)) {
    const read = await readAgentRef(file);
    if (read.ok) agents.set(read.agent.config.agent_id, read.agent);
    else complaints.push(read.message);
  }
  for (const { agentId, pid } of await locks(sharedFolder)) {
    if (agents.has(agentId)) continue;
    const file = await configOfProcess(pid);
    if (file === undefined) continue;
    const read = await readAgentRef(file);
    if (!read.ok) complaints.push(read.message);
    else if (read.agent.config.agent_id === agentId) agents.set(agentId, read.agent);
  }
  return {
    agents: [...agents.values()].sort((a, b) => a.config.agent_id.localeCompare(b.config.agent_id)),
    complaints,
  };
}

async function installedConfigs(folder: string, complaints: string[]): Promise<string[]> {
  const files: string[] = [];
  try {
    for await (const { name } of Deno.readDir(folder)) {
      const file = join(folder, name, DEFAULT_CONFIG);
      const there = await Deno.stat(file).then(
        () => true,
        (error) => error instanceof Deno.errors.PermissionDenied,
      );
      if (there) files.push(file);
    }
  } catch (error) {
    if (error instanceof Deno.errors.PermissionDenied) {
      complaints.push(`${folder} cannot be read: try again as root`);
    }
  }
  return files.sort();
}

/** The locks that agents hold, and their processes. Files of ended agents stay, and are left out. */
async function locks(folder: string): Promise<{ agentId: string; pid: number }[]> {
  const found: { agentId: string; pid: number }[] = [];
  const held = await heldLocks();
  for await (const { name, isFile } of Deno.readDir(folder)) {
    const id = /^testflinger-agent-(.+)\.lock$/.exec(name)?.[1];
    if (id === undefined || !isFile) continue;
    const path = join(folder, name);
    const inode = await Deno.stat(path).then(({ ino }) => ino ?? 0, () => 0);
    if (held !== undefined && !held.has(inode)) continue;
    const pid = held?.get(inode) || await pidIn(path);
    if (pid !== undefined) found.push({ agentId: decoded(id), pid });
  }
  return found;
}

function decoded(id: string): string {
  try {
    return decodeURIComponent(id);
  } catch {
    return id;
  }
}

/** The configuration that a running agent was started with. */
async function configOfProcess(pid: number): Promise<string | undefined> {
  const { text } = await ask([
    "/bin/sh",
    "-c",
    'readlink "/proc/$1/cwd" && tr "\\000" "\\n" <"/proc/$1/cmdline"',
    "sh",
    String(pid),
  ]);
  const [cwd, ...args] = text.split("\n");
  // Another process may have got the number meanwhile; the caller compares the agent's id.
  if (cwd === undefined || cwd === "") return undefined;
  const file = configArgument(args) ?? DEFAULT_CONFIG;
  return isAbsolute(file) ? file : join(cwd, file);
}

function configArgument(args: readonly string[]): string | undefined {
  for (const [index, arg] of args.entries()) {
    if (arg === "-c" || arg === "--config") return args[index + 1];
    if (arg.startsWith("--config=")) return arg.slice("--config=".length);
    if (/^-c./.test(arg)) return arg.slice("-c".length).replace(/^=/, "");
  }
  return undefined;
}
