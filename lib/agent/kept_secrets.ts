/** The secrets of jobs that the agent may still talk about in its own log. */
import type { Outbox } from "../outbox/outbox.ts";
import type { Secrets } from "../process/redactor.ts";

/** After an outage of days, the secrets of so many jobs are still looked for in the agent's log. */
const MOST_SECRETS = 20;

/**
 * What is on its way to the server may still be talked about when the job has ended, so its secrets
 * are masked until it is there.
 */
export class KeptSecrets {
  /** The oldest first. */
  readonly #secrets = new Map<Outbox, Secrets>();
  readonly #isUndelivered: (outbox: Outbox) => boolean;

  constructor(isUndelivered: (outbox: Outbox) => boolean) {
    this.#isUndelivered = isUndelivered;
  }

  /** Masks these, too, from now on. */
  keep(outbox: Outbox, secrets: Secrets): void {
    for (const earlier of [...this.#secrets.keys()]) {
      const isKept = this.#isUndelivered(earlier) && this.#secrets.size < MOST_SECRETS;
      if (!isKept) this.#secrets.delete(earlier);
    }
    if (!secrets.isEmpty) this.#secrets.set(outbox, secrets);
  }

  /** Masks what is kept. */
  redact(text: string): string {
    return this.#secrets.values().reduce((masked, secrets) => secrets.redactText(masked), text);
  }
}
