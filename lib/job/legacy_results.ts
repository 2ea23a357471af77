/**
 * Takes over what the established agent left undelivered in `results_basedir`, so that changing over
 * to this one loses nothing: one folder per job, with `testflinger.json`, `testflinger-outcome.json`
 * and perhaps `artifacts`.
 */
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { join } from "../path.ts";
import { type Phase, PHASES } from "../phases.ts";
import type { PhaseStatuses } from "../server/schema.ts";
import { moveFolder } from "./folder.ts";
import { isJobId } from "../server/answers.ts";
import { Job } from "./job.ts";
import type { JobStore } from "./store.ts";

type JsonObject = Record<string, unknown>;

/** What the name of a folder begins with that this agent has taken for itself. */
const CLAIMED = "adopted-";

const RECEIVED_NAME = "testflinger.json";
const OUTCOME_NAME = "testflinger-outcome.json";

/** What importing needs. */
export interface ImportOptions {
  store: JobStore;
  clock: Clock;
  log: Log;
}

/**
 * Makes a job of the store of each folder that the established agent left, and of each that an
 * earlier process was about to take over. Several agents of a host share `results_basedir`: whoever
 * renames a folder first has it.
 */
export async function importLegacyResults(
  resultsBasedir: string,
  options: ImportOptions,
): Promise<void> {
  const { store, log } = options;
  try {
    for await (const entry of Deno.readDir(store.folder)) {
      if (!entry.name.startsWith(CLAIMED)) continue;
      await attempt(join(store.folder, entry.name), options, takeOver);
    }
    for await (const entry of Deno.readDir(resultsBasedir)) {
      if (!entry.isDirectory || !isJobId(entry.name)) continue;
      await attempt(join(resultsBasedir, entry.name), options, importFolder);
    }
  } catch (error) {
    log.error(
      `Cannot look for results that another agent left in ${resultsBasedir}: ${messageOf(error)}`,
    );
  }
}

async function attempt(
  folder: string,
  options: ImportOptions,
  what: (folder: string, options: ImportOptions) => Promise<void>,
): Promise<void> {
  try {
    await what(folder, options);
  } catch (error) {
    options.log.error(
      `Cannot take over the results that another agent left in ${folder}: ${messageOf(error)}. ` +
        "Give the folder to the agent's user, or remove it.",
    );
  }
}

async function importFolder(folder: string, options: ImportOptions): Promise<void> {
  const owner = (await Deno.lstat(folder)).uid;
  if (owner !== 0 && owner !== Deno.uid()) throw new Error(`it belongs to user ${owner}`);
  const left = await readLeft(folder);
  if (left === undefined) return;
  const claimed = join(options.store.folder, `${CLAIMED}${left.job.jobId}`);
  if (!await moveFolder(folder, claimed)) {
    throw new Error("it is on another file system than what this agent keeps");
  }
  await takeOver(claimed, options);
}

/** What the folder is about; undefined when there is nothing left to do. */
async function readLeft(folder: string): Promise<{ job: Job; outcome: JsonObject } | undefined> {
  const received = await readObject(join(folder, RECEIVED_NAME));
  const outcome = await readObject(join(folder, OUTCOME_NAME));
  // The established agent removes the outcome once the server has it.
  if (!isJobId(received?.job_id) || outcome === undefined) return undefined;
  return { job: new Job(received), outcome };
}

/** Makes a job of a folder that is ours already. May be done again after a kill at any moment. */
async function takeOver(claimed: string, { store, clock, log }: ImportOptions): Promise<void> {
  const left = await readLeft(claimed);
  if (left === undefined) return;
  const { job, outcome } = left;
  if (!await store.hasTakenIn(job)) {
    const statuses = statusesIn(outcome);
    await store.takeIn(job, { statuses, folder: claimed, now: clock.now() });
    log.info(`Took over the results of job ${job.jobId}, which an earlier agent could not deliver`);
  }
  // Without its secrets; and should the folder resist being removed, it is not taken over again.
  await Deno.remove(join(claimed, RECEIVED_NAME)).catch(() => {});
}

async function readObject(path: string): Promise<JsonObject | undefined> {
  try {
    const value: unknown = JSON.parse(await Deno.readTextFile(path));
    return typeof value === "object" && value !== null ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

/** The statuses in an outcome, whether `{status: {phase: n}}` or `{phase_status: n}`. */
function statusesIn(outcome: JsonObject): PhaseStatuses {
  const nested: JsonObject = typeof outcome.status === "object" && outcome.status !== null
    ? { ...outcome.status }
    : {};
  const statuses: PhaseStatuses = {};
  for (const phase of PHASES) {
    const status = statusOf(
      nested[phase] ?? outcome[`${phase}_status` satisfies `${Phase}_status`],
    );
    if (status !== undefined) statuses[phase] = status;
  }
  return statuses;
}

function statusOf(value: unknown): number | undefined {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 255
    ? value
    : undefined;
}
