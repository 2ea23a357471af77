/**
 * Brings what one job has for the server to the server: each thing until the server has answered 2xx
 * or has refused it for good, and never a piece of a log twice. What does not depend on one another
 * goes in parallel lanes; the outcome waits for all of them but the provision log and the events.
 */
import { Said } from "../once.ts";
import { messageOf } from "../message.ts";
import { type Answer, isFinal } from "../server/api.ts";
import type { PhaseStatuses } from "../server/schema.ts";
import { Delivery, type NextStep, type UploaderOptions } from "./delivery.ts";
import { LOG_NAMES, type Message } from "./entries.ts";
import { PHASES } from "../phases.ts";
import type { PendingMessage } from "./job_state.ts";
import { findWhatIsThere, LogLane } from "./log_lane.ts";
import { postOutcome, ResultLanes } from "./result_lanes.ts";
import type { Outbox } from "./outbox.ts";

/** How often artifacts that cannot be packed are tried, should the cause be a passing one. */
const PACKING_TRIES = 3;
/** A webhook that its server cannot reach is not tried for ever. */
const EVENT_TRIES = 5;

/**
 * Delivers one outbox, until the job has ended and the server has everything.
 *
 * @throws the signal's reason when it aborts; a later delivery goes on from there.
 */
export async function deliver(
  outbox: Outbox,
  options: UploaderOptions,
  signal: AbortSignal,
): Promise<void> {
  const stopped = new AbortController();
  const delivery = new Delivery(outbox, options, AbortSignal.any([signal, stopped.signal]));
  const uploader = new Uploader(delivery);
  const lanes = [
    ...uploader.logLanes().map((next) => delivery.runLane(next, { ofLogs: true })),
    ...uploader.lanes().map((next) => delivery.runLane(next)),
  ];
  try {
    await Promise.all(lanes);
  } finally {
    stopped.abort(signal.reason);
    await Promise.allSettled(lanes);
  }
}

/** The lanes of one outbox. */
class Uploader {
  readonly #delivery: Delivery;
  readonly #results: ResultLanes;
  /** It is unknown whether messages before this number were posted by an earlier delivery. */
  readonly #doubtfulTo: number;
  #whatIsThere: Promise<void> | undefined;
  readonly #said = new Said();

  constructor(delivery: Delivery) {
    this.#delivery = delivery;
    this.#results = new ResultLanes(delivery);
    this.#doubtfulTo = delivery.state.nextMessage;
  }

  logLanes(): (() => NextStep)[] {
    return LOG_NAMES.map((log) => {
      const whatIsThere = () => this.#whatIsThere ??= findWhatIsThere(this.#delivery);
      const lane = new LogLane(this.#delivery, log, whatIsThere);
      return () => lane.next();
    });
  }

  lanes(): (() => NextStep)[] {
    const results = this.#results;
    return [
      () => results.nextState(),
      () => results.nextFacts(),
      () => this.#nextOf("provision_log", (message) => this.#postProvisionLog(message)),
      () => this.#nextOf("artifacts", (message) => this.#postArtifacts(message)),
      () => this.#nextOutcome(),
      // A webhook that is slow delays no log and no outcome.
      () => this.#nextEvents(),
    ];
  }

  #first<K extends Message["kind"]>(kind: K) {
    type Found = PendingMessage & { message: Extract<Message, { kind: K }> };
    return this.#delivery.state.pending
      .find((pending): pending is Found => pending.message.kind === kind);
  }

  /** Messages of one kind, one after the other. */
  #nextOf<K extends Message["kind"]>(
    kind: K,
    post: (message: Extract<Message, { kind: K }>) => Promise<Answer<void>>,
  ): NextStep {
    const pending = this.#first(kind);
    if (pending === undefined) return this.#delivery.isOver ? "over" : Infinity;
    return async () => this.#delivery.acknowledge(pending.n, kind, await post(pending.message));
  }

  async #postProvisionLog(
    { exitCode, detail }: Extract<Message, { kind: "provision_log" }>,
  ): Promise<Answer<void>> {
    const { outbox, options: { server }, signal } = this.#delivery;
    const entry = { job_id: outbox.jobId, exit_code: exitCode, detail };
    return await this.#delivery.persist(() => server.postProvisionLog(entry, signal));
  }

  /** What cannot be packed will not be later either: after some tries the job is completed without it. */
  async #postArtifacts(
    { folder }: Extract<Message, { kind: "artifacts" }>,
  ): Promise<Answer<void>> {
    const { outbox, options: { openArtifacts, server }, signal } = this.#delivery;
    let tries = 0;
    return await this.#delivery.persist(async () => {
      tries++;
      try {
        using upload = openArtifacts(outbox, folder);
        return await server.postArtifact(outbox.jobId, upload, signal);
      } catch (error) {
        const kind = tries < PACKING_TRIES ? "busy" : "refused";
        const message = `cannot pack ${folder}/artifacts: ${messageOf(error)}`;
        return { ok: false, kind, message };
      }
    });
  }

  /** The last of all; what it says itself, or overtakes, is not posted before it. */
  #nextOutcome(): NextStep {
    const outcome = this.#first("outcome");
    if (outcome === undefined) return this.#delivery.isOver ? "over" : Infinity;
    if (!this.#results.isOutcomeNext || this.#results.isBusy) return Infinity;
    return async () => {
      for (const { n, message } of this.#delivery.state.pending) {
        if (message.kind !== "state" && message.kind !== "status") continue;
        this.#delivery.outbox.append({ t: "settled", n, how: "overtaken" });
      }
      this.#delivery.acknowledge(outcome.n, "outcome", await this.#deliverOutcome(outcome));
    };
  }

  /** The whole outcome; where the server will not have it, as much of it as it does take. */
  async #deliverOutcome(
    { n, message: { status } }: PendingMessage & { message: Extract<Message, { kind: "outcome" }> },
  ): Promise<Answer<void>> {
    const { outbox, options, signal } = this.#delivery;
    const { server } = options;
    let isRepeat = n < this.#doubtfulTo;
    const persist = (post: () => Promise<Answer<void>>) =>
      this.#delivery.persist(async (): Promise<Answer<void>> => {
        if (isRepeat) {
          const there = await server.getStatuses(outbox.jobId, signal);
          if (!there.ok && !isFinal(there)) return there;
          if (there.ok && isComplete(there, status)) return { ok: true, value: undefined };
        }
        isRepeat = true;
        return await post();
      });
    const whole = await persist(() => postOutcome(outbox, status, { ...options, signal }));
    if (whole.ok) return whole;
    this.#delivery.complain("its outcome in one piece (it will be posted in parts)", whole);
    isRepeat = false;
    for (const part of [{ status }, { job_state: "complete" }]) {
      const answer = await persist(() => server.postResult(outbox.jobId, part, signal));
      if ("job_state" in part) return answer;
    }
    return whole;
  }

  #nextEvents(): NextStep {
    const { events, eventsAcknowledged: eventsSettled, finished } = this.#delivery.state;
    const count = events.length;
    if (eventsSettled >= count) return finished === undefined ? Infinity : "over";
    return async () => {
      const answer = await this.#postEvents(count);
      if (!answer.ok) this.#complainOfEvents(answer.message);
      this.#delivery.outbox.append(
        answer.ok
          ? { t: "events_settled", count, how: "delivered" }
          : { t: "events_settled", count, how: "refused", message: answer.message },
      );
    };
  }

  async #postEvents(count: number): Promise<Answer<void>> {
    const { outbox, options: { agentId, server }, signal, state } = this.#delivery;
    const webhook = state.accepted?.webhook;
    if (state.accepted === undefined || webhook === undefined) {
      return { ok: true, value: undefined };
    }
    const update = {
      agent_id: agentId,
      job_queue: state.accepted.queue,
      job_status_webhook: webhook,
      events: state.events.slice(0, count),
    };
    let tries = 0;
    return await this.#delivery.persist(async () => {
      const answer = await server.postEvents(outbox.jobId, update, signal);
      // The server is there and cannot deliver: its trouble with the webhook, and nothing that is
      // worth keeping a job for. An outage of the server itself is waited for.
      const isGivenUp = !answer.ok && answer.kind === "webhook" && ++tries >= EVENT_TRIES;
      return isGivenUp ? { ...answer, kind: "refused" as const } : answer;
    });
  }

  /** Said once: each further event is tried again with all that were before it. */
  #complainOfEvents(reason: string): void {
    if (!this.#said.isNew("events")) return;
    const { options: { log }, outbox } = this.#delivery;
    log.warning(
      `Job ${outbox.jobId}: its webhook cannot be told of what happens, and misses at least the ` +
        `last event: ${reason}. The job goes on`,
    );
  }
}

/** Whether the server has this outcome, as far as it says: it arrives as a whole. */
function isComplete(
  there: { value: string | undefined; statuses: PhaseStatuses },
  status: PhaseStatuses,
): boolean {
  return (there.value === "complete" || there.value === "completed") &&
    PHASES.every((phase) => (there.statuses[phase] ?? status[phase]) === status[phase]);
}
