import { join } from "node:path";
import * as z from "zod";
import type { ConnectorContext } from "../context.ts";
import { writeFile } from "../support/files.ts";
import { issuesText } from "../support/job.ts";

/** For the later stages, and for test commands that want to know more than the addresses. */
const FILE_NAME = "job_list.json";

/** A child job as the file has it. */
export interface ListedJob {
  readonly job_id: string;
  /** null until it is known. */
  readonly device_info: Readonly<Record<string, unknown>> | null;
}

const jobList = z.array(z.looseObject({
  job_id: z.string().min(1),
  device_info: z.record(z.string(), z.unknown()).nullish().transform((info) => info ?? null),
}));

/** Writes the file. It is there whole or not at all: without it cleanup finds no children. */
export async function writeJobList(
  { cwd }: ConnectorContext,
  jobs: readonly ListedJob[],
): Promise<void> {
  const path = join(cwd, FILE_NAME);
  await writeFile(`${path}.part`, JSON.stringify(jobs));
  await Deno.rename(`${path}.part`, path);
}

/** Reads the file. What is wrong with it, or that there is none, is logged. */
export async function readJobList(
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
