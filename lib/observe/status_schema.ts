/** What `GET /v1/status` answers, and what is kept of past jobs. Times are ISO 8601 in UTC. */
import * as z from "zod";
import { PHASES } from "../phases.ts";

/** A phase that has begun or was skipped. */
export const PhaseStatus = z.strictObject({
  phase: z.enum(PHASES),
  state: z.enum(["running", "ended", "skipped"]),
  started_at: z.string().optional().describe("absent when skipped"),
  seconds: z.number().optional().describe("how long it took, or has taken so far"),
  status: z.int().optional().describe("exit status, 0 to 255; 100 for an internal error"),
  event: z.string().optional().describe("what the job's webhook is told: test_success ..."),
  release: z.string().optional().describe("what runs on the device; unknown if it was not asked"),
  reason: z.string().optional().describe("why it was skipped"),
});
export type PhaseStatus = z.infer<typeof PhaseStatus>;

const jobFields = {
  job_id: z.string(),
  queue: z.string(),
  name: z.string().optional(),
  started_at: z.string(),
  phases: z.array(PhaseStatus),
  recovery_failed: z.boolean().describe("the device could not be brought back"),
};

/** What is left of the limits on the running phase; a limit that does not apply is absent. */
const LimitsStatus = z.strictObject({
  total_seconds: z.number().optional(),
  total_left_seconds: z.number().optional(),
  silence_seconds: z.number().optional(),
  silence_left_seconds: z.number().optional().describe("until silence ends the phase"),
});

/** A job that has ended. */
export const PastJob = z.strictObject({
  ...jobFields,
  ended_at: z.string(),
  seconds: z.number(),
  reason: z.string().describe("normal_exit, or the event that ended the job"),
});
export type PastJob = z.infer<typeof PastJob>;

/** The job that runs. */
export const CurrentJob = z.strictObject({ ...jobFields, limits: LimitsStatus.optional() });
export type CurrentJob = z.infer<typeof CurrentJob>;

/** Something on its way that is not a phase. */
const TransferStatus = z.strictObject({
  what: z.string().describe("Fetching the attachments, for one"),
  job_id: z.string(),
  bytes: z.number(),
  total_bytes: z.number().optional().describe("absent where it is not known"),
  seconds: z.number().describe("for how long"),
});

/** `GET /v1/status`. */
export const AgentStatus = z.strictObject({
  agent_id: z.string(),
  version: z.string(),
  now: z.string(),
  started_at: z.string(),
  healthy: z.boolean(),
  trouble: z.string().optional().describe("why the agent is thought to hang"),
  ready: z.boolean().describe("whether it takes jobs"),
  not_ready_because: z.string().optional(),
  mode: z.strictObject({
    state: z.string().describe("waiting, offline, maintenance, restart, stopping or a phase"),
    comment: z.string(),
    since: z.string(),
  }).optional().describe("absent until the agent has begun"),
  job: CurrentJob.optional(),
  recovering: z.strictObject({ job_id: z.string(), seconds: z.number() }).optional()
    .describe("a job of an earlier process, which is brought to its end first"),
  transfers: z.array(TransferStatus).optional().describe("attachments and artifacts on their way"),
  server: z.strictObject({
    address: z.string(),
    reachable: z.boolean().optional().describe("whether the last call succeeded"),
    last_success_at: z.string().optional(),
    last_failure_at: z.string().optional(),
    last_failure: z.string().optional(),
    last_poll_at: z.string().optional().describe("when it was last asked for a job"),
    retries: z.int(),
  }),
  undelivered: z.strictObject({ bytes: z.number(), fragments: z.int(), jobs: z.int() }),
  recent_jobs: z.array(PastJob).describe("the last 20, newest first"),
});
export type AgentStatus = z.infer<typeof AgentStatus>;
