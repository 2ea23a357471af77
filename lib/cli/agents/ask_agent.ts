/** Asking a running agent over its status socket. */
import { Markers } from "../../agent/markers.ts";
import { requestsNow } from "../../host/watches.ts";
import { messageOf } from "../../message.ts";
import type { PendingRequests } from "../../observe/events.ts";
import { AgentStatus, HostStatus } from "../../observe/status_schema.ts";
import { statusSocketPath } from "../../observe/status_socket.ts";
import { join } from "../../path.ts";
import { lockHolder } from "./lock_holder.ts";

/** An agent that lives answers at once; one that hangs never does. */
const ANSWER_LIMIT_MS = 3_000;

/** What became of asking. */
export type AgentAnswer =
  | { kind: "running"; status: AgentStatus }
  /** It runs, or it cannot be told: the line says why nothing is known. */
  | { kind: "silent"; why: string; pid?: number }
  /** `why`: as the process of its host says, which would run it; `requests`: what waits for its start. */
  | { kind: "stopped"; why?: string; requests?: PendingRequests };

/** What an agent says of itself; undefined where it does not. */
export async function askStatus(folder: string): Promise<AgentStatus | undefined> {
  const answer = await askAgent({ folder });
  return answer.kind === "running" ? answer.status : undefined;
}

/** Asks an agent what it is doing. */
export async function askAgent({ folder }: { folder: string }): Promise<AgentAnswer> {
  let trouble: string;
  try {
    const response = await fetchFrom(folder, "/v1/status", AbortSignal.timeout(ANSWER_LIMIT_MS));
    return { kind: "running", status: AgentStatus.parse(await response.json()) };
  } catch (error) {
    trouble = messageOf(error);
  }
  try {
    await Deno.stat(join(folder, "lock"));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { kind: "stopped" };
    return { kind: "silent", why: "you may not look into its folder: try as root" };
  }
  const holder = await lockHolder(join(folder, "lock"));
  if (holder === undefined) return { kind: "stopped" };
  const isMissing = await Deno.stat(statusSocketPath(folder)).then(() => false, () => true);
  const why = isMissing ? "it is starting, or of an older version" : `no answer (${trouble})`;
  return { kind: "silent", why, pid: holder.pid };
}

/**
 * Asks several agents. Of one that does not run it is told why: what a process says that runs others of them
 * and would run it, too, or what is wrong with its configuration.
 *
 * @param running whose processes may know.
 */
export async function askAgents<Agent extends { id: string; folder: string; mistake?: string }>(
  agents: readonly Agent[],
  running: () => Promise<readonly { folder: string }[]>,
): Promise<{ agent: Agent; answer: AgentAnswer }[]> {
  const entries = await Promise.all(
    agents.map(async (agent) => ({ agent, answer: await askAgent(agent) })),
  );
  if (entries.every(({ answer }) => answer.kind !== "stopped")) return entries;
  const hosts = await Promise.all((await running()).map(({ folder }) => askHost(folder)));
  const known = hosts.flatMap((host) => host?.agents ?? []);
  return entries.map(({ agent, answer }) => {
    const why = known.find(({ agent_id: id }) => id === agent.id)?.trouble ?? agent.mistake;
    if (answer.kind !== "stopped") return { agent, answer };
    const requests = requestsOf(agent);
    const isAsked = Object.keys(requests).length > 0;
    return {
      agent,
      answer: { ...answer, ...why !== undefined && { why }, ...isAsked && { requests } },
    };
  });
}

/** What is asked of an agent that does not run. */
function requestsOf({ id, folder }: { id: string; folder: string }): PendingRequests {
  const log = { debug() {}, info() {}, warning() {}, error() {} };
  let uid: number | null = null;
  try {
    uid = Deno.statSync(folder).uid;
  } catch {
    // It has never run.
  }
  return requestsNow(new Markers({ agentId: id, log, ...uid !== null && { uid } }), folder);
}

/** The hosts that run these agents, each asked once. */
export async function askHosts(
  entries: readonly { agent: { id: string; folder: string }; answer: AgentAnswer }[],
): Promise<HostStatus[]> {
  const hosts: HostStatus[] = [];
  for (const { agent, answer } of entries) {
    const isKnown = hosts.some((host) => host.agents.some((one) => one.agent_id === agent.id));
    if (answer.kind !== "running" || isKnown) continue;
    const host = await askHost(agent.folder);
    if (host !== undefined) hosts.push(host);
  }
  return hosts;
}

/** What the process of an agent says of itself and all its agents; undefined where it does not. */
export async function askHost(folder: string): Promise<HostStatus | undefined> {
  try {
    const response = await fetchFrom(folder, "/v1/host", AbortSignal.timeout(ANSWER_LIMIT_MS));
    return HostStatus.parse(await response.json());
  } catch {
    return undefined;
  }
}

/** Asks for a path over an agent's status socket. */
export async function fetchFrom(
  folder: string,
  path: string,
  signal: AbortSignal,
): Promise<Response> {
  const client = Deno.createHttpClient({
    proxy: { transport: "unix", path: statusSocketPath(folder) },
  });
  // Closed once the answer has been read or dropped: it must not outlive the command.
  const response = await fetch(`http://localhost${path}`, { client, signal }).catch((error) => {
    client.close();
    throw error;
  });
  return new Response(closing(response.body, () => client.close()), response);
}

/** The body, with `close` called once it has been read or dropped. */
function closing(
  body: ReadableStream<Uint8Array> | null,
  close: () => void,
): ReadableStream<Uint8Array> | null {
  if (body === null) {
    close();
    return null;
  }
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  body.pipeTo(writable).catch(() => {}).finally(close);
  return readable;
}
