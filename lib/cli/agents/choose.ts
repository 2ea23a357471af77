/** Which agents of this host a command is about. */
import { didYouMean } from "../../config/spelling.ts";
import { type CommandLine, DEFAULT_CONFIG, type Io } from "../command.ts";
import {
  type AgentPlaces,
  type AgentRef,
  CONFIG_FOLDER,
  findAgents,
  readAgentRef,
} from "./agent_ref.ts";

/**
 * The agents that the command line names. Undefined when it names none that can be used; that has
 * been told then.
 *
 * @param options.manyByDefault whether all are meant where none is named; else there must be one.
 */
export async function chooseAgents(
  line: CommandLine,
  io: Io,
  { manyByDefault, places }: { manyByDefault: boolean; places?: AgentPlaces | undefined },
): Promise<AgentRef[] | undefined> {
  const { positionals } = line;
  const files = line.lists.config ?? [];
  const isNamed = files.length > 0 || positionals.length > 0 || line.switches.has("all");
  if (files.length > 0 || !isNamed && await exists(DEFAULT_CONFIG)) {
    const chosen = await readAll(files.length > 0 ? files : [DEFAULT_CONFIG], io);
    if (chosen === undefined || positionals.length === 0) return chosen;
    return [...chosen, ...await byIds(positionals, { io, places }) ?? []];
  }
  if (positionals.length > 0) return await byIds(positionals, { io, places });
  const { agents, complaints } = await findAgents(places);
  for (const complaint of complaints) io.stderr(`${complaint}\n`);
  if (agents.length === 0) {
    io.stderr(
      `No agent was found on this host: none is set up in ${CONFIG_FOLDER}, and none runs that you ` +
        "may see. Name a configuration with -c FILE, or try again as root.\n",
    );
    return undefined;
  }
  if (agents.length > 1 && !manyByDefault && !isNamed) {
    io.stderr(`Which agent? Name one or more of them, or --all: ${ids(agents)}\n`);
    return undefined;
  }
  return agents;
}

async function readAll(files: readonly string[], io: Io): Promise<AgentRef[] | undefined> {
  const agents: AgentRef[] = [];
  for (const file of files) {
    const read = await readAgentRef(file);
    if (!read.ok) {
      io.stderr(`${read.message}\n`);
      return undefined;
    }
    agents.push(read.agent);
  }
  return agents;
}

async function byIds(
  wanted: readonly string[],
  { io, places }: { io: Io; places: AgentPlaces | undefined },
): Promise<AgentRef[] | undefined> {
  const { agents, complaints } = await findAgents(places);
  const chosen: AgentRef[] = [];
  for (const id of wanted) {
    const agent = agents.find(({ config }) => config.agent_id === id);
    if (agent !== undefined) {
      chosen.push(agent);
      continue;
    }
    for (const complaint of complaints) io.stderr(`${complaint}\n`);
    const meant = didYouMean(id, agents.map(({ config }) => config.agent_id));
    const hint = meant !== undefined
      ? `did you mean '${meant}'?`
      : agents.length > 0
      ? `there are: ${ids(agents)}`
      : `none was found in ${CONFIG_FOLDER}, and none runs that you may see (try as root)`;
    io.stderr(`There is no agent '${id}' on this host; ${hint}\n`);
    return undefined;
  }
  return chosen;
}

function ids(agents: readonly AgentRef[]): string {
  return agents.map(({ config }) => config.agent_id).join(", ");
}

async function exists(file: string): Promise<boolean> {
  return await Deno.stat(file).then(() => true, () => false);
}
