/** `/v1/result...`: outcomes, logs, artifacts. */
import { type Context, Hono, type MiddlewareHandler } from "hono";
import * as z from "zod";
import { type Phase, PHASES } from "../phases.ts";
import { LogFragment, ResultUpdate } from "../server/schema.ts";
import {
  checkJobId,
  describeIssues,
  isUuid,
  json,
  nothing,
  readBody,
  RefusedRequest,
  words,
} from "./wire_form.ts";
import { PEOPLE } from "./auth.ts";
import { LOG_KEYS, LOG_TYPES, logText, type LogType, resultText, streamText } from "./job_log.ts";
import type { StoredJob } from "./job_store.ts";
import { readUpload, streamFile } from "./upload.ts";
import type { World } from "./world.ts";

/** A legacy server takes flat keys, and no `status`. */
const LegacyResult = z.strictObject({
  job_state: z.string(),
  device_info: z.record(z.string(), z.unknown()),
  ...Object.fromEntries(PHASES.map((phase) => [`${phase}_status`, z.int()])),
  ...Object.fromEntries([...LOG_KEYS.keys()].map((key) => [key, z.string()])),
}).partial();

/** The query of `GET /v1/result/{id}/log/{type}`. */
const LogQuery = z.strictObject({
  start_fragment: z.string().regex(/^\d+$/, "Not a valid integer.").transform(Number),
  start_timestamp: z.union([z.iso.datetime({ offset: true }), z.iso.datetime({ local: true })])
    .transform((text) => Date.parse(/(?:Z|[-+]\d\d:?\d\d)$/.test(text) ? text : `${text}Z`)),
  phase: z.enum(PHASES),
}).partial();

/** The endpoints of results. */
export function resultRoutes(world: World): Hono {
  const app = new Hono({ strict: false });
  const { auth, jobs } = world;
  const everybody = auth.only([...PEOPLE, "agent"]);
  const isLegacy = world.generation === "legacy";

  // A legacy server takes posts for any id.
  const refuseForgotten: MiddlewareHandler = async (c, next) => {
    const isPost = c.req.method === "POST" && !isLegacy;
    if (isPost && jobs.isForgotten(c.req.param("id") ?? "")) {
      throw new RefusedRequest(404, "Job not found");
    }
    await next();
  };
  app.use("/result/:id", refuseForgotten);
  app.use("/result/:id/*", refuseForgotten);

  app.post("/result/:id", auth.only(["agent"]), async (c) => {
    const update = await readBody(c, isLegacy ? LegacyResult : ResultUpdate);
    jobs.merge(checkJobId(c.req.param("id")), update);
    return words(c, "OK");
  });

  app.get("/result/:id", everybody, (c) => {
    const jobId = checkJobId(c.req.param("id"));
    const job = jobs.get(jobId);
    if (job === undefined) return nothing(c);
    return streamed(c, resultText(resultValues(job), isLegacy ? {} : jobs.logs(jobId)));
  });

  app.post("/result/:id/artifact", auth.only(["agent"]), async (c) => {
    const jobId = c.req.param("id");
    if (!isUuid(jobId)) return words(c, "Invalid job id\n", 400);
    jobs.keepArtifact(jobId, await readUpload(c.req.raw));
    return words(c, "OK");
  });

  app.get("/result/:id/artifact", auth.only(PEOPLE), (c) => {
    const jobId = c.req.param("id");
    if (!isUuid(jobId)) return words(c, "Invalid job id\n", 400);
    const file = jobs.artifact(jobId);
    if (file === undefined) return nothing(c);
    return c.body(streamFile(file), 200, {
      "Content-Type": "application/gzip",
      "Content-Disposition": "inline; filename=artifact.tar.gz",
      "Content-Length": String(file.size),
    });
  });

  if (isLegacy) addLegacyLogs(app, world);
  else addLogs(app, world);
  return app;
}

function addLogs(app: Hono, { auth, clock, hasStatus, jobs }: World): void {
  if (hasStatus) {
    app.get("/result/:id/status", auth.only([...PEOPLE, "agent"]), (c) => {
      const job = jobs.get(checkJobId(c.req.param("id")));
      if (job === undefined) return nothing(c);
      const { job_state, status } = job.result;
      return json(c, { job_state, ...phaseStatuses(status) });
    });
  }

  for (const type of LOG_TYPES) {
    app.post(`/result/:id/log/${type}`, auth.only(["agent"]), async (c) => {
      const fragment = await readBody(c, LogFragment);
      jobs.append(checkJobId(c.req.param("id")), type, { ...fragment, at: clock.now() });
      return words(c, "OK");
    });

    app.get(`/result/:id/log/${type}`, auth.only(PEOPLE), (c) => {
      const jobId = checkJobId(c.req.param("id"));
      const query = LogQuery.safeParse(c.req.query());
      if (!query.success) {
        throw new RefusedRequest(400, "Validation error", { query: describeIssues(query.error) });
      }
      const { start_fragment: first = 0, start_timestamp: since, phase } = query.data;
      const log = jobs.logs(jobId)[type];
      const phases = (phase === undefined ? PHASES : [phase]).map((name) => {
        const fragments = (log?.ofPhase(name) ?? []).filter((fragment) =>
          fragment.fragment_number >= first &&
          (since === undefined || Date.parse(fragment.timestamp) >= since)
        );
        return [name, fragments] as const;
      });
      return streamed(c, logText(type, phases));
    });
  }
}

function addLegacyLogs(app: Hono, { auth, jobs }: World): void {
  const paths: Record<string, LogType> = { output: "output", serial_output: "serial" };
  for (const [path, type] of Object.entries(paths)) {
    app.post(`/result/:id/${path}`, auth.only(["agent"]), async (c) => {
      const jobId = checkJobId(c.req.param("id"));
      jobs.appendUnread(jobId, type, await c.req.text());
      return words(c, "OK");
    });

    app.get(`/result/:id/${path}`, auth.only(PEOPLE), (c) => {
      const jobId = c.req.param("id");
      if (!isUuid(jobId)) return words(c, "Invalid job id\n", 400);
      const unread = jobs.drain(jobId, type);
      return unread.length === 0 ? nothing(c) : words(c, unread.join("\n"));
    });
  }
}

/** The result as readers see it, without the logs: `status` becomes `{phase}_status`. */
export function resultValues(job: StoredJob): Record<string, unknown> {
  const { status, agent_id: _, ...values } = job.result;
  return { ...values, ...phaseStatuses(status) };
}

function phaseStatuses(status: unknown): Record<string, number> {
  // Only `ResultUpdate` has put it there.
  const codes = Object.entries((status ?? {}) as Partial<Record<Phase, number>>);
  return Object.fromEntries(codes.map(([phase, code]) => [`${phase}_status`, code]));
}

function streamed(c: Context, text: Generator<string>): Response {
  return c.body(streamText(text), 200, { "Content-Type": "application/json" });
}
