/**
 * A host as those see it who ask over HTTP: its agents, what is wrong with its configurations, and what
 * is in them, with nothing that may be a secret.
 */
import type { PageActions } from "./page_actions.ts";
import type { StatusBoard } from "./status.ts";
import type {
  AgentStatus,
  AgentSummary,
  BrokenConfiguration,
  HostStatus,
  PastJob,
} from "./status_schema.ts";
import { DEVICE_UNUSABLE, resultOf } from "./words.ts";

/** An agent of the host. */
export interface AgentView {
  agentId: string;
  /** Its configuration file. */
  file: string;
  configuration: Record<string, unknown>;
  /** What a configuration has where its file says nothing. */
  defaults?: Record<string, unknown>;
  /** Where the server shows a job to people; undefined where it does not. */
  jobPage?: (jobId: string) => string | undefined;
  /** What may be asked for on its page; undefined where that is not wanted. */
  actions?: PageActions | undefined;
  /** Undefined while it does not run. */
  board: StatusBoard | undefined;
  /** Why it does not run, or is thought to hang. */
  trouble: string | undefined;
  /** What is wrong by now with its file. */
  broken?: BrokenConfiguration | undefined;
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

function summaryOf(
  { agentId, file, board, trouble, leaves, configuration, broken }: AgentView,
): AgentSummary {
  const status = board?.snapshot();
  const why = trouble ?? status?.trouble;
  const reason = why ?? status?.not_ready_because ?? (status ? undefined : "it is starting");
  const attention = why ?? (status && whyAttention(status));
  const { job, server, undelivered, recent_jobs: [last] = [] } = status ?? {};
  const { job_queues: queues } = configuration;
  return {
    agent_id: agentId,
    file,
    ...(broken !== undefined && { broken_configuration: broken }),
    state: status === undefined ? "not running" : stateOf(status),
    comment: status?.mode?.comment ?? "",
    healthy: why === undefined,
    ...(why !== undefined && { trouble: why }),
    ready: reason === undefined,
    ...(reason !== undefined && { not_ready_because: reason }),
    ...(attention !== undefined && { attention }),
    ...(status?.mode !== undefined && { since: status.mode.since }),
    queues: Array.isArray(queues) ? queues.map(String) : [],
    ...(job !== undefined && { job_id: job.job_id, job }),
    ...(leaves !== undefined && { leaves }),
    ...(status?.requests !== undefined && { requests: status.requests }),
    ...(last !== undefined && { last_job: lastJob(last) }),
    reachable: server?.reachable ?? false,
    ...(server?.last_success_at !== undefined && { last_contact_at: server.last_success_at }),
    undelivered_bytes: undelivered?.bytes ?? 0,
    undelivered_jobs: undelivered?.jobs ?? 0,
    ...(status?.free_bytes !== undefined && { free_bytes: status.free_bytes }),
    ...(status !== undefined && { version: status.version }),
  };
}

function lastJob(job: PastJob): AgentSummary["last_job"] {
  const { job_id, name, ended_at } = job;
  const { kind, words } = resultOf(job);
  const named = name === undefined ? {} : { name };
  return { job_id, ...named, ended_at, passed: kind === "good", result: words };
}

/** Why a person has to look after an agent that does not hang: by itself it will not take jobs again. */
function whyAttention(status: AgentStatus): string | undefined {
  const { server, mode, recent_jobs: [last], job } = status;
  if (server.turned_away !== undefined) {
    return `the server turns the agent away: ${server.turned_away}`;
  }
  if (server.reachable === false) return `the server is not reachable: ${server.last_failure}`;
  const isOffline = mode?.state === "offline" || mode?.state === "maintenance";
  const isLost = (job ?? last)?.recovery_failed === true;
  if (isOffline && isLost) return mode.comment || "its device could not be recovered";
  if (mode?.comment.startsWith(DEVICE_UNUSABLE)) return mode.comment;
  // An agent that waits and says why takes no jobs: its disk is full, for one.
  if (mode?.state === "waiting" && mode.comment !== "") return mode.comment;
  return undefined;
}

/** What an agent is about, in one word. */
export function stateOf({ recovering, mode }: AgentStatus): string {
  return recovering !== undefined ? "recovering" : mode?.state ?? "starting";
}

/** One line of the table. */
export interface Setting {
  key: string;
  value: string;
  /** The file says so; else it is the default. */
  isSet: boolean;
}

/** What may hold a password: names are enough to hide a value, the value is not looked at. */
const SECRET_NAME = /pass|pw\b|secret|token|credential|api_?key|private/i;

const REMOVED = "(removed)";

/**
 * The settings, those that differ from the default first, without `undefined` ones. A command shows its program only,
 * since its arguments may hold anything; an address loses user and password; of nested settings
 * (advertised images hold provision data) the names are shown.
 */
export function viewConfiguration(
  configuration: Record<string, unknown>,
  defaults: Record<string, unknown> = {},
): Setting[] {
  const all = Object.entries(configuration)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([key, value]) => ({
      key,
      value: viewValue(key, value),
      isSet: IDENTITY.includes(key) || JSON.stringify(value) !== JSON.stringify(defaults[key]),
    }));
  return [...all.filter(({ isSet }) => isSet), ...all.filter(({ isSet }) => !isSet)];
}

/** There is no default of these. */
const IDENTITY = ["agent_id", "server_address", "job_queues"];

function viewValue(key: string, value: unknown): string {
  if (SECRET_NAME.test(key)) return REMOVED;
  if (key.endsWith("_command")) return viewCommand(String(value));
  if (Array.isArray(value)) {
    return value.map((item) => typeof item === "object" ? "..." : withoutUserinfo(String(item)))
      .join(", ");
  }
  if (typeof value === "object" && value !== null) return Object.keys(value).join(", ");
  return withoutUserinfo(String(value));
}

function viewCommand(command: string): string {
  const [program = "", ...rest] = command.trim().split(/\s+/);
  if (program === "") return "";
  // Anything else than a plain name may be an assignment, a quoted word, a here document ...
  if (!/^[\w./+-]+$/.test(program)) return "(set)";
  return rest.length > 0 ? `${program} ...` : program;
}

/** `http://user:password@host/` as `http://host/`. */
export function withoutUserinfo(text: string): string {
  return text.replaceAll(/\b([a-z][a-z0-9+.-]*:\/\/)[^/?#\s]*@/gi, "$1");
}
