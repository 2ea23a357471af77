/**
 * The bodies that travel between an agent and a Testflinger server. The client and the sandbox share this
 * file and nothing else, so that they cannot agree on a mistake by sharing code.
 */
import * as z from "zod";
import { PHASES } from "../phases.ts";

const phase = z.enum(PHASES);

/** `POST /v1/agents/data/{agent_id}`: any of these. */
export const AgentUpdate = z.strictObject({
  state: z.string(),
  comment: z.string(),
  /** Servers that show it in addition to the state: `online`, `offline`, `maintenance`, `restart`. */
  mode: z.string(),
  /** `""` clears it. */
  job_id: z.string(),
  queues: z.array(z.string()),
  location: z.string(),
  provision_type: z.string(),
  identifier: z.string(),
  /** Appended by the server, which keeps the last 100. */
  log: z.array(z.string()),
}).partial();
export type AgentUpdate = z.infer<typeof AgentUpdate>;

/** `GET /v1/agents/data/{agent_id}`. Fields come and go between versions; null stands for absent. */
export const AgentRecord = z.looseObject({
  name: z.string().nullish(),
  state: z.string().nullish(),
  comment: z.string().nullish(),
  /** Where a server has it, it says what administrators want, and `state` only what the agent does. */
  mode: z.string().nullish(),
  job_id: z.string().nullish(),
  queues: z.array(z.string()).nullish(),
  location: z.string().nullish(),
  provision_type: z.string().nullish(),
  identifier: z.string().nullish(),
  updated_at: z.union([z.string(), z.looseObject({ $date: z.unknown() })]).nullish(),
  /** Queue to its owners; a queue without owners is not restricted. */
  restricted_to: z.record(z.string(), z.array(z.string()).nullish()).nullish(),
});
export type AgentRecord = z.infer<typeof AgentRecord>;

/** `POST /v1/agents/queues`: queue to description. */
export const Queues = z.record(z.string(), z.string());

/** `POST /v1/agents/images`: queue to image name to provision data. */
export const Images = z.record(
  z.string(),
  z.record(
    z.string().min(1).regex(/^[^$.\0][^.\0]*$/, "must not start with $ or contain . or NUL"),
    z.string(),
  ),
);

/** `POST /v1/agents/provision_logs/{agent_id}`. */
export const ProvisionLogEntry = z.strictObject({
  job_id: z.string(),
  exit_code: z.int(),
  detail: z.string(),
});
export type ProvisionLogEntry = z.infer<typeof ProvisionLogEntry>;

/** Exit status of each phase that has run, 0-255. */
export const PhaseStatuses = z.partialRecord(phase, z.int().min(0).max(255));
export type PhaseStatuses = z.infer<typeof PhaseStatuses>;

/** `POST /v1/result/{id}` as a current server takes it. */
export const ResultUpdate = z.strictObject({
  job_state: z.string(),
  status: PhaseStatuses,
  device_info: z.record(z.string(), z.unknown()),
}).partial();

type LegacyKey = `${typeof PHASES[number]}_${"output" | "serial" | "status"}`;

/** `POST /v1/result/{id}`; a legacy server also takes `{phase}_status`, `_output` and `_serial`. */
export type ResultUpdate =
  & z.infer<typeof ResultUpdate>
  & { [key in LegacyKey]?: string | number };

/** `POST /v1/result/{id}/log/{output|serial}`. */
export const LogFragment = z.strictObject({
  fragment_number: z.int().min(0),
  /** ISO 8601 with an offset. */
  timestamp: z.iso.datetime({ offset: true }),
  phase,
  log_data: z.string(),
});
export type LogFragment = z.infer<typeof LogFragment>;

/** One thing that happened to a job. */
export const JobEvent = z.strictObject({
  event_name: z.string(),
  timestamp: z.iso.datetime({ offset: true }),
  detail: z.string(),
});
export type JobEvent = z.infer<typeof JobEvent>;

/** `POST /v1/job/{id}/events`; the list is cumulative. */
export const EventsUpdate = z.strictObject({
  agent_id: z.string(),
  job_queue: z.string(),
  job_status_webhook: z.string(),
  events: z.array(JobEvent),
});
export type EventsUpdate = z.infer<typeof EventsUpdate>;

/** `POST /v1/oauth2/refresh`. */
export const TokenAnswer = z.looseObject({
  access_token: z.string().min(1),
  /** Seconds. */
  expires_in: z.number().positive().nullish(),
});
