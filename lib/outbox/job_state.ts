/** The state of a job: its journal, folded. Nothing else decides that. */
import type { JobEvent, PhaseStatuses } from "../server/schema.ts";
import type { Phase } from "../phases.ts";
import {
  Entry,
  LOG_NAMES,
  type LogName,
  type LogState,
  type Message,
  type Milestone,
  type Piece,
} from "./entries.ts";

/** A message that the server does not have yet. */
export interface PendingMessage {
  n: number;
  message: Message;
  after: Record<LogName, number>;
}

/** A process group that a phase started. */
export interface StartedGroup {
  phase: Phase;
  identity: { pid: number; startTime: number; bootId: string };
}

/** What is known of a phase that has started. */
export interface PhaseState {
  /** How often its command was started: more than once for a cleanup that a reboot has cut short. */
  commands: number;
  /** The last one of them. */
  command?: Extract<Entry, { t: "command" }>;
  /** What that one had used when it was left to another process. */
  used?: Extract<Entry, { t: "used" }>;
  /** Why it is being ended. */
  ending?: Extract<Entry, { t: "ending" }>;
  /** Once it has ended. */
  status?: number;
  /** How long it took, where that is known. */
  seconds?: number;
}

/** The folded journal of a job. */
export interface JobState {
  accepted?: Extract<Entry, { t: "accepted" }>;
  /** By whom it was taken up last. */
  takenUp?: Extract<Entry, { t: "taken_up" }>;
  /** Whether a process works on it, or did when it died. */
  isHeld: boolean;
  /** Folders of control groups in which something of it may run. */
  cgroups: Set<string>;
  /** How often in succession a process has died of it, as far as one can tell. */
  crashes: number;
  /** Whether the host was rebooted since the job was taken up first. */
  isRebooted: boolean;
  /** Whether the journal says less than was written into it. */
  isDamaged: boolean;
  passed: Set<Milestone>;
  /** What the event `job_end` will say, once the phases are over. */
  decided?: string;
  skipped: Set<Phase>;
  announced: Set<Phase>;
  /** When the device was lent to the job's parent; milliseconds since the start of the host. */
  allocatedAt?: number;
  baseline?: Record<string, number>;
  /** Whether it is known which numbers an earlier run of the same job has used. */
  continues: boolean;
  /** Phases that have started, in order. */
  phases: Map<Phase, PhaseState>;
  groups: StartedGroup[];
  /** What runs on the device, once that is known. */
  release?: string;
  logs: Record<LogName, LogState>;
  pending: PendingMessage[];
  nextMessage: number;
  /** Kinds of which a message has been written down, delivered or not. */
  sent: Set<Message["kind"]>;
  events: JobEvent[];
  eventsAcknowledged: number;
  /** Whether the job is known to be cancelled. */
  cancelled: boolean;
  /** Whether the logs were given up to make room. */
  logGivenUp: boolean;
  /** Set when only delivery is left; `folder` is then to be removed after it. */
  finished?: { folder?: string };
}

/** The state of a job of which nothing is known. */
export function emptyJobState(): JobState {
  const log = (): LogState => ({ regions: [], taken: 0, settled: 0, next: 0, refused: {} });
  return {
    isHeld: false,
    cgroups: new Set(),
    crashes: 0,
    isRebooted: false,
    isDamaged: false,
    passed: new Set(),
    skipped: new Set(),
    announced: new Set(),
    continues: false,
    phases: new Map(),
    groups: [],
    logs: { output: log(), serial: log() },
    pending: [],
    nextMessage: 0,
    sent: new Set(),
    events: [],
    eventsAcknowledged: 0,
    cancelled: false,
    logGivenUp: false,
  };
}

/**
 * A job that a process survives for so long is not what it dies of; nor is one that makes progress.
 * Milliseconds.
 */
const SURVIVED_MS = 10 * 60_000;

/** What shows that a job makes progress. */
const PROGRESS: ReadonlySet<Entry["t"]> = new Set(
  [
    ...["passed", "decided", "phase_announced", "phase_started", "phase_ended"] as const,
    ...["ending", "allocated", "cancelled"] as const,
  ] satisfies Entry["t"][],
);

/** Takes one more entry into `state`. */
export function apply(state: JobState, entry: Entry): void {
  if (PROGRESS.has(entry.t)) state.crashes = 0;
  switch (entry.t) {
    case "taken_up":
      takeUp(state, entry);
      break;
    case "damaged":
      state.isDamaged = true;
      break;
    case "handed_over":
      state.isHeld = false;
      break;
    case "passed":
      state.passed.add(entry.milestone);
      break;
    case "decided":
      state.decided = entry.reason;
      break;
    case "phase_skipped":
      state.skipped.add(entry.phase);
      break;
    case "phase_announced":
      state.announced.add(entry.phase);
      break;
    case "command": {
      const phase = startedPhase(state, entry.phase);
      phase.commands++;
      phase.command = entry;
      delete phase.used;
      // Its output, and the serial log that it may write, start again.
      for (const log of LOG_NAMES) delete state.logs[log].source;
      break;
    }
    case "used":
      startedPhase(state, entry.phase).used = entry;
      break;
    case "ending": {
      const phase = [...state.phases.values()].at(-1);
      if (phase !== undefined) phase.ending = entry;
      break;
    }
    case "allocated":
      state.allocatedAt = entry.at;
      break;
    case "taken": {
      const log = state.logs[entry.log];
      if (isFurther(entry.source, log.source)) state.crashes = 0;
      log.taken = entry.to;
      if (entry.source !== undefined) log.source = entry.source;
      break;
    }
    case "log":
      state.logs[entry.log] = entry.state;
      break;
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
      startedPhase(state, entry.phase);
      break;
    case "group":
      state.groups.push({ phase: entry.phase, identity: entry.identity });
      break;
    case "phase_ended":
      startedPhase(state, entry.phase).status = entry.status;
      if (entry.seconds !== undefined) startedPhase(state, entry.phase).seconds = entry.seconds;
      if (entry.release !== undefined) state.release = entry.release;
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
      log.inFlight = pieceOf(entry);
      delete log.ahead;
      break;
    }
    case "fragment_ahead": {
      const log = state.logs[entry.log];
      log.next = entry.number + 1;
      log.ahead = pieceOf(entry);
      break;
    }
    case "fragment_settled": {
      const log = state.logs[entry.log];
      const piece = log.inFlight;
      if (piece === undefined) break;
      log.settled = piece.to;
      delete log.inFlight;
      if (log.ahead !== undefined) log.inFlight = log.ahead;
      delete log.ahead;
      if (entry.how === "refused") {
        log.refused[piece.phase] = (log.refused[piece.phase] ?? 0) + piece.to - piece.from;
      }
      break;
    }
    case "resumed": {
      const log = state.logs[entry.log];
      if (log.inFlight !== undefined && log.inFlight.to <= entry.settled) delete log.inFlight;
      // The server has it, or it was not posted yet.
      delete log.ahead;
      log.settled = Math.max(log.settled, entry.settled);
      log.next = Math.max(log.next, entry.next);
      break;
    }
    case "settled":
      state.pending = state.pending.filter((pending) => pending.n !== entry.n);
      break;
    case "events_settled":
      state.eventsAcknowledged = Math.max(state.eventsAcknowledged, entry.count);
      break;
    case "given_up":
      if (entry.part === "artifacts") {
        state.pending = state.pending.filter(({ message }) => message.kind !== "artifacts");
        break;
      }
      for (const log of LOG_NAMES) {
        const { next } = state.logs[log];
        state.logs[log] = { regions: [], taken: 0, settled: 0, next, refused: {} };
      }
      for (const pending of state.pending) pending.after = { output: 0, serial: 0 };
      state.logGivenUp = true;
      break;
    case "finished":
      state.finished = entry.folder === undefined ? {} : { folder: entry.folder };
      break;
  }
}

function pieceOf({ number, phase, from, to }: Piece): Piece {
  return { number, phase, from, to };
}

function startedPhase(state: JobState, phase: Phase): PhaseState {
  const known = state.phases.get(phase) ?? { commands: 0 };
  state.phases.set(phase, known);
  return known;
}

function takeUp(state: JobState, entry: Extract<Entry, { t: "taken_up" }>): void {
  const { takenUp } = state;
  // One without this entry was begun by a version that could not leave a job to the next process.
  const isFirst = takenUp === undefined && state.phases.size === 0;
  if (!isFirst && takenUp?.boot !== entry.boot) {
    state.isRebooted = true;
    state.crashes = 0;
  } else if (state.isHeld && entry.at - (takenUp?.at ?? 0) < SURVIVED_MS) {
    state.crashes++;
  } else {
    state.crashes = 0;
  }
  state.takenUp = entry;
  if (entry.cgroup !== undefined) state.cgroups.add(entry.cgroup);
  state.isHeld = true;
}

function isFurther(source: { total: number } | undefined, than: { total: number } | undefined) {
  return (source?.total ?? 0) > (than?.total ?? 0);
}

/** Whether something is said of bytes that a log of `length` bytes does not have. */
export function reachesBeyond(log: LogState, length: number): boolean {
  return log.taken > length || log.settled > length ||
    (log.ahead?.to ?? log.inFlight?.to ?? 0) > length ||
    (log.regions.at(-1)?.from ?? 0) > length;
}

/** What comes next begins where the log ends now, and belongs to the last phase that had begun. */
function cutLog(log: LogState, length: number): void {
  log.taken = Math.min(log.taken, length);
  log.settled = Math.min(log.settled, length);
  for (const region of log.regions) region.from = Math.min(region.from, length);
  for (const piece of [log.inFlight, log.ahead]) {
    if (piece === undefined) continue;
    piece.from = Math.min(piece.from, length);
    piece.to = Math.min(piece.to, length);
  }
}

/** What is said of the logs entry by entry, most of all. */
const LOG_ENTRIES: ReadonlySet<string> = new Set(
  [
    ...["region", "cut", "taken", "log", "resumed"] as const,
    ...["fragment", "fragment_ahead", "fragment_settled"] as const,
  ] satisfies Entry["t"][],
);

/**
 * Fewer entries that come to the same state.
 *
 * @param values as read from a journal.
 * @param logs as the journal has them.
 */
export function compacted(values: readonly unknown[], { logs }: Pick<JobState, "logs">): unknown[] {
  // What a newer version has written about a log is not in this state: it stays.
  const isOfLogs = (value: unknown) => {
    const entry = Entry.safeParse(value);
    return entry.success && LOG_ENTRIES.has(entry.data.t);
  };
  return [
    ...values.filter((value) => !isOfLogs(value)),
    ...LOG_NAMES.map((log) => ({ t: "log", log, state: logs[log] })),
  ];
}

/** How many bytes of a log of `length` bytes belong to `phase`. */
export function lengthOf(log: LogState, phase: Phase, length: number): number {
  // What belongs to no phase is taken for the first one's: see `regionAt()`.
  const before = phase === "setup" ? log.regions[0]?.from ?? length : 0;
  return before + log.regions.reduce((sum, region, index) => {
    const end = log.regions[index + 1]?.from ?? length;
    return region.phase === phase ? sum + end - region.from : sum;
  }, 0);
}

/** The statuses of the phases that have ended, for `testflinger-outcome.json` and the server. */
export function statusesOf(state: JobState): PhaseStatuses {
  const statuses: PhaseStatuses = {};
  for (const [phase, { status }] of state.phases) {
    if (status !== undefined) statuses[phase] = status;
  }
  return statuses;
}

/** The phase that had started and not ended when the journal stopped. */
export function interruptedPhase(state: JobState): Phase | undefined {
  for (const [phase, { status }] of state.phases) {
    if (status === undefined) return phase;
  }
  return undefined;
}

/** The phase to which the byte at `offset` belongs, and where that phase's bytes stop. */
export function segmentAt(
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
