/**
 * How an agent's state is written into its record on the server, and read there. Older servers keep
 * what administrators want and what the agent does in the one field `state`. Newer ones have `mode`
 * next to it: `mode` belongs to administrators, `state` to the agent.
 */
import type { AgentRecord, AgentUpdate } from "../server/schema.ts";

/** What an agent is about: `waiting`, a phase, `offline`, `maintenance` or `restart`; and why. */
export interface ShownState {
  state: string;
  comment: string;
}

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
export function hasMode(record: AgentRecord | null): boolean {
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
export interface ShownOnServer {
  record: AgentRecord | null;
  /** Whether the server has `mode`; a record that is gone does not say. */
  hasMode: boolean;
}

/** What to post so that the server shows `wanted`; empty when it does already. */
export function updateFor(wanted: ShownState, { record, hasMode }: ShownOnServer): AgentUpdate {
  const shown = stateIn(record);
  if (!hasMode) {
    return shown.state === wanted.state && shown.comment === wanted.comment ? {} : { ...wanted };
  }
  if (MODES.includes(wanted.state)) {
    const comment = wanted.comment || NO_COMMENT;
    if (shown.state === wanted.state && shown.comment === comment) return {};
    // Offline, an agent does nothing; in maintenance it waits.
    const state = wanted.state === "maintenance" ? { state: "waiting" } : {};
    return { mode: wanted.state, ...state, comment };
  }
  if (wanted.state !== "waiting") {
    // A phase that is posted while an administrator's mode is set would put it back to online.
    return MODES.includes(shown.state) || shown.state === wanted.state
      ? {}
      : { state: wanted.state };
  }
  // What an administrator has written to an agent that is online stays there.
  const isOther = shown.comment !== wanted.comment &&
    (wanted.comment !== "" || shown.comment.startsWith(NO_JOB));
  if (MODES.includes(shown.state) || isOther) {
    return { mode: "online", state: "waiting", comment: wanted.comment };
  }
  return shown.state === "waiting" ? {} : { state: "waiting" };
}
