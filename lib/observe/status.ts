/** What the agent is doing, for people and programs that ask: a model of what it was told. */
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { NO_BYTES } from "../bytes.ts";
import {
  type JobSoFar,
  type LimitsOfPhase,
  type PendingRequest,
  type PendingRequests,
  type Sink,
  sinkOf,
  type Transfer,
} from "./events.ts";
import type { Liveness } from "./liveness.ts";
import type { Phase } from "../phases.ts";
import { openRecentJobs } from "./recent_jobs.ts";
import type { AgentStatus, BrokenConfiguration, CurrentJob, PhaseStatus } from "./status_schema.ts";
import { createTail } from "./output_text.ts";

/** Enough to see what went wrong, little enough for a browser to lay out at once. */
export const TAIL_BYTES = 256 * 1024;

/** A serial log is looked at for what it says now. */
const SERIAL_TAIL_BYTES = 64 * 1024;

/** What devices and servers say of themselves may be of any length; here it is for people to read. */
const MAX_TEXT_CHARS = 500;

const SECOND = 1000;

/** Options of {@link createStatus}. */
export interface StatusOptions {
  agentId: string;
  version: string;
  /** Shown as it is: without user name and password. */
  serverAddress: string;
  /** Whole paths, for those who ask where it has its things from. */
  configurationFile?: string;
  logFile?: string;
  /** What is wrong with that configuration by now. @default nobody looks */
  brokenConfiguration?: () => BrokenConfiguration | undefined;
  /** Where the recent jobs are kept: an existing folder of this agent alone. */
  folder: string;
  clock: Clock;
  log: Log;
  liveness: Liveness;
}

/** What a subscriber is told: output, that a new log or phase begins, or that something else is new. */
export type StatusEvent =
  | { kind: "output" | "serial"; bytes: Uint8Array }
  | { kind: "phase"; phase: Phase }
  | { kind: "cleared" }
  | { kind: "changed" };

/** The model. */
export interface StatusBoard {
  readonly sink: Sink;
  snapshot(): AgentStatus;
  /** The end of what the current (or else the last) job printed: at most 256 KiB of UTF-8. */
  tail(): Uint8Array;
  /** Where in that tail phases begin, in bytes; one that began before it is at 0. */
  marks(): LogMark[];
  /** The end of the serial log of that job: at most 64 KiB. */
  serialTail(): Uint8Array;
  /**
   * Calls `listener` for each event until the result is disposed of. The bytes are only good during
   * the call.
   */
  subscribe(listener: (event: StatusEvent) => void): Disposable;
  /** Waits until the recent jobs are on disk. */
  close(): Promise<void>;
}

/** The place in a tail at which a phase begins. */
export interface LogMark {
  phase: Phase;
  at: number;
}

/** The phase that runs; times are the clock's monotonic ones. */
interface Running {
  since: number;
  lastOutput: number;
  limits: LimitsOfPhase;
}

type Job = Omit<CurrentJob, "limits">;

/** A transfer, and since when: the clock's monotonic time. */
interface TransferSince extends Pick<Transfer, "what" | "bytes" | "total"> {
  jobId: string;
  since: number;
}

/** Makes the model; reads the recent jobs from disk. */
export async function createStatus(options: StatusOptions): Promise<StatusBoard> {
  const { clock, liveness } = options;
  const iso = () => new Date(clock.now()).toISOString();
  const recent = await openRecentJobs(options.folder, options.log);
  const tail = createTail(TAIL_BYTES);
  const serial = createTail(SERIAL_TAIL_BYTES);
  /** Where phases begin, in bytes from the beginning of the log. */
  let begins: LogMark[] = [];
  let freeBytes: number | undefined;
  let requests: PendingRequests = {};
  const listeners = new Set<(event: StatusEvent) => void>();
  const startedAt = iso();

  let mode: AgentStatus["mode"];
  let job: Job | undefined;
  let jobSince = 0;
  let running: Running | undefined;
  let recovering: { jobId: string; since: number } | undefined;
  let server: AgentStatus["server"] = { address: options.serverAddress, retries: 0 };
  let undelivered: AgentStatus["undelivered"] = { bytes: 0, fragments: 0, jobs: 0 };

  const transfers = new Map<string, TransferSince>();

  const changed = () => {
    for (const listener of listeners) listener({ kind: "changed" });
  };
  const runningPhase = () => job?.phases.find(({ state }) => state === "running");
  const sinceMono = (then: number) => (clock.monotonic() - then) / SECOND;

  /** Its place in the log; it has one already once its banner is there, or another process has begun it. */
  const begin = (phase: Phase) => {
    if (begins.at(-1)?.phase === phase) return;
    begins.push({ phase, at: tail.total });
    for (const listener of listeners) listener({ kind: "phase", phase });
  };

  const sink = sinkOf({
    mode(told) {
      const [state, comment] = [clip(told.state), clip(told.comment)];
      if (mode?.state === state && mode.comment === comment) return;
      const phase = runningPhase();
      const since = mode?.state === state
        ? mode.since
        : phase?.phase === state
        ? phase.started_at ?? iso()
        : iso();
      mode = { state, comment, since };
      changed();
    },
    recovery_began(event) {
      recovering = { jobId: event.job, since: clock.monotonic() };
      changed();
    },
    recovery_ended() {
      recovering = undefined;
      changed();
    },
    job_began({ job: jobId, queue, name, soFar }) {
      const startedAt = soFar?.startedAt ?? clock.now();
      job = {
        job_id: jobId,
        queue: clip(queue),
        ...(name === undefined ? {} : { name: clip(name) }),
        started_at: new Date(startedAt).toISOString(),
        phases: soFar?.phases.map(phaseSoFar) ?? [],
        recovery_failed: false,
      };
      jobSince = clock.monotonic() - (clock.now() - startedAt);
      running = undefined;
      tail.clear();
      serial.clear();
      tail.push(soFar?.output ?? NO_BYTES);
      serial.push(soFar?.serial ?? NO_BYTES);
      begins = soFar?.begins.map((begin) => ({ ...begin })) ?? [];
      for (const listener of listeners) listener({ kind: "cleared" });
      changed();
    },
    phase_began({ phase, limits }) {
      const now = clock.monotonic();
      const { runningForMs = 0 } = limits;
      running = { since: now - runningForMs, lastOutput: now, limits };
      const started_at = new Date(clock.now() - runningForMs).toISOString();
      job?.phases.push({ phase, state: "running", started_at });
      if (mode?.state === phase) mode = { ...mode, since: started_at };
      begin(phase);
      changed();
    },
    phase_skipped({ phase, reason }) {
      job?.phases.push({ phase, state: "skipped", reason: clip(reason) });
      changed();
    },
    phase_ended({ phase, status, event, seconds, release }) {
      running = undefined;
      const words = { event: clip(event), release: clip(release) };
      const end = { state: "ended" as const, status, seconds, ...words };
      const entry = job?.phases.findLast((entry) => entry.phase === phase);
      if (entry !== undefined) Object.assign(entry, end);
      else job?.phases.push({ phase, ...end });
      changed();
    },
    job_ended({ reason }) {
      running = undefined;
      if (job === undefined) return;
      const ended_at = iso();
      recent.add({ ...job, ended_at, seconds: sinceMono(jobSince), reason: clip(reason) });
      job = undefined;
      changed();
    },
    recovery_failed() {
      if (job !== undefined) job.recovery_failed = true;
    },
    output({ phase, bytes }) {
      if (phase !== undefined) begin(phase);
      tail.push(bytes);
      if (running !== undefined) running.lastOutput = clock.monotonic();
      for (const listener of listeners) listener({ kind: "output", bytes });
    },
    serial({ bytes }) {
      serial.push(bytes);
      for (const listener of listeners) listener({ kind: "serial", bytes });
    },
    requests({ offline, restart }) {
      requests = { ...(offline && { offline }), ...(restart && { restart }) };
      changed();
    },
    free_space({ bytes }) {
      freeBytes = bytes;
    },
    transfer({ job: jobId, what, bytes, total, isOver }) {
      const key = `${jobId} ${what}`;
      const known = transfers.get(key);
      if (isOver) transfers.delete(key);
      else {
        const since = known?.since ?? clock.monotonic();
        transfers.set(key, { what, jobId, bytes, total, since });
      }
      if (isOver || known === undefined) changed();
    },
    polled() {
      server = { ...server, last_poll_at: iso() };
    },
    connectivity({ ok, message }) {
      const turned = server.reachable !== ok;
      server = ok ? { ...server, reachable: true, last_success_at: iso() } : {
        ...server,
        reachable: false,
        last_failure_at: iso(),
        last_failure: clip(message ?? ""),
      };
      if (turned) changed();
    },
    access({ problem }) {
      const { turned_away: _, ...rest } = server;
      server = problem === undefined ? rest : { ...rest, turned_away: clip(problem) };
      changed();
    },
    retried() {
      server = { ...server, retries: server.retries + 1 };
    },
    undelivered({ bytes, fragments, jobs }) {
      const appeared = (bytes > 0) !== (undelivered.bytes > 0) || jobs !== undelivered.jobs;
      undelivered = { bytes, fragments, jobs };
      if (appeared) changed();
    },
  });

  const limitsNow = (): CurrentJob["limits"] => {
    if (running === undefined) return undefined;
    const { totalMs, silenceMs } = running.limits;
    const left = (ms: number, then: number) => Math.max(0, ms / SECOND - sinceMono(then));
    return {
      ...(totalMs === undefined ? {} : {
        total_seconds: totalMs / SECOND,
        total_left_seconds: left(totalMs, running.since),
      }),
      ...(silenceMs === undefined ? {} : {
        silence_seconds: silenceMs / SECOND,
        silence_left_seconds: left(silenceMs, running.lastOutput),
      }),
    };
  };

  /** An offline that is carried out waits no more. */
  const requestsNow = (): Pick<AgentStatus, "requests"> => {
    const { offline, restart } = requests;
    const isOffline = mode?.state === "offline" || mode?.state === "maintenance";
    const waiting = {
      ...(offline !== undefined && !isOffline && { offline: clipped(offline) }),
      ...(restart !== undefined && { restart: clipped(restart) }),
    };
    return Object.keys(waiting).length === 0 ? {} : { requests: waiting };
  };

  const jobNow = (): CurrentJob | undefined => {
    if (job === undefined) return undefined;
    const current = runningPhase();
    const phases: PhaseStatus[] = job.phases.map((entry) =>
      entry === current && running !== undefined
        ? { ...entry, seconds: sinceMono(running.since) }
        : { ...entry }
    );
    const limits = limitsNow();
    return { ...job, phases, ...(limits === undefined ? {} : { limits }) };
  };

  const transfersNow = () =>
    [...transfers.values()].map(({ what, jobId, bytes, total, since }) => ({
      what,
      job_id: jobId,
      bytes,
      ...(total !== undefined && { total_bytes: total }),
      seconds: sinceMono(since),
    }));

  return {
    sink,
    snapshot() {
      const trouble = liveness.trouble();
      const notReady = trouble ??
        (recovering === undefined
          ? whyNotReady(mode, server)
          : `job ${recovering.jobId} of an earlier process is ended first`);
      const current = jobNow();
      const broken = options.brokenConfiguration?.();
      return {
        agent_id: options.agentId,
        version: options.version,
        ...(options.configurationFile === undefined
          ? {}
          : { configuration_file: options.configurationFile }),
        ...(broken === undefined ? {} : { broken_configuration: broken }),
        ...(options.logFile === undefined ? {} : { log_file: options.logFile }),
        now: iso(),
        started_at: startedAt,
        healthy: trouble === undefined,
        ...(trouble === undefined ? {} : { trouble }),
        ready: notReady === undefined,
        ...(notReady === undefined ? {} : { not_ready_because: notReady }),
        ...(mode === undefined ? {} : { mode: { ...mode } }),
        ...(current === undefined ? {} : { job: current }),
        ...(recovering === undefined ? {} : {
          recovering: { job_id: recovering.jobId, seconds: sinceMono(recovering.since) },
        }),
        ...(transfers.size === 0 ? {} : { transfers: transfersNow() }),
        server: { ...server },
        undelivered: { ...undelivered },
        ...requestsNow(),
        ...(freeBytes === undefined ? {} : { free_bytes: freeBytes }),
        recent_jobs: [...recent.jobs],
      };
    },
    tail: () => tail.bytes(),
    marks() {
      const start = tail.total - tail.bytes().length;
      // Of the phases that began before the tail the last one is what it begins with.
      const first = begins.findLastIndex(({ at }) => at <= start);
      return begins.slice(Math.max(0, first))
        .map(({ phase, at }) => ({ phase, at: Math.max(0, at - start) }));
    },
    serialTail: () => serial.bytes(),
    subscribe(listener) {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
    close: () => recent.close(),
  };
}

function phaseSoFar(one: JobSoFar["phases"][number]): PhaseStatus {
  if ("reason" in one) return { phase: one.phase, state: "skipped", reason: clip(one.reason) };
  const { startedAt, event, release, ...known } = one;
  return {
    ...known,
    state: "ended",
    ...(startedAt !== undefined && { started_at: new Date(startedAt).toISOString() }),
    event: clip(event),
    release: clip(release),
  };
}

function clipped({ comment, by }: PendingRequest): PendingRequest {
  return { comment: clip(comment), by };
}

function clip(text: string): string {
  return text.length > MAX_TEXT_CHARS ? `${text.slice(0, MAX_TEXT_CHARS)}...` : text;
}

/** Modes in which no job is taken, in words. */
const NOT_TAKING_JOBS = new Map([
  ["offline", "offline"],
  ["maintenance", "in maintenance"],
  ["restart", "about to restart"],
  ["stopping", "stopping"],
]);

/** Why an agent takes no job: it was told to, or the server cannot be asked. */
function whyNotReady(
  mode: AgentStatus["mode"],
  server: AgentStatus["server"],
): string | undefined {
  if (mode === undefined) return "the agent has not started yet";
  const words = NOT_TAKING_JOBS.get(mode.state);
  if (words !== undefined) {
    return `the agent is ${words}${mode.comment === "" ? "" : `: ${mode.comment}`}`;
  }
  if (server.reachable === false) return `the server is not reachable: ${server.last_failure}`;
  if (server.turned_away !== undefined) {
    return `the server turns the agent away: ${server.turned_away}`;
  }
  return undefined;
}
