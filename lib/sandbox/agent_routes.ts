/** `/v1/agents...` and `/v1/queues...`: agents' records, queues, images, provision logs. */
import { Hono } from "hono";
import { AgentUpdate, Images, ProvisionLogEntry, Queues } from "../server/schema.ts";
import type { StoredAgent } from "./agent_store.ts";
import { json, nothing, RefusedRequest, words } from "./answers.ts";
import { KEEPERS, PEOPLE } from "./auth.ts";
import { readBody } from "./body.ts";
import { setAgentCookie } from "./cookie.ts";
import { dateOf } from "./dates.ts";
import { modeUpdate, withMode } from "./mode.ts";
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
