/**
 * Takes over what the established agent left undelivered in `results_basedir`, so that changing over
 * to this one loses nothing: one folder per job, with `testflinger.json`, `testflinger-outcome.json`
 * and perhaps `artifacts`.
 */
import { join } from "node:path";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { type Phase, PHASES } from "../phases.ts";
import type { Spool } from "../outbox/spool.ts";
import type { PhaseStatuses } from "../server/schema.ts";
import { moveFolder } from "./folder.ts";
import { isJobId, Job } from "./job.ts";
import type { JobStore } from "./store.ts";

type JsonObject = Record<string, unknown>;

/** What adopting needs. */
export interface AdoptOptions {
  store: JobStore;
  clock: Clock;
  log: Log;
}

/**
 * Makes a spool of each folder that the established agent left. Several agents of a host share
 * `results_basedir`: whoever renames a folder first has it.
 */
export async function adoptLeftovers(
  resultsBasedir: string,
  options: AdoptOptions,
): Promise<Spool[]> {
  const spools: Spool[] = [];
  for await (const entry of Deno.readDir(resultsBasedir)) {
    if (!entry.isDirectory || !isJobId(entry.name)) continue;
    const folder = join(resultsBasedir, entry.name);
    try {
      const spool = await adopt(folder, options);
      if (spool !== undefined) spools.push(spool);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      options.log.error(
        `Cannot take over the results that another agent left in ${folder}: ${reason}. ` +
          "Give the folder to the agent's user, or remove it.",
      );
    }
  }
  return spools;
}

async function adopt(folder: string, options: AdoptOptions): Promise<Spool | undefined> {
  const { store, clock, log } = options;
  const owner = (await Deno.lstat(folder)).uid;
  if (owner !== 0 && owner !== Deno.uid()) throw new Error(`it belongs to user ${owner}`);
  const received = await readObject(join(folder, "testflinger.json"));
  const outcome = await readObject(join(folder, "testflinger-outcome.json"));
  // The established agent removes the outcome once the server has it: then nothing is left to do.
  if (!isJobId(received?.job_id) || outcome === undefined) return undefined;
  const job = new Job(received);
  const claimed = join(store.folder, `adopted-${job.jobId}`);
  if (!await moveFolder(folder, claimed)) {
    throw new Error("it is on another file system than what this agent keeps");
  }
  const spool = await store.accept(job, [], clock.now());
  if (await Deno.lstat(join(claimed, "artifacts")).then((info) => info.isDirectory, () => false)) {
    spool.send({ kind: "artifacts", folder: claimed });
  }
  spool.send({ kind: "outcome", status: statusesIn(outcome) });
  store.forgetReceived(spool);
  await Deno.remove(join(claimed, "testflinger.json")).catch(() => {});
  spool.append({ t: "finished", at: clock.now(), folder: claimed });
  log.info(`Took over the results of job ${job.jobId}, which an earlier agent could not deliver`);
  return spool;
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
