/** The environment in which a phase's command runs. */
import { type AgentConfig, environmentOf, imageCacheFolder } from "../config/agent_config.ts";
import { markOf } from "../process/mark.ts";
import { isUnsafeName, shownName } from "./secrets.ts";

/** By this variable whatever a job leaves behind is found, also outside its process groups. */
export const JOB_VARIABLE = "TESTFLINGER_JOB_ID";

/** The mark of what a job of an agent starts, for what has cleared its environment. */
export function jobMark(jobId: string, agentId: string): number {
  return markOf(`${agentId} ${jobId}`);
}

/** What is the agent's own business, and would mislead a command. */
const NOT_INHERITED = [
  "NOTIFY_SOCKET",
  "WATCHDOG_PID",
  "WATCHDOG_USEC",
  "LISTEN_FDS",
  "LISTEN_PID",
];

/** The environment of a phase, and what of the job's secrets could not be put into it. */
export interface PhaseEnvironment {
  env: Record<string, string>;
  /** One line for each secret that cannot be an environment variable. */
  problems: string[];
}

/** What goes into the environment of a phase. */
export interface PhaseEnvironmentOptions {
  jobId: string;
  /** Of this phase and no other, by name. */
  secrets: Record<string, string>;
  config: AgentConfig;
}

/** What tells device connectors of the images that the host keeps. */
function imageCacheOf(config: AgentConfig): Record<string, string> {
  return {
    TESTFLINGER_IMAGE_CACHE: imageCacheFolder(config),
    TESTFLINGER_IMAGE_CACHE_MIN_FREE: String(config.min_free_space),
    ...(config.image_cache_max !== undefined &&
      { TESTFLINGER_IMAGE_CACHE_MAX: String(config.image_cache_max) }),
  };
}

/** The agent's own environment, then the configuration, then the job's id, then the secrets. */
export function phaseEnvironment(
  { jobId, secrets, config }: PhaseEnvironmentOptions,
): PhaseEnvironment {
  const inherited = Deno.env.toObject();
  for (const name of NOT_INHERITED) delete inherited[name];
  const env: Record<string, string> = {
    ...inherited,
    ...imageCacheOf(config),
    ...environmentOf(config),
    [JOB_VARIABLE]: jobId,
  };
  const problems: string[] = [];
  for (const [name, value] of Object.entries(secrets)) {
    const secret = `WARNING: The secret ${shownName(name)}`;
    if (!/^[^=\0]+$/.test(name) || value.includes("\0")) {
      problems.push(`${secret} cannot be an environment variable and is left out.`);
    } else if (isUnsafeName(name) && !config.secret_names_allowed.includes(name)) {
      problems.push(
        `${secret} is left out: a variable of this name changes which programs the commands of ` +
          "this host run. An agent takes it if its configuration lists it in secret_names_allowed.",
      );
    } else if (name !== JOB_VARIABLE) {
      env[name] = value;
    }
  }
  return { env, problems };
}
