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

/** Three lines for each job: which it was, how it ended, what its phases took. */
export function jobLines(job: PastJob): string {
  const name = job.name === undefined ? "" : ` (${text(job.name)})`;
  const phases = job.phases.filter(({ state }) => state !== "skipped").map((entry) => {
    const { phase, state, status, seconds = 0 } = entry;
    if (state === "running") return `${phase} did not end`;
    return `${phase} ${duration(seconds)}${status === 0 ? "" : `, failed with ${status}`}`;
  });
  const failed = job.recovery_failed ? "; the device could not be recovered" : "";
  return `${job.started_at.slice(0, 19).replace("T", " ")}  ${text(job.job_id)}${name}\n` +
    `    queue ${text(job.queue)}, ${duration(job.seconds)}, ended with ${
      text(job.reason)
    }${failed}\n` +
    (phases.length === 0 ? "" : `    ${phases.join("; ")}\n`);
}

function text(outside: string): string {
  return showText(outside).replaceAll("\n", " ");
}
