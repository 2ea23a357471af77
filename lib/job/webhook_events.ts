/** Events as the consumers of a job's webhook know them. */
import type { Clock } from "../clock.ts";
import type { Entry } from "../outbox/entries.ts";
import type { Outbox } from "../outbox/outbox.ts";
import type { Phase } from "../phases.ts";
import type { Secrets } from "../process/redactor.ts";

/** The names of events. */
export type EventName =
  | "job_start"
  | `${Phase}_start`
  | `${Phase}_success`
  | `${Phase}_fail`
  | "cancelled"
  | "global_timeout"
  | "output_timeout"
  | "recovery_fail"
  | "job_end";

/** Makes the events of one job. */
export class Events {
  readonly #outbox: Outbox;
  readonly #secrets: Secrets;
  readonly #clock: Clock;

  constructor(outbox: Outbox, secrets: Secrets, clock: Clock) {
    this.#outbox = outbox;
    this.#secrets = secrets;
    this.#clock = clock;
  }

  /** Something happened: what is written down of it. Nothing is for a job without a webhook. */
  drafts(name: EventName, detail = ""): Entry[] {
    if (this.#outbox.state.accepted?.webhook === undefined) return [];
    const event = {
      event_name: name,
      timestamp: new Date(this.#clock.now()).toISOString().replace("Z", "+00:00"),
      detail: this.#secrets.redactText(detail),
    };
    return [{ t: "event", event }];
  }
}
