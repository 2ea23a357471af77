/**
 * Whether the agent may take jobs, and whether it should restart: what administrators want, told
 * apart from what the agent itself has written into its record on the server.
 */
import type { Log } from "../log.ts";
import type { AgentRecord } from "../server/schema.ts";
import type { StateFile, Wish } from "./state_file.ts";

/** The comment with which an agent goes offline when it is stopped. */
export const STOPPED_COMMENT = "Agent stopped";

/** What is wanted of the agent. */
export class DesiredState {
  readonly #memory: StateFile;
  readonly #log: Log;
  /** How often a post of a state has begun or ended. */
  #posts = 0;

  constructor(memory: StateFile, log: Log) {
    this.#memory = memory;
    this.#log = log;
  }

  /** Set when the agent must not take jobs. */
  get offline(): Wish | undefined {
    return this.#memory.content.wish;
  }

  /** Set when the agent should restart as soon as it may. */
  get restart(): { comment: string } | undefined {
    return this.#memory.content.restart;
  }

  /** To be taken before the record is read, and handed to `learn()` with what was read. */
  get moment(): number {
    return this.#posts;
  }

  /**
   * Takes in the agent's record as the server has it; `null` when the server has forgotten it. What
   * was read while the agent itself wrote says nothing: it may be from before or from after.
   */
  learn(record: AgentRecord | null, moment: number): void {
    if (moment !== this.#posts) return;
    const wish = this.offline;
    const state = record?.state ?? "";
    const comment = record?.comment ?? "";
    if (state === "offline" || state === "maintenance") {
      if (wish?.state === state && wish.comment === comment) {
        this.#memory.update({ wish: { ...wish, posted: true } });
      } else if (!this.#isOurs(state, comment)) {
        this.#memory.update({ wish: { state, comment, posted: true } });
        this.#log.warning(`An administrator set this agent to ${state}`, { comment });
      }
      return;
    }
    if (state === "restart" && !this.#isOurs(state, comment)) {
      this.requestRestart(comment, "An administrator asks on the server for a restart");
    }
    if (wish === undefined) return;
    if (record === null) {
      this.#memory.update({ wish: { ...wish, posted: false } });
    } else if (wish.posted || state === "waiting" && !this.#isOurs(state, comment)) {
      this.#memory.update({ wish: undefined });
      this.#log.info("An administrator set this agent online again");
    }
  }

  /** Whether a state on the server is one that this agent posted itself. */
  #isOurs(state: string, comment: string): boolean {
    if (state === "offline" && comment === STOPPED_COMMENT) return true;
    const { posted, acknowledged } = this.#memory.content;
    return [posted, acknowledged].some((own) => own?.state === state && own.comment === comment);
  }

  /** Somebody asks for a restart. It is remembered until it is carried out. */
  requestRestart(comment: string, because: string): void {
    if (this.restart !== undefined) return;
    this.#memory.update({ restart: { comment } });
    this.#log.info(`${because}; it is carried out when no job runs`, { comment });
  }

  /** The restart is carried out now. */
  restartCarriedOut(): void {
    this.#memory.update({ restart: undefined });
  }

  /** The agent goes offline by itself, until an administrator sets it online again. */
  goOffline(comment: string): void {
    this.#memory.update({ wish: { state: "offline", comment, posted: false } });
    this.#log.error(`${comment} Mend the device, then set the agent online on the server`);
  }

  /** The agent is about to post this state: whatever happens then, it is the agent's own. */
  aboutToPost(state: string, comment: string): void {
    this.#posts++;
    this.#memory.update({ posted: { state, comment } });
  }

  /** The server has taken this state: it shows the wish, or it no longer does. */
  posted(state: string, comment: string): void {
    this.#posts++;
    const wish = this.offline;
    const shown = wish?.state === state && wish.comment === comment;
    this.#memory.update({
      acknowledged: { state, comment },
      ...(wish !== undefined && { wish: { ...wish, posted: shown } }),
    });
  }
}
