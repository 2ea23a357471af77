/** Which agents of this host a command is about. */
import { didYouMean } from "../../config/mistake.ts";
import { join } from "../../path.ts";
import { type CommandLine, DEFAULT_CONFIG, type Io } from "../command.ts";
import {
  type AgentPlaces,
  type AgentRef,
  agentsIn,
  CONFIG_FOLDER,
  findAgents,
  type FoundAgents,
  readAgentRef,
  runningWith,
} from "./agent_ref.ts";
import { lockHolder } from "./lock_holder.ts";

/** What a command is about. */
export interface Chosen {
  agents: AgentRef[];
  /** False: there are agents of which nothing is known, because a configuration cannot be used. */
  isComplete: boolean;
  /** The configuration of one of them has mistakes: it runs on with what was there before, or not at all. */
  isBroken: boolean;
}

/**
 * The agents that the command line names. One that runs is found although its configuration cannot be
 * used any more, which is told; undefined when none is found, which has been told then.
 *
 * @param options.manyByDefault whether all are meant where none is named; else there must be one.
 * @param options.isForOne whether the command takes no more than one. @default false
 */
export async function chooseAgents(
  line: CommandLine,
  io: Io,
  { manyByDefault, isForOne = false, places }: {
    manyByDefault: boolean;
    isForOne?: boolean;
    places?: AgentPlaces | undefined;
  },
): Promise<Chosen | undefined> {
  const { positionals } = line;
  const files = line.lists.config ?? [];
  const folder = line.values["config-dir"];
  if (folder !== undefined && files.length > 0) {
    io.stderr("--config-dir and --config cannot be given both\n");
    return undefined;
  }
  if (folder !== undefined) return await chooseIn(folder, { positionals, io, places });
  const isNamed = files.length > 0 || positionals.length > 0 || line.switches.has("all");
  if (files.length > 0 || !isNamed && await exists(DEFAULT_CONFIG)) {
    const chosen = await readAll(files.length > 0 ? files : [DEFAULT_CONFIG], { io, places });
    if (chosen.agents.length === 0 || positionals.length === 0) {
      return chosen.agents.length === 0 ? undefined : chosen;
    }
    const more = await byIds(positionals, { io, found: await findAgents(places) });
    return {
      agents: [...chosen.agents, ...more?.agents ?? []],
      isComplete: chosen.isComplete && more !== undefined,
      isBroken: chosen.isBroken || more?.isBroken === true,
    };
  }
  if (positionals.length > 0) {
    return await byIds(positionals, { io, found: await findAgents(places) });
  }
  const { agents, complaints, isComplete, broken } = await findAgents(places);
  for (const complaint of complaints) io.stderr(`${complaint}\n`);
  if (agents.length === 0) {
    io.stderr(
      `No agent was found on this host: none is set up in ${CONFIG_FOLDER}, and none runs that you ` +
        "may see. Name a configuration with -c FILE, or try again as root.\n",
    );
    return undefined;
  }
  if (agents.length > 1 && !manyByDefault && !isNamed) {
    const what = isForOne ? "Name one of them" : "Name one or more of them, or --all";
    io.stderr(`Which agent? ${what}: ${ids(agents)}\n`);
    return undefined;
  }
  return { agents, isComplete, isBroken: broken.size > 0 };
}

/** The agents of a folder of configurations, or those of them that are named. */
async function chooseIn(
  folder: string,
  { positionals, io, places }: {
    positionals: readonly string[];
    io: Io;
    places: AgentPlaces | undefined;
  },
): Promise<Chosen | undefined> {
  const isThere = await Deno.stat(folder).then(({ isDirectory }) => isDirectory, () => false);
  const found = isThere ? await agentsIn(folder, places) : undefined;
  if (found === undefined) {
    io.stderr(`--config-dir must be a folder that can be read: ${folder}\n`);
    return undefined;
  }
  if (positionals.length > 0) return await byIds(positionals, { io, found });
  for (const complaint of found.complaints) io.stderr(`${complaint}\n`);
  const { agents, isComplete, broken } = found;
  if (agents.length > 0) return { agents, isComplete, isBroken: broken.size > 0 };
  if (isComplete) io.stderr(`There is no agent's configuration in ${folder}\n`);
  return undefined;
}

async function readAll(
  files: readonly string[],
  { io, places }: { io: Io; places: AgentPlaces | undefined },
): Promise<Chosen> {
  const agents: AgentRef[] = [];
  let isBroken = false;
  for (const file of files) {
    const read = await readAgentRef(file);
    const isRunning = read.agent !== undefined &&
      await lockHolder(join(read.agent.folder, "lock")) !== undefined;
    // What is in the file may have been changed, or broken, since the agent read it.
    const running = isRunning ? read.agent : await runningWith(file, places);
    const agent = running ?? read.agent;
    const note = running === undefined
      ? ""
      : "; the running agent keeps its previous configuration";
    if (!read.ok) io.stderr(`${read.message}${note}\n`);
    isBroken ||= !read.ok && !read.isForbidden;
    if (agent !== undefined) agents.push({ ...agent, file });
  }
  return { agents, isComplete: agents.length === files.length, isBroken };
}

async function byIds(
  wanted: readonly string[],
  { io, found: { agents, complaints, broken } }: { io: Io; found: FoundAgents },
): Promise<Chosen | undefined> {
  const chosen: AgentRef[] = [];
  for (const id of wanted) {
    const agent = agents.find((one) => one.id === id);
    if (agent !== undefined) {
      chosen.push(agent);
      const complaint = complaints.find((text) => text.startsWith(`${agent.file} `));
      if (complaint !== undefined) io.stderr(`${complaint}\n`);
      continue;
    }
    for (const complaint of complaints) io.stderr(`${complaint}\n`);
    const meant = didYouMean(id, agents.map((one) => one.id));
    const hint = meant !== undefined
      ? `did you mean '${meant}'?`
      : await exists(id)
      ? `to name a configuration file: -c ${id}`
      : agents.length > 0
      ? `there are: ${ids(agents)}`
      : "none was found where agents are set up, and none runs that you may see (try as root)";
    io.stderr(`There is no agent '${id}' on this host; ${hint}\n`);
    return undefined;
  }
  return {
    agents: chosen,
    isComplete: true,
    isBroken: chosen.some(({ file }) => broken.has(file)),
  };
}

function ids(agents: readonly AgentRef[]): string {
  return agents.map((one) => one.id).join(", ");
}

async function exists(file: string): Promise<boolean> {
  return await Deno.stat(file).then(() => true, () => false);
}
