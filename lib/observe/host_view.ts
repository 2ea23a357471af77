/** A host as those see it who ask over HTTP: its agents, and what is wrong with its configurations. */
import type { AgentStatus, AgentSummary, HostStatus } from "./status_schema.ts";
import type { StatusBoard } from "./status.ts";

/** An agent of the host. */
export interface AgentView {
  agentId: string;
  /** Its configuration file. */
  file: string;
  configuration: Record<string, unknown>;
  /** Undefined while it does not run. */
  board: StatusBoard | undefined;
  /** Why it does not run, or is thought to hang. */
  trouble: string | undefined;
  /** Why it is to end after its job. */
  leaves?: AgentSummary["leaves"];
}

/** A host. */
export interface HostView {
  version: string;
  /** Milliseconds since 1970. */
  startedAt: number;
  /** How often the configurations were read again for a SIGHUP. */
  reloads(): number;
  agents(): readonly AgentView[];
  agent(agentId: string): AgentView | undefined;
  broken(): HostStatus["broken_configurations"];
}

/** The host at this moment. */
export function hostStatus(view: HostView, now: number): HostStatus {
  const agents = view.agents().map(summaryOf);
  const broken = view.broken();
  const troubles = [
    ...agents.flatMap(({ agent_id, trouble }) =>
      trouble === undefined ? [] : [`${agent_id}: ${trouble}`]
    ),
    ...broken.flatMap(({ mistakes }) => mistakes),
  ];
  return {
    pid: Deno.pid,
    reloads: view.reloads(),
    version: view.version,
    now: new Date(now).toISOString(),
    started_at: new Date(view.startedAt).toISOString(),
    healthy: troubles.length === 0,
    troubles,
    ready: agents.some(({ ready }) => ready),
    agents,
    broken_configurations: broken,
  };
}

function summaryOf({ agentId, file, board, trouble, leaves }: AgentView): AgentSummary {
  const status = board?.snapshot();
  const why = trouble ?? status?.trouble;
  const reason = why ?? status?.not_ready_because ?? (status ? undefined : "it is about to begin");
  const { job } = status ?? {};
  return {
    agent_id: agentId,
    file,
    state: status === undefined ? "not running" : stateOf(status),
    comment: status?.mode?.comment ?? "",
    healthy: why === undefined,
    ...(why !== undefined && { trouble: why }),
    ready: reason === undefined,
    ...(reason !== undefined && { not_ready_because: reason }),
    ...(job !== undefined && { job_id: job.job_id }),
    ...(leaves !== undefined && { leaves }),
    reachable: status?.server.reachable ?? false,
    undelivered_bytes: status?.undelivered.bytes ?? 0,
  };
}

/** What an agent is about, in one word. */
export function stateOf({ recovering, mode }: AgentStatus): string {
  return recovering !== undefined ? "recovering" : mode?.state ?? "starting";
}
