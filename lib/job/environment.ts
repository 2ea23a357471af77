/** The environment in which a phase's command runs. */
import type { Job } from "./job.ts";
import type { Phase } from "../phases.ts";

/** By this variable whatever a job leaves behind is found, also outside its process groups. */
export const JOB_VARIABLE = "TESTFLINGER_JOB_ID";

/** What is the agent's own business, and would mislead a command. */
const NOT_INHERITED = [
  "NOTIFY_SOCKET",
  "WATCHDOG_PID",
  "WATCHDOG_USEC",
  "LISTEN_FDS",
  "LISTEN_PID",
  "TESTFLINGER_AGENT_CLOCK_FACTOR",
  "TESTFLINGER_AGENT_CRASH_AT",
];

/** The environment of a phase, and what of the job's secrets could not be put into it. */
export interface PhaseEnvironment {
  env: Record<string, string>;
  /** One line for each secret that cannot be an environment variable. */
  problems: string[];
}

/**
 * The agent's own environment, then the configuration, then the job's id, then the secrets of this
 * phase and no other.
 *
 * @param configured from `environmentOf(config)`.
 */
export function phaseEnvironment(
  job: Job,
  phase: Phase,
  configured: Record<string, string>,
): PhaseEnvironment {
  const inherited = Deno.env.toObject();
  for (const name of NOT_INHERITED) delete inherited[name];
  const env: Record<string, string> = { ...inherited, ...configured, [JOB_VARIABLE]: job.jobId };
  const problems: string[] = [];
  for (const [name, value] of Object.entries(job.secrets(phase))) {
    if (!/^[^=\0]+$/.test(name) || value.includes("\0")) {
      problems.push(
        `WARNING: The secret ${
          JSON.stringify(name)
        } cannot be an environment variable and is left out.`,
      );
    } else if (name !== JOB_VARIABLE) {
      env[name] = value;
    }
  }
  return { env, problems };
}
