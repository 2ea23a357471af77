/**
 * What `testflinger-agent reload` does: SIGHUP to the processes of agents, and watching what becomes of
 * it. A process of one agent, or of another program than is installed, hands over to the next one; one of
 * several agents reads their configurations again. Jobs go on meanwhile.
 */
import { type Clock, systemClock } from "../../clock.ts";
import { messageOf } from "../../message.ts";
import { showText } from "../../observe/output_text.ts";
import type { AgentStatus, HostStatus } from "../../observe/status_schema.ts";
import { join } from "../../path.ts";
import { ask } from "../../process/proc.ts";
import { type CommandLine, type Io, USAGE_STATUS } from "../command.ts";
import type { AgentPlaces, AgentRef } from "./agent_ref.ts";
import { askAgent, askHost } from "./ask_agent.ts";
import { chooseAgents } from "./choose.ts";
import { lockHolder } from "./lock_holder.ts";
import { whyMarkerIgnored } from "./marker_file.ts";
import { COMES_BACK_MS, startHint } from "./requests.ts";
import { jobInWords } from "./show_status.ts";

/** How often a process is looked at. */
const LOOK_MS = 100;

/** What a reload needs. */
export interface ReloadOptions {
  /** @default the clock on the wall */
  clock?: Clock;
  /** Where agents are looked for. @default where they are on every host */
  places?: AgentPlaces;
}

/** A process, and those of its agents that the command is about. */
interface Process {
  pid: number;
  agents: AgentRef[];
}

/** Has the agents that the command line names taken up as program and configurations are now. */
export async function runReload(
  line: CommandLine,
  io: Io,
  { clock = systemClock, places }: ReloadOptions = {},
): Promise<number> {
  const chosen = await chooseAgents(line, io, { manyByDefault: true, places });
  if (chosen === undefined) return USAGE_STATUS;
  const processes = new Map<number, Process>();
  const idle: AgentRef[] = [];
  for (const agent of chosen.agents) {
    const pid = await processOf(agent);
    if (pid === undefined) idle.push(agent);
    else if (processes.has(pid)) processes.get(pid)?.agents.push(agent);
    else processes.set(pid, { pid, agents: [agent] });
  }
  const reloaded = await Promise.all(
    [...processes.values()].map((process) => new Reload(process, io, clock).run()),
  );
  /** One that did not run may have been begun by that: its configuration is new, or was mended. */
  const begun = new Set(reloaded.flatMap(({ hasNow }) => hasNow));
  let isWell = chosen.isComplete && reloaded.every(({ ok }) => ok);
  for (const agent of idle) {
    if (begun.has(agent.id)) continue;
    const answer = await askAgent(agent);
    const why = answer.kind === "stopped"
      ? `does not run; ${await startHint(agent)}`
      : await whyMarkerIgnored(agent) ??
        "its process cannot be found: try as root, or in the container that it runs in";
    io.stdout(`${agent.id}: ${why}\n`);
    isWell = false;
  }
  return isWell ? 0 : 1;
}

/** The process of an agent, if it is one of this host. */
async function processOf({ folder }: AgentRef): Promise<number | undefined> {
  const lock = join(folder, "lock");
  const holder = await lockHolder(lock);
  if (holder === undefined || holder.pid <= 0) return undefined;
  // A number in a file may be one of another container, or of long ago.
  const { text } = await ask([
    ...["/bin/sh", "-c", 'for fd in "/proc/$1/fd/"*; do readlink "$fd"; done'] as const,
    ...["sh", `${holder.pid}`],
  ]);
  return text.split("\n").includes(await Deno.realPath(lock).catch(() => lock))
    ? holder.pid
    : undefined;
}

/** What became of a process, and the agents that it, or the next one, has. */
interface Reloaded {
  ok: boolean;
  hasNow: string[];
}

class Reload {
  readonly #process: Process;
  readonly #io: Io;
  readonly #clock: Clock;
  readonly #name: string;

  constructor(process: Process, io: Io, clock: Clock) {
    this.#process = process;
    this.#io = io;
    this.#clock = clock;
    this.#name = process.agents.map(({ id }) => id).join(", ");
  }

  async run(): Promise<Reloaded> {
    const { pid, agents } = this.#process;
    const before = await this.#host();
    try {
      Deno.kill(pid, "SIGHUP");
    } catch (error) {
      const why = error instanceof Deno.errors.PermissionDenied
        ? "it is another user's, try as root"
        : messageOf(error);
      return this.#failed(`process ${pid} cannot be sent SIGHUP: ${why}`);
    }
    const limit = this.#clock.monotonic() + COMES_BACK_MS;
    while (true) {
      const now = await this.#host();
      if (now !== undefined && now.pid !== pid) return await this.#taken(now, limit);
      if (now !== undefined && before !== undefined && now.reloads > before.reloads) {
        return await this.#readAgain(now, limit);
      }
      if (this.#clock.monotonic() > limit) {
        const [agent] = agents;
        const isThere = agent !== undefined && await processOf(agent) === pid;
        return this.#failed(
          isThere
            ? `process ${pid} has not reacted to SIGHUP; its log says more`
            : `has ended, and nothing has started it again; ${agent && await startHint(agent)}`,
        );
      }
      await this.#clock.sleep(LOOK_MS);
    }
  }

  /** The next process is there: it has taken over when each agent polls, or is at what comes first. */
  async #taken({ pid, version }: HostStatus, limit: number): Promise<Reloaded> {
    const { agents } = this.#process;
    const outcomes = await Promise.all(agents.map(async (agent) => {
      while (true) {
        const answer = await askAgent(agent);
        if (answer.kind === "running" && isAtWork(answer.status)) {
          const job = jobInWords(answer.status);
          this.#say(
            agent.id,
            `runs on in process ${pid}, version ${version}` + (job === undefined ? "" : `: ${job}`),
          );
          return true;
        }
        if (this.#clock.monotonic() > limit) {
          const trouble = await this.#troubleOf(agent);
          this.#say(agent.id, `does not ask for jobs again: ${trouble ?? "its log says why"}`);
          return false;
        }
        await this.#clock.sleep(LOOK_MS);
      }
    }));
    const now = await this.#host();
    const hasBroken = this.#sayBroken(now);
    return { ok: outcomes.every(Boolean) && !hasBroken, hasNow: idsOf(now) };
  }

  /** The process has read its configurations: it is done when what could begin or change at once has. */
  async #readAgain(first: HostStatus, limit: number): Promise<Reloaded> {
    let now = first;
    const isUnderWay = ({ leaves, job_id: job, state, trouble }: HostStatus["agents"][number]) =>
      leaves !== undefined && job === undefined ||
      trouble === undefined && ["not running", "starting"].includes(state);
    while (now.agents.some(isUnderWay) && this.#clock.monotonic() < limit) {
      await this.#clock.sleep(LOOK_MS);
      now = await this.#host() ?? now;
    }
    const { pid, agents } = now;
    this.#io.stdout(
      `process ${pid} has read its configurations again: ${agents.length} ` +
        `agent${agents.length === 1 ? "" : "s"}\n`,
    );
    for (const { agent_id: id, leaves, job_id: job, trouble } of agents) {
      if (leaves === "changed") this.#say(id, `applies its changes after job ${job}`);
      if (leaves === "removed") this.#say(id, `ends after job ${job}: its configuration is gone`);
      if (trouble !== undefined) this.#say(id, trouble);
    }
    const hasBroken = this.#sayBroken(now);
    const hasTrouble = agents.some(({ trouble }) => trouble !== undefined);
    return { ok: !hasBroken && !hasTrouble, hasNow: idsOf(now) };
  }

  /** What cannot be used, and what then. */
  #sayBroken(host: HostStatus | undefined): boolean {
    for (const { mistakes, agent_id: id } of host?.broken_configurations ?? []) {
      const then = id === undefined
        ? "no agent runs for it"
        : `agent ${id} keeps running with the previous configuration`;
      const what = showText(mistakes.join("; ")).replaceAll("\n", " ");
      this.#io.stdout(`A configuration cannot be used, and ${then}: ${what}\n`);
    }
    return (host?.broken_configurations.length ?? 0) > 0;
  }

  /** Asks whichever of the agents answers. */
  async #host(): Promise<HostStatus | undefined> {
    for (const { folder } of this.#process.agents) {
      const host = await askHost(folder);
      if (host !== undefined) return host;
    }
    return undefined;
  }

  async #troubleOf({ id }: AgentRef): Promise<string | undefined> {
    return (await this.#host())?.agents.find((one) => one.agent_id === id)?.trouble;
  }

  #failed(text: string): Reloaded {
    this.#say(this.#name, text);
    return { ok: false, hasNow: [] };
  }

  #say(id: string, text: string): void {
    this.#io.stdout(`${id}: ${showText(text).replaceAll("\n", " ")}\n`);
  }
}

function idsOf(host: HostStatus | undefined): string[] {
  return host?.agents.filter(({ trouble }) => trouble === undefined)
    .map(({ agent_id }) => agent_id) ?? [];
}

/** It asks for jobs, or has what comes before: a job, being offline. */
function isAtWork({ mode, job, recovering, server }: AgentStatus): boolean {
  return job !== undefined || recovering !== undefined || server.last_poll_at !== undefined ||
    server.reachable === false || ["offline", "maintenance"].includes(mode?.state ?? "");
}
