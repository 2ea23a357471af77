/**
 * What is answered to who asks for the status, and what is kept of past jobs. Times are ISO 8601 in UTC. Fields that
 * are not known are passed over: agents and commands of two versions meet during an upgrade.
 */
import * as z from "zod";
import { PHASES } from "../phases.ts";

/** A phase that has begun or was skipped. */
export const PhaseStatus = z.object({
  phase: z.enum(PHASES).describe("its name"),
  state: z.enum(["running", "ended", "skipped"]).describe("how far it is"),
  started_at: z.string().optional().describe("absent when skipped"),
  seconds: z.number().optional().describe("how long it took, or has taken so far"),
  status: z.int().optional().describe("exit status, 0 to 255; 100 for an internal error"),
  event: z.string().optional().describe("the event sent to the job's webhook: test_success ..."),
  release: z.string().optional().describe("what runs on the device; unknown if it was not asked"),
  reason: z.string().optional().describe("why it was skipped"),
});
export type PhaseStatus = z.infer<typeof PhaseStatus>;

const jobFields = {
  job_id: z.string().describe("its id on the server"),
  queue: z.string().describe("the queue that it came from"),
  name: z.string().optional().describe("what its submitter calls it"),
  started_at: z.string().describe("when it was handed out"),
  phases: z.array(PhaseStatus).describe("in the order in which they ran"),
  recovery_failed: z.boolean().describe("the device could not be brought back"),
};

/** What is left of the limits on the running phase; a limit that does not apply is absent. */
const LimitsStatus = z.object({
  total_seconds: z.number().optional().describe("how long the phase may take"),
  total_left_seconds: z.number().optional().describe("until that ends the phase"),
  silence_seconds: z.number().optional().describe("how long it may print nothing"),
  silence_left_seconds: z.number().optional().describe("until silence ends the phase"),
});

/** A job that has ended. */
export const PastJob = z.object({
  ...jobFields,
  ended_at: z.string().describe("when it was over, cleanup included"),
  seconds: z.number().describe("how long it took"),
  reason: z.string().describe("normal_exit, or the event that ended the job"),
});
export type PastJob = z.infer<typeof PastJob>;

/** The job that runs. */
export const CurrentJob = z.object({
  ...jobFields,
  limits: LimitsStatus.optional().describe("of the running phase"),
});
export type CurrentJob = z.infer<typeof CurrentJob>;

/** Something on its way that is not a phase. */
const TransferStatus = z.object({
  what: z.string().describe("Fetching the attachments, for one"),
  job_id: z.string().describe("the job that it belongs to"),
  bytes: z.number().describe("that have come or gone so far"),
  total_bytes: z.number().optional().describe("absent where it is not known"),
  seconds: z.number().describe("for how long"),
});

const PendingRequest = z.object({
  comment: z.string().describe("why, or empty"),
  by: z.string().describe("on this host, on the server or by the agent itself"),
});

/** What has been asked of an agent and is not carried out yet. */
const PendingRequests = z.object({
  offline: PendingRequest.optional().describe("to take no more jobs"),
  restart: PendingRequest.optional().describe("to restart"),
});

/** A configuration that cannot be used while its agent runs on with what it has read before. */
const BrokenConfiguration = z.object({
  since: z.string().describe("when that was noticed"),
  mistakes: z.array(z.string()).describe("each with its place"),
});
export type BrokenConfiguration = z.infer<typeof BrokenConfiguration>;

/** `GET /v1/agents/<id>`. */
export const AgentStatus = z.object({
  agent_id: z.string().describe("as the configuration has it"),
  version: z.string().describe("of the program that runs"),
  configuration_file: z.string().optional().describe("which it was started with"),
  broken_configuration: BrokenConfiguration.optional().describe(
    "that file cannot be used as it is now: the agent keeps running with the previous configuration",
  ),
  log_file: z.string().optional().describe("its own log"),
  now: z.string().describe("the host's time"),
  started_at: z.string().describe("when the process started"),
  healthy: z.boolean().describe("whether the agent's loop turns, as /healthz says"),
  trouble: z.string().optional().describe("why the agent is thought to hang"),
  ready: z.boolean().describe("whether it takes jobs"),
  not_ready_because: z.string().optional().describe("why it takes none"),
  mode: z.object({
    state: z.string().describe("waiting, offline, maintenance, restart, stopping or a phase"),
    comment: z.string().describe("why, or empty"),
    since: z.string().describe("when it entered that state"),
  }).optional().describe("absent until the agent has started"),
  job: CurrentJob.optional().describe("the one that runs"),
  recovering: z.object({
    job_id: z.string().describe("which"),
    seconds: z.number().describe("for how long"),
  }).optional()
    .describe("a job of an earlier process, which is ended first"),
  transfers: z.array(TransferStatus).optional().describe("attachments and artifacts on their way"),
  server: z.object({
    address: z.string().describe("as the configuration has it"),
    reachable: z.boolean().optional().describe("whether the last call succeeded"),
    last_success_at: z.string().optional().describe("of the last call that succeeded"),
    last_failure_at: z.string().optional().describe("of the last call that failed"),
    last_failure: z.string().optional().describe("what it was"),
    turned_away: z.string().optional()
      .describe("why the server turns the agent away, for its token or its token's role"),
    last_poll_at: z.string().optional().describe("when it was last asked for a job"),
    retries: z.int().describe("calls and deliveries that were tried again"),
  }).describe("the Testflinger server"),
  undelivered: z.object({
    bytes: z.number().describe("of logs"),
    fragments: z.int().describe("pieces of logs that will be, at least"),
    jobs: z.int().describe("of which the server does not have everything"),
  }).describe("what the server does not have yet"),
  requests: PendingRequests.optional().describe("what waits, for the end of the job for one"),
  free_bytes: z.number().optional()
    .describe("on the fullest of the disks that jobs use, as last looked at"),
  recent_jobs: z.array(PastJob).describe("the last 20, newest first"),
});
export type AgentStatus = z.infer<typeof AgentStatus>;

/** An agent of a host, in short. */
export const AgentSummary = z.object({
  agent_id: z.string().describe("as its configuration has it"),
  file: z.string().describe("its configuration"),
  broken_configuration: BrokenConfiguration.optional().describe(
    "it cannot be used as it is now: the agent keeps running with the previous one",
  ),
  state: z.string().describe("its mode's state; starting, recovering or not running"),
  comment: z.string().describe("why, or empty"),
  healthy: z.boolean().describe("whether it runs, and its loop turns"),
  trouble: z.string().optional().describe("why it does not run, or is thought to hang"),
  ready: z.boolean().describe("whether it takes jobs"),
  not_ready_because: z.string().optional().describe("why it takes none"),
  attention: z.string().optional().describe("why a person has to look after it"),
  since: z.string().optional().describe("when it entered its state"),
  queues: z.array(z.string()).describe("that it takes jobs from"),
  job_id: z.string().optional().describe("the job that runs"),
  requests: PendingRequests.optional().describe("what waits, for the end of the job for one"),
  leaves: z.enum(["changed", "removed", "drained"]).optional().describe(
    "why it ends after its job: its configuration was changed or removed, or the process restarts",
  ),
  job: CurrentJob.optional().describe("the same, with its phases and what is left of its limits"),
  last_job: z.object({
    job_id: z.string().describe("its id on the server"),
    name: z.string().optional().describe("what its submitter calls it"),
    ended_at: z.string().describe("when it was over"),
    passed: z.boolean().describe("whether all its phases did"),
    result: z.string().describe("how it ended, in words"),
  }).optional().describe("the one before"),
  reachable: z.boolean().describe("whether its last call to the server succeeded"),
  last_contact_at: z.string().optional().describe("of the last call that succeeded"),
  undelivered_bytes: z.number().describe("of logs, that the server does not have yet"),
  undelivered_jobs: z.int().describe("of which the server does not have everything"),
  free_bytes: z.number().optional()
    .describe("on the fullest of the disks that its jobs use, as last looked at"),
  version: z.string().optional()
    .describe("of the program that runs it; absent while it does not run"),
});
export type AgentSummary = z.infer<typeof AgentSummary>;

/** `GET /v1/status`: the process and all its agents. */
export const HostStatus = z.object({
  pid: z.int().describe("of the process"),
  reloads: z.int().describe("how often it has read its configurations again for a SIGHUP"),
  version: z.string().describe("of the program that runs"),
  now: z.string().describe("the host's time"),
  started_at: z.string().describe("when the process started"),
  healthy: z.boolean().describe("whether there are no troubles, as /healthz says"),
  troubles: z.array(z.string()).describe("of agents and configurations, each in one line"),
  ready: z.boolean().describe("whether at least one agent takes jobs"),
  agents: z.array(AgentSummary).describe("in the order of their names"),
  broken_configurations: z.array(z.object({
    file: z.string().describe("which"),
    ...BrokenConfiguration.shape,
    agent_id: z.string().optional().describe(
      "of the agent that keeps running with the previous configuration",
    ),
  })).describe("configurations that cannot be used"),
});
export type HostStatus = z.infer<typeof HostStatus>;
