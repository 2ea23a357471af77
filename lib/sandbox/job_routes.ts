/** `/v1/job...`: submitting, handing out, cancelling, attachments, events. */
import { type Context, Hono } from "hono";
import { EventsUpdate } from "../server/schema.ts";
import { PEOPLE } from "./auth.ts";
import { JobAction, JobSearch, JobSubmission } from "./job_schema.ts";
import { isOver } from "./job_store.ts";
import { readUpload, streamFile } from "./upload.ts";
import {
  agentOf,
  check,
  checkJobId,
  dateOf,
  isUuid,
  json,
  malformedDate,
  nothing,
  readBody,
  RefusedRequest,
  words,
} from "./wire_form.ts";
import type { World } from "./world.ts";

/** Without a token, a reservation may last no longer. */
const FREE_RESERVATION_S = 6 * 3600;

/** The endpoints of jobs. */
export function jobRoutes(world: World): Hono {
  const { agents, auth, jobs } = world;
  const app = new Hono({ strict: false });

  app.post("/job", auth.only(PEOPLE), async (c) => {
    const submission = await readBody(c, JobSubmission);
    const { job_queue: queue, exclude_agents: excluded } = submission;
    if (
      excluded.length > 0 && agents.onQueue(queue).every((agent) => excluded.includes(agent.name))
    ) {
      throw new RefusedRequest(
        422,
        "There are no agents on the specified queue that are allowed to run this job",
      );
    }
    if (submission.job_id) checkJobId(submission.job_id);
    if (auth.isAnonymous(c)) {
      checkAnonymous(submission);
      if (agents.isRestricted(queue)) {
        throw new RefusedRequest(
          401,
          `Authentication required to push to restricted queue: ${queue}`,
        );
      }
    }
    return json(c, { job_id: jobs.add(submission).jobId });
  });

  app.get("/job", auth.only(["agent"]), (c) => {
    const queues = c.req.queries("queue") ?? [];
    if (queues.length === 0) throw new RefusedRequest(400, "No queue(s) specified in request");
    const agentId = agentOf(c);
    if (agentId === undefined && world.generation === "current") {
      throw new RefusedRequest(401, "Agent not identified");
    }
    const job = jobs.take(queues, agentId);
    if (job === undefined) return nothing(c);
    const startedAt = malformedDate(job.startedAt ?? world.clock.now());
    return json(c, { ...job.data, job_id: job.jobId, started_at: startedAt });
  });

  app.get("/job/search", auth.only(PEOPLE), (c) => {
    const { tags, match = "any", state: states = [] } = check(JobSearch, query(c), "query");
    const found = jobs.all().filter((job) => {
      const has = Array.isArray(job.data.tags) ? job.data.tags : [];
      if (tags !== undefined && match === "any" && !tags.some((tag) => has.includes(tag))) {
        return false;
      }
      if (tags !== undefined && match === "all" && !tags.every((tag) => has.includes(tag))) {
        return false;
      }
      if (states.includes("active")) return !isOver(job);
      return states.length === 0 || states.some((state) => state === job.result.job_state);
    });
    return json(
      c,
      found.map((job) => ({
        job_id: job.jobId,
        created_at: dateOf(job.createdAt),
        job_state: job.result.job_state,
      })),
    );
  });

  app.get("/job/:id", auth.only(PEOPLE), (c) => {
    const jobId = checkJobId(c.req.param("id"));
    const job = jobs.get(jobId);
    if (job === undefined) return nothing(c);
    return json(c, { ...job.data, job_id: jobId });
  });

  app.get("/job/:id/position", auth.only(PEOPLE), (c) => {
    const jobId = checkJobId(c.req.param("id"));
    const job = jobs.get(jobId);
    const position = jobs.waiting(job?.queue ?? "").findIndex((other) => other.jobId === jobId);
    if (position < 0) return words(c, "Job not found or already started\n", 410);
    return words(c, String(position));
  });

  app.post("/job/:id/action", auth.only(PEOPLE), async (c) => {
    await readBody(c, JobAction);
    const jobId = c.req.param("id");
    if (!isUuid(jobId)) return words(c, "Invalid job id\n", 400);
    if (!jobs.cancel(jobId)) return words(c, "The job is already completed or cancelled", 400);
    return words(c, "OK");
  });

  app.post("/job/:id/attachments", auth.only(PEOPLE), async (c) => {
    const jobId = c.req.param("id");
    if (!isUuid(jobId)) return words(c, "Invalid job id\n", 400);
    const job = jobs.get(jobId);
    if (job?.result.job_state !== "waiting") {
      return words(c, `Job ${jobId} is not valid\n`, 422);
    }
    const status = job.data.attachments_status;
    if (status === undefined) return words(c, `Job ${jobId} not awaiting attachments\n`, 422);
    // A repetition of an upload that went well.
    if (status === "complete") return words(c, "OK");
    jobs.attach(jobId, await readUpload(c.req.raw));
    return words(c, "OK");
  });

  app.get("/job/:id/attachments", auth.only(["agent"]), (c) => {
    const jobId = c.req.param("id");
    if (!isUuid(jobId)) return words(c, "Invalid job id\n", 400);
    const file = jobs.attachments(jobId);
    if (file === undefined) return nothing(c);
    return c.body(streamFile(file), 200, {
      "Content-Type": "application/gzip",
      "Content-Length": String(file.size),
    });
  });

  app.post("/job/:id/events", auth.only(["agent"]), async (c) => {
    const { job_status_webhook: webhook, ...update } = await readBody(c, EventsUpdate);
    const jobId = checkJobId(c.req.param("id"));
    if (jobs.get(jobId) === undefined) throw new RefusedRequest(404, "Job not found");
    jobs.keepEvents(jobId, update.events);
    if (!world.deliverWebhooks) return words(c, "OK");
    return await deliver(webhook, update);
  });

  return app;
}

/** @throws RefusedRequest 401 for what a person without a token may not ask for. */
function checkAnonymous(submission: {
  job_priority?: number | undefined;
  reserve_data?: { timeout?: number | null | undefined } | undefined;
}): void {
  const priority = submission.job_priority ?? 0;
  if (priority !== 0) {
    throw new RefusedRequest(401, `Authentication required for setting priority: ${priority}`);
  }
  const timeout = submission.reserve_data?.timeout ?? 0;
  if (timeout > FREE_RESERVATION_S) {
    throw new RefusedRequest(401, `Authentication required for setting timeout: ${timeout}`);
  }
}

/** The query with the parameters that may repeat as lists. */
function query(c: Context): Record<string, unknown> {
  const parameters: Record<string, unknown> = { ...c.req.query() };
  for (const name of ["tags", "state"]) {
    const values = c.req.queries(name);
    if (values !== undefined) parameters[name] = values;
  }
  return parameters;
}

/** As long as the real server waits for a webhook. */
const WEBHOOK_TIMEOUT_MS = 3000;

/**
 * Puts the events to the webhook and answers what it answers.
 *
 * @throws RefusedRequest 500 when the webhook refuses our authority, 504 when it is too slow, 502 when it
 *   is not there.
 */
async function deliver(
  webhook: string,
  update: Omit<EventsUpdate, "job_status_webhook">,
): Promise<Response> {
  let answer: Response;
  let body: string;
  try {
    answer = await fetch(webhook, {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(update),
      redirect: "manual",
      signal: AbortSignal.timeout(WEBHOOK_TIMEOUT_MS),
    });
    body = await answer.text();
  } catch (error) {
    if (error instanceof DOMException && error.name === "TimeoutError") {
      throw new RefusedRequest(504, "Webhook Timeout");
    }
    throw new RefusedRequest(502, "Webhook unreachable");
  }
  if (answer.status === 401 || answer.status === 403) {
    throw new RefusedRequest(500, "Webhook authentication failed");
  }
  const empty = body === "" || answer.status === 204 || answer.status === 304;
  return new Response(empty ? null : body, { status: answer.status });
}
