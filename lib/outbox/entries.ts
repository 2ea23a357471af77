/**
 * What the journal of a job is made of. An entry is written before the fact that it announces, or
 * right after the one that it attests; folding all entries in order tells what the state of a job is.
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

/** One process and its identity, as `lib/process/proc.ts` reads it. */
const Identity = z.object({ pid: z.int(), startTime: z.number(), bootId: z.string() });

/** Something for the server, apart from the logs and the events. */
export const Message = z.discriminatedUnion("kind", [
  /**
   * `job_state` = the phase that starts, or `allocated`. `isAsked`: right before, the server has said that the
   * job is not cancelled. Without that it is asked before the state is posted, which would overwrite `cancelled`.
   */
  z.object({ kind: z.literal("state"), state: z.string(), isAsked: z.literal(true).optional() }),
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
const Acknowledgement = z.object({
  /** Overtaken: what was said later says it too, or makes it untrue. It was never posted. */
  how: z.enum(["delivered", "refused", "overtaken"]),
  /** What the server said when it refused. */
  message: z.string().optional(),
});

/** How far the output of a command has been read: see `OutputPlace` in `lib/process/kept_output.ts`. */
const Source = z.object({
  piece: offset,
  offset,
  total: offset,
  isPastEnd: z.boolean().optional(),
});
export type Source = z.infer<typeof Source>;

/** A piece of a log, by its place in the log file. */
const Piece = z.object({ number: z.int(), phase, from: offset, to: offset });

/** How far one log has come on its way from the command to the server. */
export const LogState = z.object({
  /** Where each phase's bytes begin, in order. */
  regions: z.array(z.object({ phase, from: offset })),
  /** What is behind this has been written, and it is not known where it came from: it is cut off. */
  taken: offset,
  /** What has been read of the command that runs to come as far as `taken`. */
  source: Source.optional(),
  /** The server has, or has refused, everything before this offset. */
  settled: offset,
  /** The number of the next fragment. */
  next: offset,
  /** Announced, and not known to have arrived. */
  inFlight: Piece.optional(),
  /** The one that is in flight as soon as that is acknowledged. */
  ahead: Piece.optional(),
  /** Bytes of each phase that the server refused for good: it has that much less of the phase. */
  refused: z.partialRecord(phase, z.number()),
});
export type LogState = z.infer<typeof LogState>;
export type Piece = z.infer<typeof Piece>;

/** What a job has behind it once and for all, besides its phases. */
const Milestone = z.enum([
  /** Its webhook has been told that it starts. */
  "begun",
  /** Its working folder is there, and the attachments in it. */
  "prepared",
  /** After cleanup: nothing of it runs any more, and its webhook has been told that it ends. */
  "over",
]);
export type Milestone = z.infer<typeof Milestone>;

/** Why a phase is ended that would go on: its event, and what its log says. */
const Ending = z.object({
  event: z.enum(["cancelled", "global_timeout", "output_timeout", "stopped", "error"]),
  detail: z.string(),
});

export const Entry = z.discriminatedUnion("t", [
  /** The server has handed the job out, and it is ours to end. */
  z.object({
    t: z.literal("accepted"),
    /** @see JOURNAL_VERSION */
    version: z.int().optional(),
    at: z.number(),
    jobId: z.string(),
    queue: z.string(),
    webhook: z.string().optional(),
    /**
     * There is an earlier run of the same job. This one's turn is after it where it is not wholly delivered yet;
     * else the server is asked what it has of it.
     */
    rerun: z.boolean(),
  }),
  /** How much text of earlier runs the server has, by result key. */
  z.object({ t: z.literal("baseline"), bytes: z.record(z.string(), z.number()) }),
  /** An earlier run of the same job is wholly on the server: fragment numbers go on behind its own. */
  z.object({ t: z.literal("continues"), next: z.object({ output: offset, serial: offset }) }),
  /**
   * A process of the agent begins to work on the job, or takes it up where another has left it.
   * `boot` changes with each start of the host, `at` is in milliseconds since then. `cgroup` is the folder
   * of the job's control group below that of the process, where there is one.
   */
  z.object({
    t: z.literal("taken_up"),
    boot: z.string(),
    at: z.number(),
    cgroup: z.string().optional(),
  }),
  /**
   * The journal says less than was written into it: some of it was damaged, or is of a version that was not
   * known. It is written over what cannot be read at its end, which nobody would miss later.
   */
  z.object({ t: z.literal("damaged") }),
  /** It leaves the job as it is to the next process, in good order. */
  z.object({ t: z.literal("handed_over") }),
  z.object({ t: z.literal("passed"), milestone: Milestone }),
  /** What the event `job_end` will say: no phase but cleanup is to run any more. */
  z.object({ t: z.literal("decided"), reason: z.string() }),
  z.object({ t: z.literal("phase_skipped"), phase }),
  /** The log of the phase is open: it has its banner. */
  z.object({ t: z.literal("phase_announced"), phase }),
  z.object({ t: z.literal("phase_started"), phase }),
  /**
   * A command is about to be started with a keeper, whose folder has this name. Times are in
   * milliseconds; `at` is since the start of the host.
   */
  z.object({
    t: z.literal("command"),
    phase,
    name: z.string(),
    at: z.number(),
    totalMs: z.number().optional(),
    silenceMs: z.number().optional(),
  }),
  /**
   * The command of the phase is left to the next process, and has used so much until then: see
   * `lib/process/exit.ts`, and `usageInAll()` there.
   */
  z.object({
    t: z.literal("used"),
    phase,
    cpuMs: z.number().optional(),
    memoryPeak: z.number().optional(),
    read: z.number().optional(),
    written: z.number().optional(),
    killed: z.int(),
  }),
  /** The command of the phase that began last is about to be ended. */
  z.object({ t: z.literal("ending"), ...Ending.shape }),
  /** The device is lent to the job's parent; milliseconds since the start of the host. */
  z.object({ t: z.literal("allocated"), at: z.number() }),
  /** A process group was started for a phase. */
  z.object({ t: z.literal("group"), phase, identity: Identity }),
  z.object({
    t: z.literal("phase_ended"),
    phase,
    status: z.int().min(0).max(255),
    /** How long it took, where that is known. */
    seconds: z.number().optional(),
    /** What runs on the device, once that is known. */
    release: z.string().optional(),
  }),
  /** Everything before `to` is in the log for good, and comes from before `source`. */
  z.object({
    t: z.literal("taken"),
    log,
    to: offset,
    source: Source.optional(),
  }),
  /** All that earlier entries have said of a log. */
  z.object({ t: z.literal("log"), log, state: LogState }),
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
  /** A piece of a log is about to be posted. Only one is in flight per log. */
  z.object({ t: z.literal("fragment"), log, ...Piece.shape }),
  /** While one is in flight: what is behind it will be posted when it is acknowledged. */
  z.object({ t: z.literal("fragment_ahead"), log, ...Piece.shape }),
  /** The server has the piece of this log that was in flight, or will never take it. */
  z.object({ t: z.literal("fragment_settled"), log, ...Acknowledgement.shape }),
  /** What the server turned out to have of a log, when a damaged journal did not tell. */
  z.object({ t: z.literal("resumed"), log, settled: offset, next: offset }),
  z.object({ t: z.literal("settled"), n: z.int(), ...Acknowledgement.shape }),
  /** The first `count` events are through. */
  z.object({ t: z.literal("events_settled"), count: z.int(), ...Acknowledgement.shape }),
  /** To make room, the logs or the artifacts were given up; the outcome is still delivered. */
  z.object({ t: z.literal("given_up"), part: z.enum(["log", "artifacts"]) }),
  /**
   * Nothing of the job runs any more and nothing will be added: what is left is delivery, and then
   * to remove `folder` where the artifacts could not be moved out of it.
   */
  z.object({ t: z.literal("finished"), at: z.number(), folder: z.string().optional() }),
]);
export type Entry = z.infer<typeof Entry>;
