/** Where the server shows jobs to people, if it has pages: asked when a page of the agent is looked at. */
import type { Clock } from "../clock.ts";

/** A server without pages may be another version some time. */
const ASK_AGAIN_MS = 600_000;
const ANSWER_MS = 5_000;

/** The pages of one server. */
export class ServerPages {
  readonly #address: string;
  readonly #clock: Clock;
  #hasPages = false;
  #notBefore = -Infinity;

  /** @param address the configuration's `server_address`. */
  constructor(address: string, clock: Clock) {
    this.#address = address;
    this.#clock = clock;
  }

  /** The page of a job; undefined where the server has none, or is not known to have any yet. */
  of(jobId: string): string | undefined {
    const page = `${this.#address}/jobs/${encodeURIComponent(jobId)}`;
    if (this.#hasPages) return page;
    if (this.#clock.monotonic() < this.#notBefore) return undefined;
    this.#notBefore = this.#clock.monotonic() + ASK_AGAIN_MS;
    void this.#ask(page);
    return undefined;
  }

  async #ask(page: string): Promise<void> {
    try {
      const response = await fetch(page, {
        headers: { accept: "text/html" },
        signal: AbortSignal.timeout(ANSWER_MS),
      });
      await response.body?.cancel();
      const type = response.headers.get("content-type") ?? "";
      this.#hasPages = response.status === 200 && type.startsWith("text/html");
    } catch {
      // No link, and nothing else.
    }
  }
}
