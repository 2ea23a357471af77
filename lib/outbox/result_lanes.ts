/**
 * Brings to the server what the journal of a job says apart from the logs: the state, the statuses, what
 * is known of the device, the outcome. What is overtaken before it has left is not posted; what can leave
 * together leaves in one post.
 */
import { cutAtStart } from "../bytes.ts";
import { PHASES } from "../phases.ts";
import { type Answer, type Generation, isFinal, type ServerApi } from "../server/api.ts";
import type { PhaseStatuses, ResultUpdate } from "../server/schema.ts";
import type { Delivery, NextStep } from "./delivery.ts";
import { LOG_NAMES, type Message } from "./entries.ts";
import { type PendingMessage, statusesOf } from "./job_state.ts";
import type { Outbox } from "./outbox.ts";

/** The lanes of states and of facts: a state does not wait for the log of the phase before it. */
export class ResultLanes {
  readonly #delivery: Delivery;
  /** Messages that are being posted now. */
  readonly #inFlight = new Set<number>();
  /** States from this number on have not waited: the lane had nothing to do when they were made. */
  #freshFrom = Infinity;
  /** It is unknown whether messages before this number were posted by an earlier delivery. */
  readonly #doubtfulTo: number;
  /** A state before which the server is being asked whether the job is cancelled. */
  #askedFor: PendingMessage | undefined;

  constructor(delivery: Delivery) {
    this.#delivery = delivery;
    this.#doubtfulTo = delivery.state.nextMessage;
  }

  /**
   * Whether nothing but the outcome is left to be posted, apart from what it says itself: it leaves
   * as soon as all that has been posted is answered.
   */
  get isOutcomeNext(): boolean {
    const { outbox, state: { logs, pending } } = this.#delivery;
    return pending.some(({ message }) => message.kind === "outcome") &&
      pending.every(({ message }) => WITHOUT_OUTCOME.has(message.kind)) &&
      LOG_NAMES.every((log) =>
        (logs[log].inFlight?.to ?? logs[log].settled) === outbox.length(log)
      );
  }

  /** Whether something that must arrive before the outcome is on its way. */
  get isBusy(): boolean {
    return this.#inFlight.size > 0 || this.#delivery.outbox.undeliveredBytes > 0;
  }

  /** The lane of states; see {@linkcode Delivery.runLane}. */
  nextState(): NextStep {
    const state = this.#latestState();
    if (state !== undefined) {
      return this.#waitsForFacts(state) ? Infinity : () => this.#deliverState(state);
    }
    this.#freshFrom = this.#delivery.state.nextMessage;
    return this.#delivery.isOver ? "over" : Infinity;
  }

  /** The lane of statuses and of what is known of the device. */
  nextFacts(): NextStep {
    const facts = this.#dueFacts();
    if (facts.length > 0) return () => this.#post(facts);
    return this.#delivery.isOver ? "over" : Infinity;
  }

  /** When a client reads that a device is allocated, its address is there. */
  #waitsForFacts({ message }: PendingMessage): boolean {
    return isAllocated(message) &&
      this.#delivery.state.pending.some((each) =>
        each.message.kind === "device_info" && this.#inFlight.has(each.n)
      );
  }

  #latestState(): PendingMessage | undefined {
    if (this.isOutcomeNext) return undefined;
    return this.#delivery.state.pending.findLast(({ message }) => message.kind === "state");
  }

  /** When a client reads a status, the log of its phase is there. */
  #dueFacts(): PendingMessage[] {
    if (this.isOutcomeNext) return [];
    const { pending, logs } = this.#delivery.state;
    return pending.filter(({ n, message, after }) => {
      if (this.#inFlight.has(n)) return false;
      if (message.kind === "device_info") return !isAllocated(this.#askedFor?.message);
      return message.kind === "status" &&
        logs.output.settled >= after.output && logs.serial.settled >= after.serial;
    });
  }

  /**
   * A posted state overwrites `cancelled`: one that had to wait may have been overtaken by a
   * cancellation, so the server is asked first; and so may one before which the job itself did not ask, or
   * got no answer in time.
   */
  async #deliverState(state: PendingMessage): Promise<void> {
    const { connectivity, isLeftover, server } = this.#delivery.options;
    const { message } = state;
    const isAsked = message.kind === "state" && message.isAsked === true;
    const hasWaited = state.n < this.#freshFrom || isLeftover === true || !connectivity.isUp;
    this.#freshFrom = Infinity;
    const mayPost = isAsked && !hasWaited || await this.#mayPost(state);
    // On a server of the older generation a status would be refused, and the state with it.
    const facts = this.#dueFacts().filter(({ message }) =>
      message.kind === "device_info" || server.generation === "current"
    );
    const messages = [...mayPost ? this.#statesUpTo(state) : [], ...facts];
    if (messages.length > 0) await this.#post(messages);
  }

  /**
   * Asks whether the job is cancelled; false as well when the state has been overtaken meanwhile, or has arrived
   * already: an earlier process may have posted it.
   */
  async #mayPost(state: PendingMessage): Promise<boolean> {
    // Meanwhile the address of a device does not leave: it is to be there with the state, not behind it.
    this.#askedFor = state;
    try {
      const there = await this.#delivery.persist<Known>(async () =>
        this.#isLatest(state) ? await this.#learnWhatIsThere() : { ok: true, value: {} }
      );
      if (there.ok && this.#isLatest(state) && hasArrived(state.message, there.value)) {
        for (const { n } of this.#statesUpTo(state)) {
          this.#delivery.outbox.append({
            t: "settled",
            n,
            how: n === state.n ? "delivered" : "overtaken",
          });
        }
      }
    } finally {
      this.#askedFor = undefined;
    }
    return this.#isLatest(state);
  }

  /** Asks what the server has of the job; that it is cancelled becomes known to all. */
  async #learnWhatIsThere(): Promise<Answer<Known>> {
    const { outbox, options: { server, onCancelled }, signal, state } = this.#delivery;
    const now = await server.getStatuses(outbox.jobId, signal);
    // What will never be answered tells nothing of what can be posted.
    if (!now.ok) return isFinal(now) ? { ok: true, value: {} } : now;
    if (now.value === "cancelled") {
      if (!state.cancelled) outbox.append({ t: "cancelled" });
      onCancelled?.();
    }
    return { ok: true, value: { state: now.value, statuses: now.statuses } };
  }

  #isLatest({ n }: PendingMessage): boolean {
    return this.#latestState()?.n === n;
  }

  #statesUpTo({ n }: PendingMessage): PendingMessage[] {
    const { pending } = this.#delivery.state;
    return pending.filter((other) => other.message.kind === "state" && other.n <= n);
  }

  /** Posts messages together; those that the server refuses are posted one by one, to lose no other. */
  async #post(messages: readonly PendingMessage[]): Promise<void> {
    const { outbox } = this.#delivery;
    const latest = [...new Map(messages.map((each) => [each.message.kind, each])).values()];
    for (const { n } of messages) {
      if (latest.every((each) => each.n !== n)) {
        outbox.append({ t: "settled", n, how: "overtaken" });
      }
    }
    for (const { n } of latest) this.#inFlight.add(n);
    const isFirstTry = latest.every(({ n }) => n >= this.#doubtfulTo);
    const whole = await this.#persist(latest, { isFirstTry });
    for (const each of latest) {
      const answer = whole.ok || latest.length === 1
        ? whole
        : await this.#persist([each], { isFirstTry: false });
      this.#inFlight.delete(each.n);
      // Also where a cancellation has settled it already: it is this that wakes the other lanes.
      this.#delivery.acknowledge(each.n, each.message.kind, answer);
    }
  }

  async #persist(
    messages: readonly PendingMessage[],
    { isFirstTry }: { isFirstTry: boolean },
  ): Promise<Answer<void>> {
    const { outbox, options: { server }, signal } = this.#delivery;
    const isChange = messages.some(({ message }) => message.kind !== "device_info");
    let isRepeat = !isFirstTry;
    return await this.#delivery.persist(async () => {
      let posted = messages;
      if (isChange && isRepeat) {
        const there = await this.#learnWhatIsThere();
        if (!there.ok) return there;
        posted = messages.filter((each) =>
          !hasArrived(each.message, there.value) &&
          (each.message.kind !== "state" || this.#isLatest(each))
        );
      }
      isRepeat = true;
      const update = await this.#updateOf(posted);
      if (!update.ok) return update;
      if (Object.keys(update.value).length === 0) return DONE;
      return await server.postResult(outbox.jobId, update.value, signal);
    });
  }

  async #updateOf(messages: readonly PendingMessage[]): Promise<Answer<ResultUpdate>> {
    const { options: { server }, signal } = this.#delivery;
    const value: ResultUpdate = {};
    for (const { message } of messages) {
      if (message.kind === "state") value.job_state = message.state;
      if (message.kind === "device_info") value.device_info = message.deviceInfo;
      if (message.kind !== "status") continue;
      const generation = await assumeGeneration(server, signal);
      if (!generation.ok) return generation;
      // A legacy server takes statuses with the outcome only.
      if (generation.value === "current") value.status = message.status;
    }
    return { ok: true, value };
  }
}

/** What the server has of a job, as far as it is known. */
interface Known {
  state?: string | undefined;
  statuses?: PhaseStatuses;
}

/** Whether a state or statuses need not be posted: the server keeps a history of what is, and would say it twice. */
function hasArrived(message: Message, { state, statuses = {} }: Known): boolean {
  if (message.kind === "state") return message.state === state;
  if (message.kind !== "status") return false;
  return PHASES.every((phase) =>
    message.status[phase] === undefined || message.status[phase] === statuses[phase]
  );
}

function isAllocated(message: Message | undefined): boolean {
  return message?.kind === "state" && message.state === "allocated";
}

/**
 * What the outcome does not wait for: it says it itself, or nobody who waits for the job waits for it, as for the
 * provision log, which belongs to the agent.
 */
const WITHOUT_OUTCOME: ReadonlySet<Message["kind"]> = new Set(
  ["state", "status", "provision_log", "outcome"],
);

const DONE: Answer<void> = { ok: true, value: undefined };

/** What a server answers to a result that its store cannot hold. */
const PAYLOAD_TOO_LARGE = 413;
/** What a server answers to a field that its generation does not know. */
const UNPROCESSABLE = 422;

/** Whether the server itself has refused it with this status; a gateway's page says nothing. */
function isRefused(answer: Answer<void>, status: number): boolean {
  return !answer.ok && isFinal(answer) && answer.status === status;
}

/** What posting an outcome needs. */
interface OutcomePostOptions {
  server: ServerApi;
  /** How much of the end of each log the outcome carries on a legacy server, in bytes. */
  outputBytes: number;
  signal: AbortSignal;
}

/**
 * Makes the job complete, with its statuses: in the words of the server's generation, and in the
 * other's where it does not understand them. It may have been upgraded since.
 */
export async function postOutcome(
  outbox: Outbox,
  status: PhaseStatuses,
  { server, outputBytes, signal }: OutcomePostOptions,
): Promise<Answer<void>> {
  const generation = await assumeGeneration(server, signal);
  if (!generation.ok) return generation;
  const asCurrent = () =>
    server.postResult(outbox.jobId, { job_state: "complete", status }, signal);
  const asLegacy = () => postLegacyOutcome(outbox, { server, outputBytes, signal });
  const [first, second] = generation.value === "current"
    ? [asCurrent, asLegacy]
    : [asLegacy, asCurrent];
  const answer = await first();
  if (!isRefused(answer, UNPROCESSABLE)) return answer;
  const other = await second();
  return other.ok || !isFinal(other) ? other : answer;
}

/**
 * The server's generation; where it has trouble with its logs just now, so that it cannot be found
 * out, most servers'. One of the other answers 422.
 */
async function assumeGeneration(
  server: ServerApi,
  signal: AbortSignal,
): Promise<Answer<Generation>> {
  const found = await server.findGeneration(signal);
  return found.ok || found.kind !== "busy" ? found : { ok: true, value: "current" };
}

/** With less and less of the logs, until it fits into what the server can store. */
async function postLegacyOutcome(
  outbox: Outbox,
  { server, outputBytes, signal }: OutcomePostOptions,
): Promise<Answer<void>> {
  for (let bytes = outputBytes;; bytes = Math.floor(bytes / 2)) {
    const answer = await server.postResult(
      outbox.jobId,
      await legacyOutcome(outbox, bytes),
      signal,
    );
    if (!isRefused(answer, PAYLOAD_TOO_LARGE) || bytes === 0) return answer;
  }
}

/**
 * The outcome of the job in `outbox`, with at most the last `outputBytes` bytes of each phase's logs.
 */
async function legacyOutcome(outbox: Outbox, outputBytes: number): Promise<ResultUpdate> {
  const outcome: ResultUpdate = { job_state: "complete" };
  const statuses = statusesOf(outbox.state);
  for (const phase of PHASES) {
    const status = statuses[phase];
    if (status !== undefined) outcome[`${phase}_status`] = status;
  }
  for (const log of LOG_NAMES) {
    const { regions } = outbox.state.logs[log];
    for (const [index, { phase, from }] of regions.entries()) {
      const end = regions[index + 1]?.from ?? outbox.length(log);
      const start = Math.max(from, end - outputBytes);
      if (start >= end) continue;
      const bytes = await outbox.readLog(log, start, end);
      const text = new TextDecoder().decode(bytes.subarray(cutAtStart(bytes)));
      const key = `${phase}_${log}` as const;
      outcome[key] = `${outcome[key] ?? ""}${text}`;
    }
  }
  return outcome;
}
