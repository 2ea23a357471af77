/**
 * What the record of a job is made of. An entry is written before the fact that it announces, or
 * right after the one that it attests; folding all entries in order tells where a job stands.
 */
import * as z from "zod";
import { PHASES } from "../phases.ts";
import { JobEvent, PhaseStatuses } from "../server/schema.ts";

const phase = z.enum(PHASES);
const offset = z.int().min(0);

/** The two logs that a server keeps of a job. */
export const LOG_NAMES = ["output", "serial"] as const;
export type LogName = typeof LOG_NAMES[number];

const log = z.enum(LOG_NAMES);

/** Counts the changes that an older agent would misunderstand. */
export const JOURNAL_VERSION = 1;

/** One process and its identity, as `lib/process/identity.ts` reads it. */
const Identity = z.object({ pid: z.int(), startTime: z.number(), bootId: z.string() });

/** Something for the server, apart from the logs and the events. */
export const Message = z.discriminatedUnion("kind", [
  /** `job_state` = the phase that starts, or `allocated`. */
  z.object({ kind: z.literal("state"), state: z.string() }),
  z.object({ kind: z.literal("status"), status: PhaseStatuses }),
  z.object({ kind: z.literal("device_info"), deviceInfo: z.record(z.string(), z.unknown()) }),
  z.object({ kind: z.literal("provision_log"), exitCode: z.int(), detail: z.string() }),
  /** `folder` holds the folder `artifacts`. */
  z.object({ kind: z.literal("artifacts"), folder: z.string() }),
  /** The last one: the statuses and `job_state` = `complete`. */
  z.object({ kind: z.literal("outcome"), status: PhaseStatuses }),
]);
export type Message = z.infer<typeof Message>;

/** How a message or an event ended its way. */
const Settled = z.object({
  /** Overtaken: what was said later says it too, or makes it untrue. It was never posted. */
  how: z.enum(["delivered", "refused", "overtaken"]),
  /** What the server said when it refused. */
  message: z.string().optional(),
});

export const Entry = z.discriminatedUnion("t", [
  /** The server has handed the job out, and it is ours to bring to an end. */
  z.object({
    t: z.literal("accepted"),
    /** @see JOURNAL_VERSION */
    version: z.int().optional(),
    at: z.number(),
    jobId: z.string(),
    queue: z.string(),
    webhook: z.string().optional(),
    /** An earlier run of the same job is not wholly delivered yet: this one's turn is after it. */
    rerun: z.boolean(),
  }),
  /** How much text of earlier runs the server has, by result key. */
  z.object({ t: z.literal("baseline"), bytes: z.record(z.string(), z.number()) }),
  /** An earlier run of the same job is wholly on the server: fragment numbers go on behind its own. */
  z.object({ t: z.literal("continues"), next: z.object({ output: offset, serial: offset }) }),
  z.object({ t: z.literal("phase_started"), phase }),
  /** A process group was started for a phase. */
  z.object({ t: z.literal("group"), phase, identity: Identity }),
  z.object({ t: z.literal("phase_ended"), phase, status: z.int().min(0).max(255) }),
  /** From this offset on the log's bytes belong to `phase`. */
  z.object({ t: z.literal("region"), log, phase, from: offset }),
  /** A power cut has left no more of the log than this. */
  z.object({ t: z.literal("cut"), log, length: offset }),
  z.object({
    t: z.literal("message"),
    n: z.int(),
    message: Message,
    /** How far each log had come: what is before goes to the server first. */
    after: z.object({ output: offset, serial: offset }),
  }),
  z.object({ t: z.literal("event"), event: JobEvent }),
  /** The server says that the job was cancelled: no state but `complete` may be posted any more. */
  z.object({ t: z.literal("cancelled") }),
  /** A piece of a log is about to be posted. Only one is under way per log. */
  z.object({ t: z.literal("fragment"), log, number: z.int(), phase, from: offset, to: offset }),
  /** The server has the piece of this log that was under way, or will never take it. */
  z.object({ t: z.literal("fragment_settled"), log, ...Settled.shape }),
  /** What the server turned out to have of a log, when a damaged journal did not tell. */
  z.object({ t: z.literal("resumed"), log, settled: offset, next: offset }),
  z.object({ t: z.literal("settled"), n: z.int(), ...Settled.shape }),
  /** The first `count` events are through. */
  z.object({ t: z.literal("events_settled"), count: z.int(), ...Settled.shape }),
  /** To make room, the logs or the artifacts were given up; the outcome is still delivered. */
  z.object({ t: z.literal("given_up"), part: z.enum(["log", "artifacts"]) }),
  /**
   * Nothing of the job runs any more and nothing will be added: what is left is delivery, and then
   * to remove `folder` where the artifacts could not be moved out of it.
   */
  z.object({ t: z.literal("finished"), at: z.number(), folder: z.string().optional() }),
]);
export type Entry = z.infer<typeof Entry>;
