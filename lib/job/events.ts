/** Events as the consumers of a job's webhook know them. */
import type { Clock } from "../clock.ts";
import type { Phase } from "../phases.ts";
import type { Spool } from "../outbox/spool.ts";
import type { Secrets } from "../process/redactor.ts";

/** The names of events. */
export type EventName =
  | "job_start"
  | `${Phase}_start`
  | `${Phase}_success`
  | `${Phase}_fail`
  | "normal_exit"
  | "cancelled"
  | "global_timeout"
  | "output_timeout"
  | "recovery_fail"
  | "job_end";

/** Puts events into the outbox of one job. */
export class Events {
  readonly #spool: Spool;
  readonly #secrets: Secrets;
  readonly #clock: Clock;

  constructor(spool: Spool, secrets: Secrets, clock: Clock) {
    this.#spool = spool;
    this.#secrets = secrets;
    this.#clock = clock;
  }

  /** Something happened. Nothing is kept for a job without a webhook. */
  emit(name: EventName, detail = ""): void {
    if (this.#spool.standing.accepted?.webhook === undefined) return;
    this.#spool.sendEvent({
      event_name: name,
      timestamp: new Date(this.#clock.now()).toISOString().replace("Z", "+00:00"),
      detail: this.#secrets.redactText(detail),
    });
  }
}
