/**
 * The life of an agent: start, rounds, stop. Each round asks what is wanted of it, then for a job,
 * and runs that job to its end.
 */
import { join } from "node:path";
import type { Clock } from "../clock.ts";
import type { AgentConfig } from "../config/agent_config.ts";
import { adoptLeftovers } from "../job/adopt.ts";
import { artifactUpload } from "../job/artifact_upload.ts";
import { Deliveries } from "../job/deliveries.ts";
import type { EndReason } from "../job/end_reason.ts";
import { removeFolder } from "../job/folder.ts";
import { Job } from "../job/job.ts";
import type { JobContext } from "../job/job_context.ts";
import { JobRun } from "../job/job_run.ts";
import { recoverJobs } from "../job/recovery.ts";
import { JobStore } from "../job/store.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { combineObservers, noObserver, type Observer } from "../observe/observer.ts";
import type { Contact } from "../outbox/contact.ts";
import type { Answer, Failure, ServerApi } from "../server/api.ts";
import { Backoff } from "../server/backoff.ts";
import type { AgentRecord } from "../server/schema.ts";
import { warnOfOpenFolders } from "./folders.ts";
import { lackOfSpace } from "./free_space.ts";
import { JobSecrets } from "./job_secrets.ts";
import { takeLock } from "./lock.ts";
import { Markers } from "./markers.ts";
import { Memory } from "./memory.ts";
import { Reporter } from "./reporter.ts";
import type { Signals } from "./signals.ts";
import { STOPPED_COMMENT, Wishes } from "./wishes.ts";

/** When an agent is stopped, this is left for what is on its way to the server. */
const DRAIN_MS = 10_000;
/** This for the answer to a question for a job, which may hold one: a slow server takes as long. */
const LAST_ANSWER_MS = 30_000;
/** And this for the last state. */
const LAST_STATE_MS = 5_000;

/** What an agent is made of. */
export interface AgentOptions {
  config: AgentConfig;
  /** From `prepareFolders()`. */
  folder: string;
  server: ServerApi;
  contact: Contact;
  clock: Clock;
  log: Log;
  observer: Observer;
  signals: Signals;
  /** The agent's own log lines since the last call, for its record on the server. */
  recentLog(): string[];
  /** Is given what masks secrets in the agent's own log. */
  setRedactor(redact: (text: string) => string): void;
  /** Whether somebody reads the `release` label of the metrics. */
  wantsRelease: boolean;
  /** Called when the agent has started, and then at each turn of its loop. */
  onTurn?(): void;
  /** Where markers and locks are looked for. @default "/tmp" */
  sharedFolder?: string;
}

/** Why an agent ended: how its process should exit. */
export type AgentEnd =
  /** It was told to stop: exit status 0. */
  | { ended: "stopped" }
  /** It is to be started again: exit status 1. */
  | { ended: "restart" }
  /** It could not start: exit status 1, with `message` for the operator. */
  | { ended: "failed"; message: string };

/** Runs an agent until it is told to stop or to restart. */
export async function runAgent(options: AgentOptions): Promise<AgentEnd> {
  const { config, folder, log, sharedFolder } = options;
  const lock = takeLock({
    agentId: config.agent_id,
    folder,
    log,
    ...(sharedFolder !== undefined && { sharedFolder }),
  });
  if (!lock.held) {
    const message = `Another agent '${config.agent_id}' runs on this host: ${lock.owner} holds ` +
      `${lock.path}. Stop it first, or give this one another agent_id.`;
    return { ended: "failed", message };
  }
  try {
    warnOfOpenFolders(config, log);
    return await new Agent(options, folder).run();
  } finally {
    lock.release();
  }
}

class Agent {
  readonly #options: AgentOptions;
  readonly #stop = new AbortController();
  readonly #hasten = new AbortController();
  readonly #store: JobStore;
  readonly #deliveries: Deliveries;
  readonly #wishes: Wishes;
  readonly #markers: Markers;
  readonly #reporter: Reporter;
  readonly #observer: Observer;
  /** What was last complained of, so that it is said once and not at each try. */
  readonly #complaints = new Map<Question, string>();
  readonly #secrets = new JobSecrets((spool) => this.#deliveries.of(spool.jobId).includes(spool));
  #wake = Promise.withResolvers<void>();
  #noSpace = false;

  constructor(options: AgentOptions, folder: string) {
    this.#options = options;
    const { config, server, contact, clock, log, sharedFolder } = options;
    this.#store = new JobStore(folder, log);
    this.#wishes = new Wishes(new Memory(folder, log), log);
    this.#markers = new Markers({
      agentId: config.agent_id,
      log,
      ...(sharedFolder !== undefined && { folder: sharedFolder }),
    });
    this.#reporter = new Reporter({ ...options, wishes: this.#wishes });
    this.#observer = combineObservers([options.observer, {
      ...noObserver,
      phaseStarted: (phase) => this.#reporter.showPhase(phase),
    }], log);
    this.#deliveries = new Deliveries({
      store: this.#store,
      courier: {
        server,
        contact,
        clock,
        log,
        agentId: config.agent_id,
        outputBytes: config.output_bytes,
        openArtifacts: (spool, folder) =>
          artifactUpload(spool, folder, {
            redact: (text) => this.#secrets.redact(text),
            observer: options.observer,
          }),
        onRetry: () => this.#observer.retried(),
      },
      observer: options.observer,
      clock,
      log,
      removeFolder: (path) => this.#removeFolder(path),
      maxSpool: config.max_spool,
    });
  }

  /** From start to stop. */
  async run(): Promise<AgentEnd> {
    const { log, signals, config, clock } = this.#options;
    signals.listen({
      restart: () => {
        this.#wishes.requestRestart("Restart signal (SIGUSR1)", "SIGUSR1 asks for a restart");
        this.#wakeUp();
      },
      stop: (signal, again) => this.#onStop(signal, again),
    });
    log.info(`Agent ${config.agent_id} starts`, { server: config.server_address });

    const reporting = new AbortController();
    let reporter: Promise<void> | undefined;
    let end: AgentEnd = { ended: "stopped" };
    try {
      // 1. The record on the server is kept fresh from now on, also while the next step takes long.
      this.#reporter.register();
      reporter = this.#reporter.run(reporting.signal);
      // 2. What an earlier process left is brought to its end, with or without a server.
      await adoptLeftovers(config.results_basedir, { store: this.#store, clock, log });
      await this.#recover();
      this.#showIdle();
      // 3. Rounds, until it is told to stop or to restart.
      if (await this.#rounds() === "restart") end = { ended: "restart" };
      // 4. The end: what is on its way, then the last state.
      await this.#sayGoodbye(end);
    } finally {
      reporting.abort();
      await reporter;
      await this.#deliveries.stop();
    }
    log.info(end.ended === "restart" ? "The agent ends, to be started again" : "The agent ends");
    return end;
  }

  #onStop(signal: string, again: boolean): void {
    this.#options.log.info(
      again
        ? `${signal} again: the agent ends at once`
        : `${signal}: the agent ends what it is doing and stops`,
    );
    const reason: EndReason = { kind: "stopped", at: this.#options.clock.monotonic() };
    this.#stop.abort(reason);
    if (again) this.#hasten.abort(reason);
    this.#wakeUp();
  }

  #wakeUp(): void {
    this.#wake.resolve();
  }

  async #recover(): Promise<void> {
    const ends = await recoverJobs(this.#store, this.#deliveries, this.#jobContext());
    for (const end of ends) if (end.recoveryFailed) this.#goOffline(end.jobId);
    await this.#deliveries.enforceCap();
  }

  #goOffline(jobId: string): void {
    this.#wishes.goOffline(
      `Set to offline by agent. Recovery failed during job '${jobId}' execution.`,
    );
  }

  /** The state of an agent that runs no job. */
  #showIdle(comment = ""): void {
    const { offline } = this.#wishes;
    if (offline !== undefined) this.#show(offline.state, offline.comment);
    else this.#show("waiting", comment);
  }

  #show(state: string, comment: string): void {
    const { shown } = this.#reporter;
    if (shown.state !== state || shown.comment !== comment) this.#reporter.setState(state, comment);
  }

  async #rounds(): Promise<"stopped" | "restart"> {
    const { contact, onTurn, config } = this.#options;
    const { signal } = this.#stop;
    const backoff = new Backoff();
    while (!signal.aborted) {
      this.#wake = Promise.withResolvers<void>();
      onTurn?.();
      const round = await this.#round();
      if (round.next === "restart") return "restart";
      if (round.next === "at once") {
        backoff.reset();
        continue;
      }
      if (round.next === "pause") {
        backoff.reset();
        await this.#pause(
          (ms, either) => this.#options.clock.sleep(ms, either),
          config.polling_interval * 1000,
        );
      } else {
        const ms = backoff.next(round.retryAfterMs);
        await this.#pause((wait, either) => contact.pause(wait, either), ms);
      }
    }
    return "stopped";
  }

  /** Waits, until something wakes the agent up. */
  async #pause(
    wait: (ms: number, signal: AbortSignal) => Promise<void>,
    ms: number,
  ): Promise<void> {
    const over = new AbortController();
    const waited = wait(ms, AbortSignal.any([this.#stop.signal, over.signal])).catch(() => {});
    await Promise.race([waited, this.#wake.promise]);
    over.abort();
    await waited;
  }

  /** One round; says what comes next. */
  async #round(): Promise<Round> {
    const { config } = this.#options;
    const { signal } = this.#stop;
    // What is asked on the host is heard even when the server is away.
    if (await this.#markers.wantsRestart()) {
      this.#wishes.requestRestart("Restart marker file", "A marker file asks for a restart");
    }
    const marker = await this.#markers.offlineComment();
    const record = await this.#readRecord();
    if (signal.aborted) return { next: "at once" };

    const offline = this.#wishes.offline ??
      (marker === undefined ? undefined : { state: "offline", comment: marker });
    if (offline !== undefined) {
      this.#show(offline.state, offline.comment);
      if (record.ok) this.#correct(record.value);
      return record.ok ? { next: "pause" } : later(record);
    }
    if (this.#wishes.restart !== undefined && await this.#markers.removeRestart()) {
      return { next: "restart" };
    }
    if (!record.ok) return later(record);

    const full = await lackOfSpace(
      [config.execution_basedir, config.results_basedir],
      config.min_free_space,
    );
    this.#noteSpace(full);
    this.#showIdle(full === undefined ? "" : `No job is taken: ${full}`);
    this.#correct(record.value);
    if (full !== undefined) return { next: "pause" };
    return await this.#askForJob(record.value?.restricted_to ?? {});
  }

  /** The agent's record on the server; a server that has forgotten the agent is told of it again. */
  async #readRecord(): Promise<Answer<AgentRecord | null>> {
    const { server } = this.#options;
    let { moment } = this.#wishes;
    let record = await server.getAgent(this.#stop.signal);
    if (record.ok && record.value === null) {
      this.#reporter.registerUnlessBusy();
      await this.#reporter.flush(LAST_STATE_MS, this.#stop.signal);
      moment = this.#wishes.moment;
      record = await server.getAgent(this.#stop.signal);
    }
    if (record.ok) {
      this.#forget("record");
      this.#wishes.learn(record.value, moment);
    } else {
      this.#complain("record", record);
    }
    return record;
  }

  /** A state that was lost on its way, or that nobody wished for, is put right. */
  #correct(record: { state?: string | null | undefined } | null): void {
    const { state, comment } = this.#reporter.shown;
    if (record !== null && record.state !== state) this.#reporter.setState(state, comment);
  }

  #noteSpace(full: string | undefined): void {
    const { log } = this.#options;
    if (full !== undefined && !this.#noSpace) {
      log.error(`No job is taken: ${full}. Make room; the agent goes on by itself then`);
    } else if (full === undefined && this.#noSpace) {
      log.info("There is room again: jobs are taken");
    }
    this.#noSpace = full !== undefined;
  }

  async #askForJob(restrictedTo: Record<string, string[] | null | undefined>): Promise<Round> {
    const { server, config, log } = this.#options;
    const restricted = Object.entries(restrictedTo)
      .filter(([, owners]) => (owners?.length ?? 0) > 0)
      .map(([queue]) => queue);
    this.#observer.polled();
    const queues = restricted.length > 0 ? restricted : config.job_queues;
    const offer = await this.#patiently((signal) => server.nextJob(queues, signal));
    if (!offer.ok) {
      if (offer.kind === "unreachable") {
        log.debug(`If the server handed out a job, the agent never saw it: ${offer.message}`);
      }
      this.#complain("job", offer);
      return later(offer);
    }
    this.#forget("job");
    switch (offer.value.kind) {
      case "none":
        return { next: "pause" };
      case "broken":
        log.error(
          `The server handed out job ${offer.value.jobId}, but it cannot be read; it is ended as failed: ` +
            offer.value.reason,
        );
        await this.#runJob({ job_id: offer.value.jobId, job_queue: "" }, offer.value.reason);
        return { next: "at once" };
      case "job":
        await this.#runJob(offer.value.job);
        return { next: "at once" };
    }
  }

  /**
   * An answer that is dropped may hold a job, which nobody would ever end: an agent that is stopped
   * waits a moment for it.
   */
  async #patiently<T>(call: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const over = new AbortController();
    const giveUp = () => {
      this.#options.clock.sleep(LAST_ANSWER_MS, over.signal).then(() => over.abort(), () => {});
    };
    this.#stop.signal.addEventListener("abort", giveUp, { signal: over.signal });
    try {
      return await call(AbortSignal.any([over.signal, this.#hasten.signal]));
    } finally {
      over.abort();
    }
  }

  /** Says once, not at each try, what the server does not do. */
  #complain(what: Question, failure: Failure): void {
    if (failure.kind === "aborted" || failure.kind === "unreachable") return;
    if (this.#complaints.get(what) === failure.message) return;
    this.#complaints.set(what, failure.message);
    this.#options.log.error(
      `No job can be asked for: ${failure.message}. It is tried again by itself; ` +
        "'testflinger-agent doctor' looks for the cause",
    );
  }

  #forget(what: Question): void {
    this.#complaints.delete(what);
  }

  async #runJob(received: Record<string, unknown>, broken?: string): Promise<void> {
    const { clock } = this.#options;
    const job = new Job(received);
    let spool;
    try {
      spool = await this.#store.accept(job, this.#deliveries.of(job.jobId), clock.now());
    } catch (error) {
      await this.#refuseWithoutDisk(job, error);
      return;
    }
    this.#reporter.setJob(job.jobId);
    const run = new JobRun(job, spool, this.#jobContext());
    this.#deliveries.startLive(spool, () => run.noteCancelled());
    const end = await run.run(broken);
    if (end.recoveryFailed) this.#goOffline(end.jobId);
    this.#reporter.setJob("");
    if (!this.#stop.signal.aborted) this.#showIdle();
    await this.#deliveries.enforceCap();
  }

  /** Without a record nothing can be promised: the job is ended at once, so that nobody waits for it. */
  async #refuseWithoutDisk(job: Job, error: unknown): Promise<void> {
    const { server, contact, log } = this.#options;
    const reason = messageOf(error);
    log.error(
      `Cannot keep a record of job ${job.jobId}, which is ended as failed: ${reason}. ` +
        `Mend ${this.#store.folder}; no other job is taken before.`,
    );
    const backoff = new Backoff();
    while (!this.#stop.signal.aborted) {
      const answer = await server.postResult(
        job.jobId,
        { status: { setup: 1 }, job_state: "complete" },
        this.#stop.signal,
      );
      if (answer.ok || answer.kind === "refused" || answer.kind === "forbidden") return;
      await contact.pause(backoff.next(answer.retryAfterMs), this.#stop.signal).catch(() => {});
    }
  }

  #jobContext(): JobContext {
    const { config, server, contact, clock, log, wantsRelease, setRedactor } = this.#options;
    return {
      config,
      server,
      contact,
      clock,
      log,
      observer: this.#observer,
      signals: { stop: this.#stop.signal, hasten: this.#hasten.signal },
      wantsRelease,
      forgetReceived: (spool) => this.#store.forgetReceived(spool),
      keepSecret: (spool, secrets) => {
        this.#secrets.keep(spool, secrets);
        setRedactor((text) => this.#secrets.redact(text));
      },
    };
  }

  async #removeFolder(folder: string): Promise<void> {
    const { config, log } = this.#options;
    const trash = join(config.execution_basedir, `.trash-${encodeURIComponent(config.agent_id)}`);
    await removeFolder(folder, { trash, log });
  }

  /** What is on its way gets some time, then the server is told why nobody asks for jobs. */
  async #sayGoodbye(end: AgentEnd): Promise<void> {
    const { restart, offline } = this.#wishes;
    await this.#deliveries.drain(DRAIN_MS, this.#hasten.signal);
    if (end.ended === "restart") {
      this.#reporter.setState("restart", restart?.comment ?? "");
    } else if (offline === undefined) {
      // An administrator's offline stays as it is, comment included.
      this.#reporter.setState("offline", STOPPED_COMMENT);
    }
    await this.#reporter.flush(LAST_STATE_MS, this.#hasten.signal);
    // Not before: until then the server may show the request, which would be taken for a new one.
    if (end.ended === "restart") this.#wishes.restartCarriedOut();
  }
}

/** What an agent asks of the server in each round. */
type Question = "record" | "job";

/** What comes after a round. */
type Round =
  | { next: "at once" }
  | { next: "pause" }
  | { next: "restart" }
  | { next: "later"; retryAfterMs?: number };

function later(failure: Failure): Round {
  return failure.retryAfterMs === undefined
    ? { next: "later" }
    : { next: "later", retryAfterMs: failure.retryAfterMs };
}
