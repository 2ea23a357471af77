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
export interface LogStanding {
  /** Where each phase's bytes begin, in order. */
  regions: { phase: Phase; from: number }[];
  /** The server has, or has refused, everything before this offset. */
  settled: number;
  /** The number of the next fragment. */
  next: number;
  /** Announced, and not known to have arrived. */
  underWay?: Piece;
  /** Bytes of each phase that the server refused for good: it has that much less of the phase. */
  refused: Partial<Record<Phase, number>>;
}

/** A process group that a phase started. */
export interface StartedGroup {
  phase: Phase;
  identity: { pid: number; startTime: number; bootId: string };
}

/** The folded record of a job. */
export interface Standing {
  accepted?: Extract<Entry, { t: "accepted" }>;
  baseline?: Record<string, number>;
  /** Phases that have started, in order, and their statuses once they have ended. */
  phases: Map<Phase, { status?: number }>;
  groups: StartedGroup[];
  logs: Record<LogName, LogStanding>;
  pending: PendingMessage[];
  nextMessage: number;
  /** Kinds of which a message has been written down, delivered or not. */
  sent: Set<Message["kind"]>;
  events: JobEvent[];
  eventsSettled: number;
  /** Whether the logs and the artifacts were given up to make room. */
  givenUp: boolean;
  /** Set when only delivery is left; `folder` is then to be removed after it. */
  finished?: { folder?: string };
}

/** The standing of a job of which nothing is known. */
export function emptyStanding(): Standing {
  const log = (): LogStanding => ({ regions: [], settled: 0, next: 0, refused: {} });
  return {
    phases: new Map(),
    groups: [],
    logs: { output: log(), serial: log() },
    pending: [],
    nextMessage: 0,
    sent: new Set(),
    events: [],
    eventsSettled: 0,
    givenUp: false,
  };
}

/** Takes one more entry into `standing`. */
export function fold(standing: Standing, entry: Entry): void {
  switch (entry.t) {
    case "accepted":
      standing.accepted = entry;
      break;
    case "continues":
      for (const log of LOG_NAMES) {
        standing.logs[log].next = Math.max(standing.logs[log].next, entry.next[log]);
      }
      break;
    case "baseline":
      standing.baseline = entry.bytes;
      break;
    case "phase_started":
      standing.phases.set(entry.phase, {});
      break;
    case "group":
      standing.groups.push({ phase: entry.phase, identity: entry.identity });
      break;
    case "phase_ended":
      standing.phases.set(entry.phase, { status: entry.status });
      break;
    case "region":
      standing.logs[entry.log].regions.push({ phase: entry.phase, from: entry.from });
      break;
    case "cut":
      cutLog(standing.logs[entry.log], entry.length);
      break;
    case "message":
      standing.pending.push({ n: entry.n, message: entry.message, after: entry.after });
      standing.nextMessage = entry.n + 1;
      standing.sent.add(entry.message.kind);
      break;
    case "event":
      standing.events.push(entry.event);
      break;
    case "fragment": {
      // One at a time: that a next piece was announced says that this one's predecessor arrived,
      // even where the line that attested it was lost in a power cut.
      const log = standing.logs[entry.log];
      log.settled = entry.from;
      log.next = entry.number + 1;
      log.underWay = {
        number: entry.number,
        phase: entry.phase,
        from: entry.from,
        to: entry.to,
      };
      break;
    }
    case "fragment_settled": {
      const log = standing.logs[entry.log];
      const piece = log.underWay;
      if (piece === undefined) break;
      log.settled = piece.to;
      delete log.underWay;
      if (entry.how === "refused") {
        log.refused[piece.phase] = (log.refused[piece.phase] ?? 0) + piece.to - piece.from;
      }
      break;
    }
    case "settled":
      standing.pending = standing.pending.filter((pending) => pending.n !== entry.n);
      break;
    case "events_settled":
      standing.eventsSettled = Math.max(standing.eventsSettled, entry.count);
      break;
    case "given_up":
      for (const log of LOG_NAMES) {
        const { next } = standing.logs[log];
        standing.logs[log] = { regions: [], settled: 0, next, refused: {} };
      }
      standing.pending = standing.pending.filter(({ message }) => message.kind !== "artifacts");
      for (const pending of standing.pending) pending.after = { output: 0, serial: 0 };
      standing.givenUp = true;
      break;
    case "finished":
      standing.finished = entry.folder === undefined ? {} : { folder: entry.folder };
      break;
  }
}

/** Whether something is said of bytes that a log of `length` bytes does not have. */
export function reachesBeyond(log: LogStanding, length: number): boolean {
  return log.settled > length || (log.underWay?.to ?? 0) > length ||
    (log.regions.at(-1)?.from ?? 0) > length;
}

/** What comes next begins where the log ends now, and belongs to the last phase that had begun. */
function cutLog(log: LogStanding, length: number): void {
  log.settled = Math.min(log.settled, length);
  for (const region of log.regions) region.from = Math.min(region.from, length);
  if (log.underWay === undefined) return;
  log.underWay.from = Math.min(log.underWay.from, length);
  log.underWay.to = Math.min(log.underWay.to, length);
}

/** The statuses of the phases that have ended, for `testflinger-outcome.json` and the server. */
export function statusesOf(standing: Standing): PhaseStatuses {
  const statuses: PhaseStatuses = {};
  for (const [phase, { status }] of standing.phases) {
    if (status !== undefined) statuses[phase] = status;
  }
  return statuses;
}

/** The phase that had started and not ended when the record stopped. */
export function interruptedPhase(standing: Standing): Phase | undefined {
  for (const [phase, { status }] of standing.phases) {
    if (status === undefined) return phase;
  }
  return undefined;
}

/** The phase to which the byte at `offset` belongs, and where that phase's bytes stop. */
export function regionAt(
  log: LogStanding,
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
export function deliveredBefore(log: LogStanding, phase: Phase, offset: number): number {
  let bytes = -(log.refused[phase] ?? 0);
  log.regions.forEach((region, index) => {
    if (region.phase !== phase || region.from >= offset) return;
    const end = log.regions[index + 1]?.from ?? offset;
    bytes += Math.min(end, offset) - region.from;
  });
  return bytes;
}
