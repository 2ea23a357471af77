/**
 * Whether the agent may take jobs, and whether it should restart: what administrators want, told
 * apart from what the agent itself has written into its record on the server.
 */
import type { Log } from "../log.ts";
import { DEVICE_UNUSABLE } from "../observe/words.ts";
import type { AgentRecord, AgentUpdate } from "../server/schema.ts";
import type { DesiredMode, StateFile } from "./state_file.ts";

/** The comment with which an agent goes offline when it is stopped. */
export const STOPPED_COMMENT = "Agent stopped";

/** The comment of an agent that its host no longer has. */
export const REMOVED_COMMENT = "Agent removed from its host";

/** Restarts that are asked for on the host, where nobody says why. */
export const HOST_RESTARTS = {
  signal: "Restart signal (SIGUSR1)",
  marker: "Restart marker file",
};

/** What the server shows while an agent restarts that was asked to without a word. */
const RESTART_COMMENT = "The agent restarts";

/** Before the words of an administrator, which are not those of an offline that he has set. */
const RESTART_BECAUSE = `${RESTART_COMMENT}: `;

/** With one of these an agent has gone offline as it ended, the established one included. */
const COMMENTS_AT_END = [
  STOPPED_COMMENT,
  REMOVED_COMMENT,
  RESTART_COMMENT,
  ...Object.values(HOST_RESTARTS),
  "Restart signal detected from supervisor process",
];

/** What the server shows while an agent restarts. */
export function restartComment(asked = ""): string {
  if (asked === "") return RESTART_COMMENT;
  return isOfHost(asked) ? asked : RESTART_BECAUSE + asked;
}

/** Whether a restart was asked for on the host. */
export function isOfHost(comment: string): boolean {
  return Object.values(HOST_RESTARTS).includes(comment);
}

/**
 * Whether an agent has gone offline with this comment as it ended. Told by the words alone: the files in which an
 * agent remembers what it has posted may be as short-lived as a container, or `/tmp`.
 */
export function isOfEnd(comment: string): boolean {
  return COMMENTS_AT_END.includes(comment) || comment.startsWith(RESTART_BECAUSE);
}

/** With this an agent goes offline by itself whose device cannot be brought back, the established one included. */
const LOST_DEVICE = "Set to offline by agent. Recovery failed during job ";

/** What is wanted of the agent. */
export class DesiredState {
  readonly #file: StateFile;
  readonly #log: Log;
  /** How often a post of a state has begun or ended. */
  #posts = 0;
  #hasLearnt = false;
  #hasMode = false;

  constructor(file: StateFile, log: Log) {
    this.#file = file;
    this.#log = log;
  }

  /** Set when the agent must not take jobs. */
  get offline(): DesiredMode | undefined {
    return this.#file.content.desired;
  }

  /** Whether the server, as last seen, tells an administrator's mode from the agent's state. */
  get hasMode(): boolean {
    return this.#hasMode;
  }

  /** Set when the agent should restart as soon as it may. */
  get restart(): { comment: string } | undefined {
    return this.#file.content.restart;
  }

  /** To be taken before the record is read, and handed to `learn()` with what was read. */
  get moment(): number {
    return this.#posts;
  }

  /**
   * Takes in the agent's record as the server has it; `null` when the server has forgotten it. What
   * was read while the agent itself wrote says nothing: it may be from before or from after.
   *
   * @returns whether the record could be used.
   */
  learn(record: AgentRecord | null, moment: number): boolean {
    if (moment !== this.#posts) return false;
    if (record !== null) this.#hasMode = hasMode(record);
    const isFirst = !this.#hasLearnt;
    this.#hasLearnt = true;
    const { state, comment } = stateIn(record);
    if (state === "offline" || state === "maintenance") {
      this.#learnOffline({ state, comment });
      return true;
    }
    if (state === "restart" && !this.#isOurs(state, comment)) {
      // The agent has just begun: that is what was asked for.
      if (isFirst) {
        this.#log.info("The restart that was asked for on the server is done", { comment });
      } else this.requestRestart(comment, "An administrator asks on the server for a restart");
    }
    const desired = this.offline;
    if (desired === undefined) return true;
    // Where there is a mode, a record that a sign of life has made says `online` by itself.
    if (isForgotten(record) && (this.#hasMode || state !== "waiting")) {
      this.#file.update({ desired: { ...desired, posted: false } });
    } else if (desired.posted || this.#isSetOnline(desired, { state, comment })) {
      this.#file.update({ desired: undefined });
      this.#log.info("An administrator set this agent online again");
    }
    return true;
  }

  /** Whether an administrator has set the agent online before the server showed it as offline. */
  #isSetOnline({ own }: DesiredMode, { state, comment }: ShownState): boolean {
    // That a device is lost was not shown yet, so nobody has answered it: the comment is an older one.
    return own !== true && state === "waiting" && !this.#isOurs(state, comment);
  }

  #learnOffline({ state, comment }: { state: "offline" | "maintenance"; comment: string }): void {
    const desired = this.offline;
    const isShown = desired?.comment === comment &&
      (desired.state === state || desired.own === true);
    if (desired !== undefined && isShown) {
      this.#file.update({ desired: { ...desired, state, posted: true } });
    } else if (this.#isOurs(state, comment)) {
      return;
    } else if (comment.startsWith(LOST_DEVICE)) {
      this.#file.update({
        desired: { state, comment, posted: true, own: true },
        acknowledged: { state, comment },
      });
      this.#log.warning(`The agent stays ${state}: its device was lost`, { comment });
    } else {
      this.#file.update({ desired: { state, comment, posted: true } });
      this.#log.warning(`An administrator set this agent to ${state}`, { comment });
    }
  }

  /** Whether a state on the server is one that no administrator has set. */
  #isOurs(state: string, comment: string): boolean {
    const isOwn = isOfEnd(comment) || comment.startsWith(`${DEVICE_UNUSABLE}: `);
    if (state === "offline" && isOwn) return true;
    const { posted, acknowledged } = this.#file.content;
    return [posted, acknowledged].some((own) => own?.state === state && own.comment === comment);
  }

  /** A restart is requested. It is remembered until it is carried out. */
  requestRestart(comment: string, because: string): void {
    if (this.restart !== undefined) return;
    this.#file.update({ restart: { comment } });
    this.#log.info(`${because}; it is carried out when no job runs and the agent is online`, {
      comment,
    });
  }

  /** The restart is carried out now. */
  restartCarriedOut(): void {
    this.#file.update({ restart: undefined });
  }

  /**
   * A job has found that the device cannot be brought back: the agent takes no more jobs by itself, until it is set
   * online again. That counts from then on, whatever else is told of the same job.
   */
  noteLostDevice(jobId: string): void {
    if (this.#file.content.lost === jobId) return;
    const state = this.#hasMode ? "maintenance" : "offline";
    const comment = `${LOST_DEVICE}'${jobId}' execution.`;
    this.#file.update({
      lost: jobId,
      desired: { state, comment, posted: false, own: true },
    });
    this.#log.error(
      `${comment} Repair the device, then set the agent online: on the server, or by ` +
        "'testflinger-agent online' on this host",
    );
  }

  /** A job begins: what an earlier run of the same one has found does not count. */
  forgetLostDevice(jobId: string): void {
    if (this.#file.content.lost === jobId) this.#file.update({ lost: undefined });
  }

  /** The device was repaired, as an operator on the host says: takes back that the agent went offline by itself. */
  comeBack(): void {
    const { desired } = this.#file.content;
    if (desired?.own !== true) return;
    this.#file.update({ desired: undefined });
    this.#log.info("The agent is set online again on this host", { comment: desired.comment });
  }

  /** The agent is about to post this state: whatever happens then, it is the agent's own. */
  aboutToPost({ state, comment }: ShownState): void {
    this.#posts++;
    this.#file.update({ posted: remembered({ state, comment }) });
  }

  /** The server has taken this state: it shows the desired state, or it no longer does. */
  posted({ state, comment }: ShownState): void {
    this.#posts++;
    const desired = this.offline;
    const shown = desired?.state === state && desired.comment === comment;
    const acknowledged = remembered({ state, comment });
    if (desired !== undefined) {
      this.#file.update({ acknowledged, desired: { ...desired, posted: shown } });
    } else {
      // After a kill an earlier one of the agent's own states counts as its own, too.
      this.#file.updateLater({ acknowledged });
    }
  }
}

// How an agent's state is written into its record on the server, and read there. Older servers keep
// what administrators want and what the agent does in the one field `state`. Newer ones have `mode`
// next to it: `mode` belongs to administrators, `state` to the agent.

/** What an agent is about: `waiting`, a phase, `offline`, `maintenance` or `restart`; and why. */
export interface ShownState {
  state: string;
  comment: string;
}

/** What is kept of a state of the agent's own: which phase it was need not be told, and written down, each time. */
function remembered(shown: ShownState): ShownState {
  return shown.state === "waiting" || MODES.includes(shown.state) ? shown : A_PHASE;
}

const A_PHASE: ShownState = { state: "phase", comment: "" };

/** These belong to administrators: while one of them is set the agent takes no job. */
const MODES = ["offline", "maintenance", "restart"];

/** Begins the comment of an agent that waits and takes no job nevertheless. */
export const NO_JOB = "No job is taken: ";

/** A server with `mode` takes neither of the two modes without a comment. */
const NO_COMMENT = "Set on the agent's host";

/** Whether posting this state says something of what administrators want, too. */
export function saysMode(state: string, hasMode: boolean): boolean {
  return !hasMode || state === "waiting" || MODES.includes(state);
}

/** Whether the server keeps what administrators want in a field of its own. */
function hasMode(record: AgentRecord | null): boolean {
  return typeof record?.mode === "string";
}

/** What a record shows, in the words of the one field; `state` is `""` where it says nothing. */
export function stateIn(record: AgentRecord | null): ShownState {
  const { mode, state } = record ?? {};
  const comment = record?.comment ?? "";
  if (typeof mode !== "string") return { state: state ?? "", comment };
  if (MODES.includes(mode)) return { state: mode, comment };
  // With some servers `state` repeats a mode that has just been left.
  return { state: !state || MODES.includes(state) ? "waiting" : state, comment };
}

/**
 * The server knows nothing of the agent, or no more than a sign of life has told it: it has lost its
 * data, or forgets an agent after a week.
 */
export function isForgotten(record: AgentRecord | null): boolean {
  return record === null || (record.queues ?? []).length === 0;
}

/** What the server shows, as it was read just now. */
interface ShownOnServer {
  record: AgentRecord | null;
  /** Whether the server has `mode`; a record that is gone does not say. */
  hasMode: boolean;
  /** The last state that it has taken besides modes; it may show the mode in its place. */
  lastState?: string | undefined;
}

/** What to post so that the server shows `wanted`; empty when it does already. */
export function updateFor(wanted: ShownState, onServer: ShownOnServer): AgentUpdate {
  const { record, hasMode } = onServer;
  const shown = stateIn(record);
  if (!hasMode) {
    return shown.state === wanted.state && shown.comment === wanted.comment ? {} : { ...wanted };
  }
  if (MODES.includes(wanted.state)) {
    const comment = wanted.comment || NO_COMMENT;
    if (shown.state === wanted.state && shown.comment === comment) {
      return updateInMode(shown, "waiting", onServer);
    }
    // Offline, an agent does nothing; in maintenance it waits.
    const state = wanted.state === "maintenance" ? { state: "waiting" } : {};
    return { mode: wanted.state, ...state, comment };
  }
  if (wanted.state !== "waiting") {
    if (MODES.includes(shown.state)) return updateInMode(shown, wanted.state, onServer);
    return shown.state === wanted.state ? {} : { state: wanted.state };
  }
  // What an administrator has written to an agent that is online stays there.
  const isOther = shown.comment !== wanted.comment &&
    (wanted.comment !== "" || shown.comment.startsWith(NO_JOB));
  if (MODES.includes(shown.state) || isOther) {
    return { mode: "online", state: "waiting", comment: wanted.comment };
  }
  return shown.state === "waiting" ? {} : { state: "waiting" };
}

/**
 * What to post so that the server shows the agent's own `state` while an administrator's mode is set, which stays. A
 * state that is posted alone would put the agent back to online. In maintenance it goes with the mode and the comment,
 * as they have just been read. Offline, the server takes no state: it keeps the one that was posted last, and shows
 * the mode.
 */
function updateInMode(
  shown: ShownState,
  state: string,
  { record, lastState }: ShownOnServer,
): AgentUpdate {
  if (shown.state !== "maintenance") return {};
  const isRepeated = !record?.state || MODES.includes(record.state);
  if ((isRepeated ? lastState : record.state) === state) return {};
  return { mode: shown.state, state, comment: shown.comment || NO_COMMENT };
}
