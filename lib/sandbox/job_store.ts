/** The jobs of a sandbox: what was submitted, what became of it, what was uploaded for it. */
import type { Clock } from "../clock.ts";
import type { JobEvent } from "../server/schema.ts";
import { JobLog, type JobLogs, type LogType, type StoredFragment } from "./job_log.ts";
import type { StoredFile } from "./upload.ts";

/** A job as the server keeps it. */
export interface StoredJob {
  readonly jobId: string;
  /** As submitted, without its id. */
  readonly data: Record<string, unknown>;
  readonly queue: string;
  /** Larger goes first. */
  readonly priority: number;
  /** Milliseconds since 1970. */
  readonly createdAt: number;
  readonly startedAt?: number;
  /** `job_state`, `status`, `device_info`, `agent_id`, and a legacy agent's flat keys. */
  readonly result: Record<string, unknown>;
}

/** States in which a job is over. */
const OVER: readonly unknown[] = ["cancelled", "complete", "completed"];

const ATTACHED_DATA = /_data$/;

/** The jobs, with their logs and files. */
export class SandboxJobs {
  #clock: Clock;
  #jobs = new Map<string, StoredJob>();
  /** Logs and files are taken for any id, known or not: the real server does so. */
  #logs = new Map<string, JobLogs>();
  #unread = new Map<string, string[]>();
  #attachments = new Map<string, StoredFile>();
  #artifacts = new Map<string, StoredFile>();
  #events = new Map<string, readonly JobEvent[]>();
  /** Jobs that were known once, of which nothing is taken any more. */
  readonly #forgotten = new Set<string>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Puts a job at the end of its queue. One with the id of an earlier job takes its place. */
  add(submission: Record<string, unknown>): StoredJob {
    const { job_id, ...data } = submission;
    const jobId = typeof job_id === "string" && job_id !== "" ? job_id : crypto.randomUUID();
    if (hasAttachments(data)) data.attachments_status = "waiting";
    const job: StoredJob = {
      jobId,
      data,
      queue: String(data.job_queue ?? ""),
      priority: Number(data.job_priority ?? 0),
      createdAt: this.#clock.now(),
      result: { job_state: "waiting" },
    };
    this.#forgotten.delete(jobId);
    this.#jobs.delete(jobId);
    this.#jobs.set(jobId, job);
    return job;
  }

  get(jobId: string): StoredJob | undefined {
    return this.#jobs.get(jobId);
  }

  all(): StoredJob[] {
    return [...this.#jobs.values()];
  }

  /** The jobs that wait in a queue, the next one first. */
  waiting(queue: string): StoredJob[] {
    return this.all()
      .filter((job) => job.queue === queue && job.result.job_state === "waiting")
      .sort((a, b) => b.priority - a.priority);
  }

  /** Takes the next job that this agent may run, and marks it as running. */
  take(queues: readonly string[], agentId: string | undefined): StoredJob | undefined {
    let next: StoredJob | undefined;
    for (const job of this.#jobs.values()) {
      if (job.result.job_state !== "waiting" || !queues.includes(job.queue)) continue;
      if (next !== undefined && next.priority >= job.priority) continue;
      const attachments = job.data.attachments_status;
      if (attachments !== undefined && attachments !== "complete") continue;
      const excluded = job.data.exclude_agents;
      if (Array.isArray(excluded) && excluded.includes(agentId)) continue;
      next = job;
    }
    if (next === undefined) return undefined;
    const result = { ...next.result, job_state: "running", agent_id: agentId };
    const taken = { ...next, startedAt: this.#clock.now(), result };
    this.#jobs.set(taken.jobId, taken);
    return taken;
  }

  /** Whether there was anything to cancel. */
  cancel(jobId: string): boolean {
    const job = this.#jobs.get(jobId);
    if (job === undefined || isOver(job)) return false;
    this.merge(jobId, { job_state: "cancelled" });
    return true;
  }

  /** Drops everything that is known of a job. */
  forget(jobId: string): void {
    this.#forgotten.add(jobId);
    this.#jobs.delete(jobId);
    this.#logs.delete(jobId);
    this.#attachments.delete(jobId);
    this.#artifacts.delete(jobId);
    this.#events.delete(jobId);
  }

  isForgotten(jobId: string): boolean {
    return this.#forgotten.has(jobId);
  }

  /** Puts these keys over those of the same name. A job that is not known stays unknown. */
  merge(jobId: string, update: Record<string, unknown>): void {
    const job = this.#jobs.get(jobId);
    if (job === undefined) return;
    this.#jobs.set(jobId, { ...job, result: { ...job.result, ...update } });
  }

  append(jobId: string, type: LogType, fragment: StoredFragment): void {
    let logs = this.#logs.get(jobId);
    if (logs === undefined) this.#logs.set(jobId, logs = {});
    (logs[type] ??= new JobLog()).append(fragment);
  }

  logs(jobId: string): JobLogs {
    return this.#logs.get(jobId) ?? {};
  }

  /** Legacy: keeps a piece of text for the log, and until a reader fetches it. */
  appendUnread(jobId: string, type: LogType, text: string): void {
    const at = this.#clock.now();
    this.append(jobId, type, {
      fragment_number: this.logs(jobId)[type]?.arrivals.length ?? 0,
      timestamp: new Date(at).toISOString(),
      log_data: text,
      at,
    });
    const key = `${jobId} ${type}`;
    const unread = this.#unread.get(key);
    if (unread === undefined) this.#unread.set(key, [text]);
    else unread.push(text);
  }

  /** Legacy: what nobody has fetched yet; it is gone afterwards. */
  drain(jobId: string, type: LogType): string[] {
    const key = `${jobId} ${type}`;
    const unread = this.#unread.get(key) ?? [];
    this.#unread.delete(key);
    return unread;
  }

  attach(jobId: string, file: StoredFile): void {
    this.#attachments.set(jobId, file);
    const job = this.#jobs.get(jobId);
    if (job === undefined) return;
    this.#jobs.set(jobId, { ...job, data: { ...job.data, attachments_status: "complete" } });
  }

  attachments(jobId: string): StoredFile | undefined {
    return this.#attachments.get(jobId);
  }

  keepArtifact(jobId: string, file: StoredFile): void {
    this.#artifacts.set(jobId, file);
  }

  artifact(jobId: string): StoredFile | undefined {
    return this.#artifacts.get(jobId);
  }

  keepEvents(jobId: string, events: readonly JobEvent[]): void {
    this.#events.set(jobId, events);
  }

  events(jobId: string): readonly JobEvent[] {
    return this.#events.get(jobId) ?? [];
  }
}

/** Whether a job has come to its end. */
export function isOver(job: StoredJob): boolean {
  return OVER.includes(job.result.job_state);
}

function hasAttachments(data: Record<string, unknown>): boolean {
  return Object.entries(data).some(([key, value]) =>
    ATTACHED_DATA.test(key) && typeof value === "object" && value !== null &&
    "attachments" in value
  );
}
