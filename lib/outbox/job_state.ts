/** Where a job stands: its record, folded. Nothing else decides that. */
import type { JobEvent, PhaseStatuses } from "../server/schema.ts";
import type { Phase } from "../phases.ts";
import { type Entry, LOG_NAMES, type LogName, type Message } from "./entries.ts";

/** A message that the server does not have yet. */
export interface PendingMessage {
  n: number;
  message: Message;
  after: Record<LogName, number>;
}

/** A piece of a log, by its place in the log file. */
export interface Piece {
  number: number;
  phase: Phase;
  from: number;
  to: number;
}

/** How far one log has come on its way to the server. */
export interface LogState {
  /** Where each phase's bytes begin, in order. */
  regions: { phase: Phase; from: number }[];
  /** The server has, or has refused, everything before this offset. */
  settled: number;
  /** The number of the next fragment. */
  next: number;
  /** Announced, and not known to have arrived. */
  inFlight?: Piece;
  /** Bytes of each phase that the server refused for good: it has that much less of the phase. */
  refused: Partial<Record<Phase, number>>;
}

/** A process group that a phase started. */
export interface StartedGroup {
  phase: Phase;
  identity: { pid: number; startTime: number; bootId: string };
}

/** The folded record of a job. */
export interface JobState {
  accepted?: Extract<Entry, { t: "accepted" }>;
  baseline?: Record<string, number>;
  /** Whether it is known which numbers an earlier run of the same job has used. */
  continues: boolean;
  /** Phases that have started, in order, and their statuses once they have ended. */
  phases: Map<Phase, { status?: number }>;
  groups: StartedGroup[];
  logs: Record<LogName, LogState>;
  pending: PendingMessage[];
  nextMessage: number;
  /** Kinds of which a message has been written down, delivered or not. */
  sent: Set<Message["kind"]>;
  events: JobEvent[];
  eventsSettled: number;
  /** Whether the job is known to be cancelled. */
  cancelled: boolean;
  /** Whether the logs were given up to make room. */
  logGivenUp: boolean;
  /** Set when only delivery is left; `folder` is then to be removed after it. */
  finished?: { folder?: string };
}

/** The state of a job of which nothing is known. */
export function emptyJobState(): JobState {
  const log = (): LogState => ({ regions: [], settled: 0, next: 0, refused: {} });
  return {
    continues: false,
    phases: new Map(),
    groups: [],
    logs: { output: log(), serial: log() },
    pending: [],
    nextMessage: 0,
    sent: new Set(),
    events: [],
    eventsSettled: 0,
    cancelled: false,
    logGivenUp: false,
  };
}

/** Takes one more entry into `state`. */
export function apply(state: JobState, entry: Entry): void {
  switch (entry.t) {
    case "accepted":
      state.accepted = entry;
      break;
    case "continues":
      state.continues = true;
      for (const log of LOG_NAMES) {
        state.logs[log].next = Math.max(state.logs[log].next, entry.next[log]);
      }
      break;
    case "baseline":
      state.baseline = entry.bytes;
      break;
    case "phase_started":
      state.phases.set(entry.phase, {});
      break;
    case "group":
      state.groups.push({ phase: entry.phase, identity: entry.identity });
      break;
    case "phase_ended":
      state.phases.set(entry.phase, { status: entry.status });
      break;
    case "region":
      state.logs[entry.log].regions.push({ phase: entry.phase, from: entry.from });
      break;
    case "cut":
      cutLog(state.logs[entry.log], entry.length);
      break;
    case "message":
      state.nextMessage = entry.n + 1;
      // A posted state would overwrite the cancellation.
      if (state.cancelled && entry.message.kind === "state") break;
      state.pending.push({ n: entry.n, message: entry.message, after: entry.after });
      state.sent.add(entry.message.kind);
      break;
    case "cancelled":
      state.cancelled = true;
      state.pending = state.pending.filter(({ message }) => message.kind !== "state");
      break;
    case "event":
      state.events.push(entry.event);
      break;
    case "fragment": {
      // One at a time: that a next piece was announced says that this one's predecessor arrived,
      // even where the line that attested it was lost in a power cut.
      const log = state.logs[entry.log];
      log.settled = entry.from;
      log.next = entry.number + 1;
      log.inFlight = {
        number: entry.number,
        phase: entry.phase,
        from: entry.from,
        to: entry.to,
      };
      break;
    }
    case "fragment_settled": {
      const log = state.logs[entry.log];
      const piece = log.inFlight;
      if (piece === undefined) break;
      log.settled = piece.to;
      delete log.inFlight;
      if (entry.how === "refused") {
        log.refused[piece.phase] = (log.refused[piece.phase] ?? 0) + piece.to - piece.from;
      }
      break;
    }
    case "resumed": {
      const log = state.logs[entry.log];
      if (log.inFlight !== undefined && log.inFlight.to <= entry.settled) delete log.inFlight;
      log.settled = Math.max(log.settled, entry.settled);
      log.next = Math.max(log.next, entry.next);
      break;
    }
    case "settled":
      state.pending = state.pending.filter((pending) => pending.n !== entry.n);
      break;
    case "events_settled":
      state.eventsSettled = Math.max(state.eventsSettled, entry.count);
      break;
    case "given_up":
      if (entry.part === "artifacts") {
        state.pending = state.pending.filter(({ message }) => message.kind !== "artifacts");
        break;
      }
      for (const log of LOG_NAMES) {
        const { next } = state.logs[log];
        state.logs[log] = { regions: [], settled: 0, next, refused: {} };
      }
      for (const pending of state.pending) pending.after = { output: 0, serial: 0 };
      state.logGivenUp = true;
      break;
    case "finished":
      state.finished = entry.folder === undefined ? {} : { folder: entry.folder };
      break;
  }
}

/** Whether something is said of bytes that a log of `length` bytes does not have. */
export function reachesBeyond(log: LogState, length: number): boolean {
  return log.settled > length || (log.inFlight?.to ?? 0) > length ||
    (log.regions.at(-1)?.from ?? 0) > length;
}

/** What comes next begins where the log ends now, and belongs to the last phase that had begun. */
function cutLog(log: LogState, length: number): void {
  log.settled = Math.min(log.settled, length);
  for (const region of log.regions) region.from = Math.min(region.from, length);
  if (log.inFlight === undefined) return;
  log.inFlight.from = Math.min(log.inFlight.from, length);
  log.inFlight.to = Math.min(log.inFlight.to, length);
}

/** The statuses of the phases that have ended, for `testflinger-outcome.json` and the server. */
export function statusesOf(state: JobState): PhaseStatuses {
  const statuses: PhaseStatuses = {};
  for (const [phase, { status }] of state.phases) {
    if (status !== undefined) statuses[phase] = status;
  }
  return statuses;
}

/** The phase that had started and not ended when the record stopped. */
export function interruptedPhase(state: JobState): Phase | undefined {
  for (const [phase, { status }] of state.phases) {
    if (status === undefined) return phase;
  }
  return undefined;
}

/** The phase to which the byte at `offset` belongs, and where that phase's bytes stop. */
export function regionAt(
  log: LogState,
  offset: number,
  length: number,
): { phase: Phase; end: number } {
  const index = log.regions.findLastIndex((region) => region.from <= offset);
  return {
    phase: log.regions[index]?.phase ?? "setup",
    end: log.regions[index + 1]?.from ?? length,
  };
}

/** How many bytes of `phase` the server should have when it has everything before `offset`. */
export function deliveredBefore(log: LogState, phase: Phase, offset: number): number {
  let bytes = -(log.refused[phase] ?? 0);
  log.regions.forEach((region, index) => {
    if (region.phase !== phase || region.from >= offset) return;
    const end = log.regions[index + 1]?.from ?? offset;
    bytes += Math.min(end, offset) - region.from;
  });
  return bytes;
}
