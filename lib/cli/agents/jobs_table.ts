/** The last jobs of an agent, for a person. */
import { openRecentJobs } from "../../observe/recent_jobs.ts";
import { showText } from "../../observe/output_text.ts";
import type { PastJob } from "../../observe/status_schema.ts";
import { duration } from "../../observe/words.ts";
import type { AgentRef } from "./agent_ref.ts";

/** The last jobs, newest first, whether the agent runs or not. */
export async function recentJobs(
  { folder }: AgentRef,
  complain: (text: string) => void,
): Promise<readonly PastJob[]> {
  await Deno.stat(folder).catch((error) => {
    if (error instanceof Deno.errors.PermissionDenied) {
      complain(`${folder} cannot be read: try again as root`);
    }
  });
  const warning = (message: string, fields = {}) =>
    complain(`${message}: ${Object.values(fields).join(": ")}`);
  const recent = await openRecentJobs(folder, { debug() {}, info() {}, warning, error: warning });
  return recent.jobs;
}

/** One line for each job: when it began, how it ended, what its phases took. */
export function jobsTable(jobs: readonly PastJob[]): string {
  const rows = jobs.map((job) => [
    job.started_at.slice(0, 19).replace("T", " "),
    text(job.job_id),
    text(job.queue),
    duration(job.seconds),
    resultOf(job),
    job.phases.filter(({ state }) => state !== "skipped").map(({ phase, state, seconds = 0 }) =>
      state === "running" ? `${phase} did not end` : `${phase} ${duration(seconds)}`
    ).join(", "),
    text(job.name ?? ""),
  ]);
  const all = [["STARTED (UTC)", "JOB", "QUEUE", "TOOK", "RESULT", "PHASES", "NAME"], ...rows];
  const widths =
    all[0]?.map((_, column) => Math.max(...all.map((cells) => cells[column]?.length ?? 0))) ?? [];
  return all.map((cells) =>
    `${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd()}\n`
  ).join("");
}

/** In a few words: `passed`, `test failed (3)`, `cancelled`. */
function resultOf({ reason, phases, recovery_failed: isLost }: PastJob): string {
  const lost = isLost ? ", device not recovered" : "";
  const failed = phases.find(({ status = 0 }) => status !== 0);
  if (reason !== "normal_exit") return `${text(reason).replaceAll("_", " ")}${lost}`;
  return failed === undefined
    ? `passed${lost}`
    : `${failed.phase} failed (${failed.status})${lost}`;
}

function text(outside: string): string {
  return showText(outside).replaceAll("\n", " ");
}
