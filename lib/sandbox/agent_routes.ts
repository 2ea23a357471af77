/** `/v1/agents...` and `/v1/queues...`: agents' records, queues, images, provision logs. */
import { Hono } from "hono";
import { AgentUpdate, Images, ProvisionLogEntry, Queues } from "../server/schema.ts";
import type { StoredAgent } from "./agent_store.ts";
import { KEEPERS, PEOPLE } from "./auth.ts";
import {
  dateOf,
  json,
  nothing,
  readBody,
  RefusedRequest,
  setAgentCookie,
  words,
} from "./wire_form.ts";
import type { World } from "./world.ts";

/** The endpoints of agents and queues. */
export function agentRoutes(world: World): Hono {
  const { agents, auth, jobs } = world;
  const app = new Hono({ strict: false });
  const show = (agent: StoredAgent) => {
    const { updatedAt, log: _, provisionStreak: streak, ...record } = agent;
    return {
      ...world.mode ? withMode(record) : record,
      updated_at: dateOf(updatedAt, world.updatedAt),
      restricted_to: agents.restrictedTo(agent),
      ...streak && { provision_streak_type: streak.type, provision_streak_count: streak.count },
    };
  };

  app.get("/agents/data", auth.only(PEOPLE), (c) => json(c, agents.all().map(show)));

  app.get("/agents/data/:agent", auth.only([...PEOPLE, "agent"]), (c) => {
    const agent = agents.get(c.req.param("agent"));
    return agent === undefined ? json(c, {}, 404) : json(c, show(agent));
  });

  app.post("/agents/data/:agent", auth.only(KEEPERS), async (c) => {
    const name = c.req.param("agent");
    const update = await readBody(c, world.mode ? AgentUpdate : AgentUpdate.omit({ mode: true }));
    agents.update(name, world.mode ? modeUpdate(update) : update);
    setAgentCookie(c, name);
    return json(c, { status: "OK" });
  });

  app.post("/agents/provision_logs/:agent", auth.only(["agent"]), async (c) => {
    const entry = await readBody(c, ProvisionLogEntry);
    const known = agents.addProvisionLog(c.req.param("agent"), entry);
    return known ? words(c, "OK") : words(c, "Agent not found\n", 404);
  });

  app.get("/agents/queues", auth.only(PEOPLE), (c) => json(c, agents.advertised()));

  app.post("/agents/queues", auth.only(KEEPERS), async (c) => {
    for (const [queue, description] of Object.entries(await readBody(c, Queues))) {
      agents.advertise(queue, description);
    }
    return words(c, "OK");
  });

  app.get(
    "/agents/images/:queue",
    auth.only(PEOPLE),
    (c) => json(c, agents.images(c.req.param("queue"))),
  );

  app.post("/agents/images", auth.only(KEEPERS), async (c) => {
    for (const [queue, images] of Object.entries(await readBody(c, Images))) {
      agents.setImages(queue, images);
    }
    return words(c, "OK");
  });

  // Not on the real server: every queue that an agent advertises or serves, with its description.
  app.get("/queues", auth.only(PEOPLE), (c) => {
    const served = agents.all().flatMap((agent) => agent.queues ?? []);
    const queues = Object.fromEntries(served.map((queue) => [queue, ""]));
    return json(c, { ...queues, ...agents.advertised() });
  });

  app.get("/queues/:queue/agents", auth.only(PEOPLE), (c) => {
    const queue = c.req.param("queue");
    const serving = agents.onQueue(queue);
    if (serving.length === 0) throw new RefusedRequest(404, `Queue '${queue}' does not exist.`);
    return json(c, serving.map(show));
  });

  app.get("/queues/:queue/jobs", auth.only(PEOPLE), (c) => {
    const queue = c.req.param("queue");
    const found = jobs.all().filter((job) => job.queue === queue);
    if (found.length === 0) return nothing(c);
    return json(
      c,
      found.map((job) => ({
        job_id: job.jobId,
        created_at: dateOf(job.createdAt),
        job_state: job.result.job_state,
        job_queue: queue,
      })),
    );
  });

  return app;
}

// Agents on servers that keep `mode`, which belongs to administrators, apart from `state`.

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
function modeUpdate(update: AgentUpdate): AgentUpdate {
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
function withMode<R extends Pick<StoredAgent, "mode" | "state" | "modeChangedAt">>(
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
