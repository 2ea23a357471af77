/** The agents of this host: those that are set up, and those that run. */
import { type AgentConfig, loadAgentConfig } from "../../config/agent_config.ts";
import { lastConfiguration } from "../../agent/last_configuration.ts";
import { filesIn, sameIdWords } from "../../host/configurations.ts";
import { agentFolder } from "../../job/store.ts";
import { basename, dirname, isAbsolute, join, resolve } from "../../path.ts";
import { ask } from "../../process/proc.ts";
import { LOG_FILE_NAME } from "../../observe/agent_log.ts";
import { DEFAULT_CONFIG } from "../command.ts";
import { connectorMistake, withDeviceFile } from "../read_config.ts";
import { askStatus } from "./ask_agent.ts";
import { heldLocks, pidIn } from "./lock_holder.ts";

/** Where `install.sh` puts configurations, each in a folder of the agent's name. */
export const CONFIG_FOLDER = "/etc/testflinger-agent";

/** The units of a host with all its agents in one process, as install.sh and the package put them there. */
const HOST_UNITS = [
  "/etc/systemd/system/testflinger-agents.service",
  "/usr/lib/systemd/system/testflinger-agents.service",
  "/lib/systemd/system/testflinger-agents.service",
];

/** The host's service starts with the host: its agents have none of their own. */
const HOST_ENABLED = "/etc/systemd/system/multi-user.target.wants/testflinger-agents.service";

/** Where locks and markers are. */
export const SHARED_FOLDER = "/tmp";

/** One agent of this host. */
export interface AgentRef {
  /** Its `agent_id`. */
  id: string;
  /** Its configuration. */
  file: string;
  /** Its own folder in `results_basedir`. */
  folder: string;
  /** Undefined where nobody can tell. */
  logFile: string | undefined;
  /** Why its configuration cannot be used as it is now, in one line: an agent that does not run cannot start. */
  mistake?: string;
}

/** One whose configuration can be used. */
export interface ConfiguredAgent extends AgentRef {
  config: AgentConfig;
}

/** What reading a configuration comes to; `message` is what is wrong with it, in one line. */
export type AgentRead =
  | { ok: true; agent: ConfiguredAgent }
  | {
    ok: false;
    message: string;
    /** This user may not read it, which says nothing of what is in it. */
    isForbidden: boolean;
    /** Enough can be read to find an agent that runs, or ran, with it. */
    agent: AgentRef | undefined;
  };

/** An agent from its configuration. */
export async function readAgentRef(file: string): Promise<AgentRead> {
  const result = await loadAgentConfig(file);
  const { agent_id: id, results_basedir, logging_basedir } = result.ok
    ? result.value
    : result.valid;
  const agent = id === undefined || results_basedir === undefined ? undefined : {
    id,
    file,
    folder: agentFolder(results_basedir, id),
    logFile: logging_basedir === undefined ? undefined : join(logging_basedir, LOG_FILE_NAME),
  };
  const config = await withDeviceFile(result.ok ? result.value : result.valid, file);
  const wrongConnector = await connectorMistake(config);
  if (result.ok && agent !== undefined && wrongConnector === undefined) {
    return { ok: true, agent: { ...agent, config: result.value } };
  }
  const mistakes = [
    ...result.ok ? [] : result.mistakes,
    ...wrongConnector === undefined
      ? []
      : [{ ...result.placeOf(["connector"]), path: "connector", message: wrongConnector }],
  ];
  const [first, ...more] = mistakes;
  const others = more.length === 0 ? "" : ` (and ${more.length} more)`;
  const place = first !== undefined && first.line > 0 ? `${first.line}:${first.column}: ` : "";
  const key = first === undefined || first.path === "" ? "" : `${first.path}: `;
  const message = `${file} cannot be used: ${place}${key}${first?.message ?? ""}${others}`;
  return {
    ok: false,
    message,
    isForbidden: await isForbidden(file),
    agent: agent && { ...agent, mistake: message },
  };
}

async function isForbidden(file: string): Promise<boolean> {
  try {
    (await Deno.open(file)).close();
    return false;
  } catch (error) {
    return error instanceof Deno.errors.PermissionDenied;
  }
}

/** All agents that can be found, by their ids, and what was in the way. */
export interface FoundAgents {
  agents: AgentRef[];
  complaints: string[];
  /** Configurations with mistakes; an agent may run with what was in one before. */
  broken: Set<string>;
  /** Whether nothing is known of some agent. */
  isComplete: boolean;
}

/** Where agents are looked for. */
export interface AgentPlaces {
  /** @default CONFIG_FOLDER, and the folder of the installed host */
  configFolder?: string;
  /** Where their locks are. @default SHARED_FOLDER */
  sharedFolder?: string;
  /** Units that may say where the installed host's folder is. @default HOST_UNITS */
  hostUnits?: readonly string[];
}

/** The folder whose agents the installed `testflinger-agents.service` runs; undefined without one. */
export async function installedHostFolder(
  units: readonly string[] = HOST_UNITS,
): Promise<string | undefined> {
  for (const unit of units) {
    const text = await Deno.readTextFile(unit).catch(() => "");
    const folder = /^ExecStart=.* --config-dir (\/\S*)/m.exec(text)?.[1];
    if (folder !== undefined) return folder;
  }
  return undefined;
}

/** Whether the installed host's service, which is enabled, runs that configuration. */
export async function isOfInstalledHost(file: string): Promise<boolean> {
  const folder = await installedHostFolder();
  if (folder === undefined || !isConfigIn(folder, file)) return false;
  return await Deno.lstat(HOST_ENABLED).then(() => true, () => false);
}

/** Whether a host that runs the agents of a folder would run that configuration. */
function isConfigIn(folder: string, file: string): boolean {
  const [root, path] = [resolve(folder), resolve(file)];
  return dirname(path) === root && path.endsWith(".conf") ||
    dirname(dirname(path)) === root && basename(path) === DEFAULT_CONFIG;
}

/** Looks for agents: those that are set up, and those that run. */
export async function findAgents(
  { configFolder, sharedFolder = SHARED_FOLDER, hostUnits }: AgentPlaces = {},
): Promise<FoundAgents> {
  const hostFolder = configFolder === undefined ? await installedHostFolder(hostUnits) : undefined;
  const folders = new Set([configFolder ?? CONFIG_FOLDER, ...hostFolder ? [hostFolder] : []]);
  const agents = new Map<string, AgentRef>();
  const named: ConfiguredAgent[] = [];
  const complaints: string[] = [];
  const broken = new Set<string>();
  let unknown = 0;
  // First what runs: a configuration may have been changed, or broken, since it was read.
  const running = await runningAgents(sharedFolder);
  for (const agent of running) agents.set(agent.id, agent);
  const files = new Set(running.map(({ file }) => file));
  for (const folder of folders) {
    let configs: string[];
    try {
      configs = await filesIn(folder);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) continue;
      complaints.push(`${folder} cannot be read: try again as root`);
      unknown++;
      continue;
    }
    for (const file of configs) {
      const read = await readAgentRef(file);
      if (!read.ok) complaints.push(read.message);
      if (!read.ok && !read.isForbidden) broken.add(file);
      const { agent } = read;
      if (read.ok) named.push(read.agent);
      if (agent !== undefined && !agents.has(agent.id)) agents.set(agent.id, agent);
      if (agent === undefined && !files.has(file)) unknown++;
    }
  }
  for (const { agent, message, owner } of await sharedIds(named, running)) {
    complaints.push(message);
    broken.add(agent.file);
    if (agents.get(agent.id)?.file !== agent.file) continue;
    agents.set(agent.id, owner ?? { ...agent, mistake: message });
  }
  return {
    agents: [...agents.values()].sort((a, b) => a.id.localeCompare(b.id)),
    isComplete: unknown === 0,
    complaints,
    broken,
  };
}

/** Configurations that cannot be used, because of others with the same `agent_id`: as a host decides it. */
async function sharedIds(
  named: readonly ConfiguredAgent[],
  running: readonly AgentRef[],
): Promise<{ agent: AgentRef; message: string; owner: AgentRef | undefined }[]> {
  const mistakes: { agent: AgentRef; message: string; owner: AgentRef | undefined }[] = [];
  for (const agent of named) {
    const others = named.filter(({ id, file }) => id === agent.id && file !== agent.file);
    if (others.length === 0) continue;
    const last = running.find(({ id }) => id === agent.id)?.file ?? lastConfiguration(agent.config);
    const path = last === undefined ? undefined : await realPath(last);
    if (path === await realPath(agent.file)) continue;
    let owner: AgentRef | undefined;
    for (const other of others) if (path === await realPath(other.file)) owner = other;
    const words = sameIdWords(agent.id, others.map(({ file }) => file));
    const message = `${agent.file} cannot be used: agent_id: ${words}`;
    mistakes.push({ agent, message, owner });
  }
  return mistakes;
}

/** The agents of a folder: those that have a configuration there, and those that run with one. */
export async function agentsIn(folder: string, places: AgentPlaces = {}): Promise<FoundAgents> {
  const root = await realPath(folder);
  const found = await findAgents({ ...places, configFolder: root });
  const agents = [];
  for (const agent of found.agents) {
    if (isConfigIn(root, await realPath(agent.file))) agents.push(agent);
  }
  return { ...found, agents };
}

/** The agent that runs with this configuration, whatever is in the file now. */
export async function runningWith(
  file: string,
  { sharedFolder = SHARED_FOLDER }: AgentPlaces = {},
): Promise<AgentRef | undefined> {
  const wanted = await realPath(file);
  for (const agent of await runningAgents(sharedFolder)) {
    if (await realPath(agent.file) === wanted) return agent;
  }
  return undefined;
}

async function realPath(file: string): Promise<string> {
  return await Deno.realPath(file).catch(() => resolve(file));
}

/** Agents by the locks that they hold; what they are is asked of themselves. */
async function runningAgents(folder: string): Promise<AgentRef[]> {
  const found = await Promise.all(
    (await locks(folder)).map(async ({ agentId, pid }): Promise<AgentRef | undefined> => {
      // The other lock is in the agent's own folder, and open too.
      const name = `/agent-${encodeURIComponent(agentId)}/lock`;
      const lock = (await openFiles(pid)).find((path) => path.endsWith(name));
      const own = lock === undefined ? undefined : dirname(lock);
      const status = own === undefined ? undefined : await askStatus(own);
      if (own !== undefined && status?.configuration_file !== undefined) {
        const { configuration_file: file, log_file: logFile } = status;
        return { id: agentId, file, folder: own, logFile };
      }
      // One that is just starting, that hangs, or of an older version.
      const configs = await configsOfProcess(pid);
      for (const config of configs) {
        const { agent } = await readAgentRef(config);
        if (agent?.id === agentId) return agent;
      }
      const [file, ...others] = configs;
      return own === undefined || file === undefined || others.length > 0
        ? undefined
        : { id: agentId, file, folder: own, logFile: undefined };
    }),
  );
  return found.filter((agent) => agent !== undefined);
}

/** What a process has open, as far as this user may see it. */
async function openFiles(pid: number): Promise<string[]> {
  const { text } = await ask(["/bin/sh", "-c", 'ls -l "/proc/$1/fd"', "sh", String(pid)]);
  return [...text.matchAll(/ -> (\/.*)$/gm)].map(([, path = ""]) => path);
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

/** The configurations that a process with agents was started with. */
async function configsOfProcess(pid: number): Promise<string[]> {
  const { text } = await ask([
    "/bin/sh",
    "-c",
    'readlink "/proc/$1/cwd" && tr "\\000" "\\n" <"/proc/$1/cmdline"',
    "sh",
    String(pid),
  ]);
  const [cwd, ...args] = text.split("\n");
  // Another process may have got the number meanwhile; the caller compares the agent's id.
  if (cwd === undefined || cwd === "") return [];
  const absolute = (path: string) => isAbsolute(path) ? path : join(cwd, path);
  const folder = argumentsOf(args, ["--config-dir"])[0];
  if (folder !== undefined) return await filesIn(absolute(folder)).catch(() => []);
  const files = argumentsOf(args, ["--config", "-c"]);
  return (files.length > 0 ? files : [DEFAULT_CONFIG]).map(absolute);
}

/** The values of an option on a command line, in any of its spellings. */
function argumentsOf(args: readonly string[], names: readonly string[]): string[] {
  return args.flatMap((arg, index) => {
    for (const name of names) {
      if (arg === name) return args[index + 1] ?? [];
      if (arg.startsWith(`${name}=`)) return arg.slice(name.length + 1);
      if (!name.startsWith("--") && arg.startsWith(name)) return arg.slice(name.length);
    }
    return [];
  });
}
