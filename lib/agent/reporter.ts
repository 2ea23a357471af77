/**
 * Keeps the agent's record on the server true and fresh. Whoever reports never waits: what is to be
 * shown is noted, and posted as soon as the server takes it; only the latest counts.
 */
import { Said } from "../once.ts";
import { within } from "../wait.ts";
import { isSaidElsewhere } from "../server/connectivity.ts";
import { type Answer, isFinal } from "../server/api.ts";
import { Backoff } from "../backoff.ts";
import type { AgentRecord, AgentUpdate } from "../server/schema.ts";
import type { AgentContext } from "./context.ts";
import {
  type DesiredState,
  isForgotten,
  saysMode,
  type ShownState,
  stateIn,
  updateFor,
} from "./desired_state.ts";
import type { DesiredMode } from "./state_file.ts";

/** The record's `updated_at` must move once a minute; this leaves time for one try that fails. */
const HEARTBEAT_MS = 50_000;
/** The record goes stale behind a server that asks for more patience than that. */
const LONGEST_PATIENCE_MS = 60_000;
/** The server forgets queues and images after seven days. */
const ADVERTISE_MS = 24 * 60 * 60 * 1000;

/** This is left for a state to get to the server when the agent waits for that, above all at its end. */
export const LAST_STATE_MS = 5_000;

/** The server keeps as many. */
const MOST_LOG_LINES = 100;

/** What does not change while the agent runs. */
const SIGNS_OF_LIFE = ["location", "provision_type", "queues"] as const;

/** What a reporter needs. */
export interface ReporterOptions extends AgentContext {
  desired: DesiredState;
  /** The agent's own log lines since the last call. */
  recentLog(): string[];
}

/** The agent's record on the server, as it should be. */
export class Reporter {
  readonly #options: ReporterOptions;
  /** What the server should show. */
  readonly #wanted: AgentUpdate;
  /** Parts of it that the server has not taken yet. */
  readonly #dirty = new Set<keyof AgentUpdate>();
  /** Lines of the agent's own log that the server is not known to have. */
  #log: string[] = [];
  #advertiseAt = -Infinity;
  #inJob = false;
  /** Of the job that runs, or that was the last to run. */
  #isJobCancelled: () => boolean = () => false;
  /** When the poll loop last looked at the record. */
  #seenAt = -Infinity;
  #postedAt = -Infinity;
  #registeredAt = -Infinity;
  #isPosting = false;
  #wake = Promise.withResolvers<void>();
  readonly #said = new Said();
  /** The last state that the server has taken. */
  #lastState: string | undefined;
  /** Parts of the record that the server has refused when they were last posted. */
  readonly #refused = new Set<string>();

  constructor(options: ReporterOptions) {
    this.#options = options;
    const { config } = options;
    this.#wanted = {
      state: "waiting",
      comment: "",
      job_id: "",
      queues: config.job_queues,
      location: config.location,
      provision_type: config.provision_type,
      ...(config.identifier !== undefined && { identifier: config.identifier }),
    };
  }

  /** The state and the comment that the server should show. */
  get shown(): ShownState {
    return { state: this.#wanted.state ?? "", comment: this.#wanted.comment ?? "" };
  }

  /** Everything must be posted again: at start, and when the server has forgotten the agent. */
  register(): void {
    this.#markAll();
    // A state that nobody has set yet is one, too: an agent that waits would seem to be starting.
    this.#options.emit({ type: "mode", ...this.shown });
    this.#wakeUp();
  }

  #markAll(): void {
    // `#wanted` is built from exactly these keys.
    for (const key of Object.keys(this.#wanted) as (keyof AgentUpdate)[]) this.#dirty.add(key);
    this.#advertiseAt = -Infinity;
    this.#registeredAt = this.#options.clock.monotonic();
  }

  /**
   * What the poll loop has read. A state that was lost on its way, or that nobody asked for, is put
   * right; a server that has forgotten the agent is told everything.
   */
  see(record: AgentRecord | null): void {
    this.#seenAt = this.#options.clock.monotonic();
    if (isForgotten(record)) {
      // At start it is about to be told anyway.
      const isTelling = this.#dirty.size > 0 || this.#isPosting;
      if (!isTelling && this.#mayRegister(record)) this.register();
      return;
    }
    const { state, comment } = this.shown;
    if (stateIn(record).state !== state) this.setState(state, comment);
  }

  /** The server should show this state, whatever it shows now. */
  setState(state: string, comment: string): void {
    this.#wanted.state = state;
    this.#wanted.comment = comment;
    this.#options.emit({ type: "mode", state, comment });
    this.#dirty.add("state").add("comment");
    this.#wakeUp();
  }

  /** The server should show this state; it is not told again of what it should show already. */
  show(state: string, comment: string): void {
    const { shown } = this;
    if (shown.state !== state || shown.comment !== comment) this.setState(state, comment);
  }

  /** The state of an agent that runs no job. */
  showIdle(comment = ""): void {
    const { offline } = this.#options.desired;
    if (offline !== undefined) this.show(offline.state, offline.comment);
    else this.show("waiting", comment);
  }

  /** The agent restarts: clients take `restart` for a moment's pause, and would send it jobs. */
  showRestart(comment: string): void {
    this.setState("offline", comment);
    this.#options.emit({ type: "mode", state: "restart", comment });
  }

  /**
   * A job begins, or with `""` has ended.
   *
   * @param isCancelled asked at each post: the server itself clears the id of a job that it has cancelled.
   */
  setJob(jobId: string, isCancelled?: () => boolean): void {
    this.#wanted.job_id = jobId;
    if (isCancelled !== undefined) this.#isJobCancelled = isCancelled;
    this.#inJob = jobId !== "";
    this.#dirty.add("job_id");
    this.#wakeUp();
  }

  /** While a job runs, phases are shown; with what is asked of the agent when it has ended. */
  showPhase(phase: string): void {
    const { desired } = this.#options;
    // Where there is a mode, the server shows it next to the phase.
    const pending = desired.hasMode
      ? ""
      : desired.offline !== undefined
      ? `Going ${desired.offline.state} after this job: ${desired.offline.comment}`
      : desired.restart !== undefined
      ? `Restart pending: ${desired.restart.comment}`
      : "";
    this.setState(phase, pending);
  }

  #wakeUp(): void {
    this.#wake.resolve();
  }

  /** Resolves when nothing is left to be posted, or after `ms`. */
  async flush(ms: number, forceStop: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const deadline = clock.monotonic() + ms;
    const isBusy = () => this.#dirty.size > 0 || this.#isPosting;
    while (isBusy() && clock.monotonic() < deadline && !forceStop.aborted) {
      this.#wakeUp();
      await clock.sleep(20, forceStop).catch(() => {});
    }
  }

  /** Posts what there is, and a sign of life now and then, until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, connectivity, emit } = this.#options;
    const backoff = new Backoff({ longestRetryAfterMs: LONGEST_PATIENCE_MS });
    try {
      while (true) {
        signal.throwIfAborted();
        this.#wake = Promise.withResolvers<void>();
        this.#isPosting = true;
        const answer = await this.#post(signal).finally(() => this.#isPosting = false);
        if (!answer.ok) {
          emit({ type: "retried" });
          await connectivity.pause(backoff.next(answer.retryAfterMs), signal);
          continue;
        }
        backoff.reset();
        await this.#advertise(signal);
        if (this.#dirty.size > 0) continue;
        await within(this.#wake.promise, { clock, ms: this.#untilHeartbeat, signal });
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** Posts what the server has not taken yet, or just that the agent is alive. */
  async #post(signal: AbortSignal): Promise<Answer<void>> {
    const { server, desired } = this.#options;
    let stateUpdate: AgentUpdate = {};
    let shown: ShownState | undefined;
    const isOfCancelled = this.#dirty.has("job_id") && this.#isJobCancelled();
    if (this.#dirty.has("state") || this.#isUnseen || isOfCancelled) {
      // An administrator's state may be in the same field and would be overwritten unread.
      const { moment } = desired;
      const record = await server.getAgent(signal);
      if (!record.ok) return this.#failed("agent's record", record);
      desired.learn(record.value, moment);
      if (isForgotten(record.value) && this.#mayRegister(record.value)) this.#markAll();
      this.#respect(desired.offline);
      if (this.#isJobCancelled()) this.#leaveOutJob(record.value);
      if (this.#dirty.has("state")) {
        if (saysMode(this.shown.state, desired.hasMode)) shown = this.shown;
        stateUpdate = updateFor(this.shown, {
          record: record.value,
          hasMode: desired.hasMode,
          lastState: this.#lastState,
        });
      }
    }
    const keys = [...this.#dirty];
    this.#dirty.clear();
    const others = keys.filter((key) => key !== "state" && key !== "comment");
    const update: AgentUpdate = {
      ...Object.fromEntries(others.map((key) => [key, this.#wanted[key]])),
      ...stateUpdate,
    };
    this.#log = [...this.#log, ...this.#options.recentLog()].slice(-MOST_LOG_LINES);
    const log = this.#log;
    if (log.length > 0) update.log = log;
    if (Object.keys(update).length === 0) {
      if (this.#untilHeartbeat > 0) return { ok: true, value: undefined };
      // A post needs some content to count as a sign of life: some that the server takes.
      const key = SIGNS_OF_LIFE.find((key) => !this.#refused.has(key)) ?? SIGNS_OF_LIFE[0];
      Object.assign(update, { [key]: this.#wanted[key] });
    }
    // Also where the server shows it already: from now on it is the agent's own.
    if (shown !== undefined) desired.aboutToPost(shown);
    const answer = await server.postAgent(update, signal);
    if (answer.ok) {
      this.#noteTaken(update, shown);
      return answer;
    }
    if (answer.kind === "refused") {
      return await this.#postParts(update, { refusal: answer, shown, signal });
    }
    for (const key of keys) this.#dirty.add(key);
    return this.#failed("agent's record", answer);
  }

  /**
   * Posts each part of what the server has refused as a whole: a field that it does not know costs nothing but itself.
   * A part that is refused, too, will never be taken, and is not worth the agent's life.
   */
  async #postParts(
    update: AgentUpdate,
    { refusal, shown, signal }: {
      refusal: Answer<void> & { ok: false };
      shown: ShownState | undefined;
      signal: AbortSignal;
    },
  ): Promise<Answer<void>> {
    const parts = partsOf(update);
    for (const [index, part] of parts.entries()) {
      const answer = parts.length === 1 ? refusal : await this.#options.server.postAgent(
        part.update,
        signal,
      );
      if (answer.ok) {
        this.#noteTaken(part.update, part.name === "state" ? shown : undefined);
      } else if (answer.kind === "refused") {
        if (part.name === "log") this.#log = [];
        this.#refused.add(part.name);
        this.#failed(`agent's ${part.name}`, answer);
      } else {
        for (const { keys } of parts.slice(index)) {
          for (const key of keys) this.#dirty.add(key);
        }
        return this.#failed("agent's record", answer);
      }
    }
    // Also where it has refused all of it: to post that again at once would not help.
    this.#postedAt = this.#options.clock.monotonic();
    return { ok: true, value: undefined };
  }

  /** The server has this now. */
  #noteTaken(update: AgentUpdate, shown: ShownState | undefined): void {
    this.#postedAt = this.#options.clock.monotonic();
    this.#said.forget("agent's record");
    // Lines that it is not known to have are posted again: rather twice than never, they are for people.
    if (update.log !== undefined) this.#log = [];
    if (update.state !== undefined) this.#lastState = update.state;
    for (const { name } of partsOf(update)) {
      this.#refused.delete(name);
      this.#said.forget(`agent's ${name}`);
    }
    if (shown !== undefined) this.#options.desired.posted(shown);
  }

  /** After a cancellation no id is posted but to clear one that an older server still shows. */
  #leaveOutJob(record: AgentRecord | null): void {
    const isToBeCleared = this.#wanted.job_id === "" && (record?.job_id ?? "") !== "";
    if (!isToBeCleared) this.#dirty.delete("job_id");
  }

  /** Milliseconds until the next sign of life is due. */
  get #untilHeartbeat(): number {
    return Math.max(0, this.#postedAt + HEARTBEAT_MS - this.#options.clock.monotonic());
  }

  /** A server whose records never show queues is not told everything each time. */
  #mayRegister(record: AgentRecord | null): boolean {
    return record === null ||
      this.#options.clock.monotonic() - this.#registeredAt >= HEARTBEAT_MS;
  }

  /** While a job runs the poll loop does not look; then nobody else would see that all is forgotten. */
  get #isUnseen(): boolean {
    return this.#options.clock.monotonic() - this.#seenAt >= HEARTBEAT_MS;
  }

  /** An agent that has no job shows what it was told to be, also when it learns that only now. */
  #respect(desired: DesiredMode | undefined): void {
    if (this.#inJob || desired === undefined) return;
    const { state, comment } = desired;
    if (this.#wanted.state === state && this.#wanted.comment === comment) return;
    this.#wanted.state = state;
    this.#wanted.comment = comment;
    // What was read may be the end of a job, which still shows the last phase.
    this.#dirty.add("state").add("comment");
    this.#options.emit({ type: "mode", state, comment });
  }

  async #advertise(signal: AbortSignal): Promise<void> {
    const { clock, config, server } = this.#options;
    if (clock.monotonic() < this.#advertiseAt) return;
    const { advertised_queues: queues, advertised_images: images } = config;
    const isThrough = [
      queues === undefined ||
      this.#advertised("advertised queues", await server.postQueues(queues, signal)),
      images === undefined ||
      this.#advertised("advertised images", await server.postImages(images, signal)),
    ];
    // What the server does not take just now is posted again with the next sign of life.
    if (!isThrough.includes(false)) this.#advertiseAt = clock.monotonic() + ADVERTISE_MS;
  }

  /** Returns whether it makes no sense to try it again soon. */
  #advertised(what: string, answer: Answer<void>): boolean {
    if (answer.ok) {
      this.#said.forget(what);
      return true;
    }
    return isFinal(this.#failed(what, answer));
  }

  /** Says once, not at each try, what the server does not take. */
  #failed<T extends Answer<unknown> & { ok: false }>(what: string, failure: T): T {
    if (isSaidElsewhere(failure)) return failure;
    if (this.#said.isNew(what, failure.message)) {
      this.#options.log.error(
        `The server does not take the ${what}: ${failure.message}. ` +
          "'testflinger-agent doctor' looks for the cause",
      );
    }
    return failure;
  }
}

/** A part of the record that can be posted by itself. */
interface RecordPart {
  name: string;
  update: AgentUpdate;
  /** What is to be posted again where it does not arrive. */
  keys: (keyof AgentUpdate)[];
}

/** The state, which goes with its comment and its mode, then everything else field by field. */
function partsOf({ mode, state, comment, ...others }: AgentUpdate): RecordPart[] {
  const ofState = {
    ...mode !== undefined && { mode },
    ...state !== undefined && { state },
    ...comment !== undefined && { comment },
  };
  const parts: RecordPart[] = Object.entries(others).map(([key, value]) => ({
    name: key,
    update: { [key]: value },
    // Lines of the log are kept elsewhere. The others are keys of an update.
    keys: key === "log" ? [] : [key as keyof AgentUpdate],
  }));
  return Object.keys(ofState).length === 0
    ? parts
    : [{ name: "state", update: ofState, keys: ["state", "comment"] }, ...parts];
}
