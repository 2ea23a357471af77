import * as z from "zod";
import { join } from "../lib/path.ts";
import type { ConnectorContext } from "./context.ts";
import { defineConnector } from "./define.ts";
import { type ChildJobServer, childJobServer, type ChildResult } from "./multi/server.ts";
import { type CommonConfig, need, type ShapeOutput } from "./support/config.ts";
import { ProvisioningError } from "./support/errors.ts";
import { writeFile } from "./support/files.ts";
import { issuesText, type JobData } from "./support/job.ts";
import { runTest } from "./support/stage/runtest.ts";
import { pollUntil } from "./support/wait/poll.ts";

const POLL_MS = 10_000;
const ALLOCATION_TIMEOUT_S = 7200;

/** Servers old and new, and agents old and new, write the same end differently. */
const END_STATES = ["cancelled", "complete", "completed"];

const configShape = {
  testflinger_server: z.string({ error: "must be the server's URL" })
    .regex(/^https?:\/\/[^\s/]/, "must be a URL that starts with http:// or https://")
    .optional().describe("URL of the Testflinger server that the child jobs are submitted to."),
};

type MultiContext = ConnectorContext<CommonConfig & ShapeOutput<typeof configShape>>;

type ChildJob = Record<string, unknown>;

/** For jobs on several devices: no device of its own, but child jobs whose devices it collects. */
export const multi = defineConnector({
  name: "multi",
  summary: "Submits child jobs for several devices, and gives the tests all their addresses.",
  config: configShape,
  testedAgainst: "the sandbox server of both generations, and this agent for the child jobs",
  provisionData: {
    jobs: z.array(z.unknown(), { error: "must be a list of jobs" }).meta({ type: "list of job" })
      .optional().describe("The child jobs, one for each device."),
  },
  needs: ["agent_name", "testflinger_server"],
  prepare(_ctx, { job, data }) {
    const parentId = job.job_id;
    if (!parentId) throw new ProvisioningError("The job has no 'job_id' for its children to name");
    return { parentId, jobs: childJobs(data.jobs ?? [], parentId) };
  },
  async provision(ctx, { job, plan: { parentId, jobs } }) {
    const server = await childJobServer(ctx, need(ctx.config, "testflinger_server"));

    const children: ListedJob[] = [];
    let allocated = false;
    // Registered before the first one is there, so that none is forgotten, whatever happens.
    await using _cancel = ctx.putBack("the child jobs", async (ctx) => {
      if (!allocated) await cancelAll(ctx, children);
    });
    for (const [index, child] of jobs.entries()) {
      const reply = await server.submit(child);
      if (!reply.ok) {
        throw new ProvisioningError(`Cannot submit jobs[${index}]: POST /v1/job: ${reply.why}`);
      }
      children.push({ job_id: reply.value, device_info: null });
      await writeJobList(ctx, children);
      // Scripts in the field find the ids of the children by this line.
      ctx.log.info(`Created job ${reply.value}`);
    }
    await waitUntilAllocated(ctx, server, { job, parentId, children });
    await writeJobList(ctx, await withDevices(ctx, server, children));
    allocated = true;
  },

  async runtest(ctx) {
    const jobs = await readJobList(ctx);
    return await runTest(ctx, { hook: false, env: jobs === undefined ? {} : addresses(jobs) });
  },

  async cleanup(ctx) {
    const jobs = await readJobList(ctx);
    if (jobs !== undefined && jobs.length > 0) await cancelAll(ctx, jobs);
  },
});

/** The jobs to submit. Throws ProvisioningError naming everything that is wrong with them. */
function childJobs(entries: readonly unknown[], parentId: string): ChildJob[] {
  if (entries.length === 0) {
    throw new ProvisioningError("The job's 'provision_data.jobs' is missing or empty");
  }
  const mistakes: string[] = [];
  const jobs = entries.flatMap((entry, index) => {
    const problem = isMapping(entry) ? childProblem(entry) : "is not a job but something else";
    if (problem !== undefined) mistakes.push(`jobs[${index}] ${problem}`);
    if (problem !== undefined || !isMapping(entry)) return [];
    return [{ ...entry, allocate_data: { allocate: true }, parent_job_id: parentId }];
  });
  if (mistakes.length > 0) {
    throw new ProvisioningError(`The job's child jobs cannot be submitted: ${mistakes.join("; ")}`);
  }
  return jobs;
}

function childProblem(job: ChildJob): string | undefined {
  const sections = Object.entries(job).filter(([name]) => name.endsWith("_data"));
  for (const [name, section] of sections) {
    if (!isMapping(section)) continue;
    if (name === "provision_data" && Object.hasOwn(section, "jobs")) {
      return "has child jobs of its own ('provision_data.jobs'), which is not supported";
    }
    if (Array.isArray(section["attachments"]) && section["attachments"].length > 0) {
      return `has attachments ('${name}.attachments'), which is not supported in child jobs`;
    }
  }
  return undefined;
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

interface Waiting {
  readonly job: JobData;
  readonly parentId: string;
  readonly children: readonly ListedJob[];
}

/**
 * Waits until every child job has got its device.
 *
 * @throws ProvisioningError when the job itself or a child ends before, or when it takes too long.
 */
async function waitUntilAllocated(
  ctx: MultiContext,
  server: ChildJobServer,
  { job, parentId, children }: Waiting,
): Promise<void> {
  const limitS = job.allocation_timeout ?? ALLOCATION_TIMEOUT_S;
  let pending = children.map(({ job_id: id }) => ({ id, state: "unknown" }));
  const look = async () => {
    const [parent, ...replies] = await Promise.all(
      [parentId, ...pending.map(({ id }) => id)].map((id) => server.result(id)),
    );
    if (parent?.ok && END_STATES.includes(parent.value.state ?? "")) {
      throw new ProvisioningError(
        `The job itself is '${parent.value.state}' before its children have their devices`,
      );
    }
    pending = pending.map(({ id }, index) => {
      const reply = replies[index];
      // The next round may bring an answer.
      if (!reply?.ok) return { id, state: `unknown (${reply?.why})` };
      const { state = "unknown" } = reply.value;
      if (END_STATES.includes(state)) throw new ProvisioningError(endText(id, reply.value));
      return { id, state };
    }).filter(({ state }) => state !== "allocated");
    return pending.map(({ id, state }) => `${id} is ${state}`).join(", ") || undefined;
  };
  const missing = await pollUntil(ctx, {
    waitingFor: "all child jobs to get a device",
    limitMs: limitS * 1000,
    pauseMs: POLL_MS,
    look,
  });
  if (missing === undefined) return;
  throw new ProvisioningError(`Not all child jobs got a device within ${limitS} s: ${missing}`);
}

function endText(id: string, { state, failedPhase }: ChildResult): string {
  return `The child job ${id} is '${state}' before it got a device` +
    (failedPhase ? `: its phase ${failedPhase.phase} ended with ${failedPhase.status}` : "");
}

async function withDevices(
  ctx: MultiContext,
  server: ChildJobServer,
  children: readonly ListedJob[],
): Promise<ListedJob[]> {
  return await Promise.all(children.map(async (child) => {
    const reply = await server.result(child.job_id);
    if (reply.ok && reply.value.deviceInfo) {
      return { ...child, device_info: reply.value.deviceInfo };
    }
    ctx.log.warning(
      `The device of the child job ${child.job_id} is not known: ` +
        (reply.ok ? "its result does not say" : reply.why),
    );
    return child;
  }));
}

/** Cancels all at once; what goes wrong is logged: their own agents look after them, too. */
async function cancelAll(ctx: MultiContext, jobs: readonly ListedJob[]): Promise<void> {
  const server = await childJobServer(ctx, need(ctx.config, "testflinger_server"));
  await Promise.all(jobs.map(async ({ job_id: id }) => {
    const reply = await server.cancel(id);
    // Status 400: it is over anyway.
    if (reply.ok || reply.status === 400) return;
    ctx.log.warning(`Cannot cancel the child job ${id}: ${reply.why}`);
  }));
}

function addresses(jobs: readonly ListedJob[]): Record<string, string> {
  const env: Record<string, string> = { DEVICE_COUNT: String(jobs.length) };
  for (const [index, { job_id: id, device_info: info }] of jobs.entries()) {
    env[`JOB_ID_${index + 1}`] = id;
    const address = info?.["device_ip"];
    if (typeof address === "string" && address !== "") env[`DEVICE_IP_${index + 1}`] = address;
  }
  return env;
}

/** For the later stages, and for test commands that want to know more than the addresses. */
const FILE_NAME = "job_list.json";

/** A child job as the file has it. */
interface ListedJob {
  readonly job_id: string;
  /** null until it is known. */
  readonly device_info: Readonly<Record<string, unknown>> | null;
}

const jobList = z.array(z.looseObject({
  job_id: z.string().min(1),
  device_info: z.record(z.string(), z.unknown()).nullish().transform((info) => info ?? null),
}));

/** Writes the file. It is there whole or not at all: without it cleanup finds no children. */
async function writeJobList(
  { cwd }: ConnectorContext,
  jobs: readonly ListedJob[],
): Promise<void> {
  const path = join(cwd, FILE_NAME);
  await writeFile(`${path}.part`, JSON.stringify(jobs));
  await Deno.rename(`${path}.part`, path);
}

/** Reads the file. What is wrong with it, or that there is none, is logged. */
async function readJobList(
  { cwd, log }: ConnectorContext,
): Promise<readonly ListedJob[] | undefined> {
  let text: string;
  try {
    text = await Deno.readTextFile(join(cwd, FILE_NAME));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    log.info(`There is no ${FILE_NAME}: no child jobs are known`);
    return undefined;
  }
  try {
    const jobs = jobList.safeParse(JSON.parse(text));
    if (jobs.success) return jobs.data;
    log.error(`${FILE_NAME} cannot be used: ${issuesText(jobs.error)}`);
  } catch {
    log.error(`${FILE_NAME} is not JSON`);
  }
  return undefined;
}
