/** Agents on servers that keep `mode`, which belongs to administrators, apart from `state`. */
import type { AgentUpdate } from "../server/schema.ts";
import type { StoredAgent } from "./agent_store.ts";
import { RefusedRequest } from "./answers.ts";
import { dateOf } from "./dates.ts";

/** In these an agent does nothing, so they come without a state. */
const WITHOUT_STATE = ["offline", "restart"];
const WITH_STATE = ["online", "maintenance"];

/** Modes that need a reason. */
const WITH_COMMENT = ["offline", "maintenance"];

/**
 * What an agent posted, with its mode. In the old form, a state alone, a phase means that the agent
 * is online: that is how an agent undoes what an administrator has set.
 *
 * @throws RefusedRequest 422 where mode, state and comment do not go together.
 */
export function modeUpdate(update: AgentUpdate): AgentUpdate {
  const { mode, state, comment } = update;
  if (mode === undefined) return state === undefined ? update : fromOldForm(update, state);
  const refuse = (message: string) =>
    new RefusedRequest(422, "Validation error", { json: { mode: [message] } });
  if (![...WITHOUT_STATE, ...WITH_STATE].includes(mode)) throw refuse(`Unknown mode ${mode}.`);
  if (WITHOUT_STATE.includes(mode) && state !== undefined) throw refuse(`${mode} has no state.`);
  if (WITH_STATE.includes(mode) && state === undefined) throw refuse(`${mode} needs a state.`);
  if (WITH_COMMENT.includes(mode) && !comment) throw refuse(`${mode} needs a comment.`);
  return update;
}

function fromOldForm(update: AgentUpdate, state: string): AgentUpdate {
  if (state === "maintenance") {
    throw new RefusedRequest(422, "Validation error", {
      json: { state: ["maintenance is a mode."] },
    });
  }
  return { ...update, mode: WITHOUT_STATE.includes(state) ? state : "online" };
}

/** The record as it is shown: readers of the old form find the mode in `state`, too. */
export function withMode<R extends Pick<StoredAgent, "mode" | "state" | "modeChangedAt">>(
  record: R,
) {
  const { modeChangedAt, ...others } = record;
  const { mode = "online", state = "waiting" } = record;
  return {
    ...others,
    mode,
    state: mode === "online" ? state : mode,
    ...modeChangedAt !== undefined && { mode_changed_at: dateOf(modeChangedAt) },
  };
}
