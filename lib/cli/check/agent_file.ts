/** What is odd about one agent's configuration, beyond what its schema says. */
import { STAGES } from "../../../connectors/context.ts";
import { CONNECTOR_NAMES, loadConnector } from "../../../connectors/registry.ts";
import { type AgentConfig, DEFAULT_METRICS_HOST, FOLDER_KEYS } from "../../config/agent_config.ts";
import { didYouMean, quoted } from "../../config/mistake.ts";
import { HOOK_NAMES } from "../../job/hooks.ts";
import { unkeptLimits } from "../../job/job_groups.ts";
import { join } from "../../path.ts";
import { controllersOfHost } from "../../process/cgroup.ts";
import { type AgentUser, agentUser, findProgram, whyNotWritable } from "../agents/agent_user.ts";
import { connectorMistake } from "../read_config.ts";
import type { Say } from "./finding.ts";
import {
  type ConnectorCall,
  connectorCalls,
  isBuiltin,
  isFixed,
  phaseCommands,
  simpleCommands,
} from "./phase_commands.ts";

/** What people in the field call the stage of the phase `test`. */
const STAGE_ALIASES = new Map([["test", "runtest"]]);

/**
 * Says everything about one agent.
 *
 * @param config the keys that are right, defaults and the device's file included: the others have been told of.
 * @param options.withFolders whether to look at its folders and at what the host can keep jobs within:
 *   `doctor` has checks of its own for them.
 */
export async function checkAgent(
  config: Partial<AgentConfig>,
  { file, say, withFolders }: { file: string; say: Say; withFolders: boolean },
): Promise<void> {
  const user = await agentUser({ file, config });
  checkQueues(config, say);
  const wrong = await connectorMistake(config);
  if (wrong !== undefined) say("mistake", ["connector"], wrong);
  for (const call of connectorCalls(config, file)) await checkCall(call, say);
  await checkPrograms(config, { say, user });
  const { metrics_host = DEFAULT_METRICS_HOST, metrics_port } = config;
  if (metrics_port === undefined && metrics_host !== DEFAULT_METRICS_HOST) {
    say("warning", ["metrics_host"], "does nothing without metrics_port (or the option -p)");
  }
  if (withFolders && config.hooks_dir !== undefined) {
    for (const text of await hookWarnings(config.hooks_dir)) say("warning", ["hooks_dir"], text);
  }
  if (config.page_actions === true && config.page_token_file === undefined) {
    say("mistake", ["page_actions"], "does nothing without page_token_file");
  }
  if (withFolders) await checkLimits(config, say);
  for (const key of withFolders ? FOLDER_KEYS : []) {
    const folder = config[key];
    if (folder === undefined) continue;
    const trouble = await whyNotWritable(folder, user);
    if (trouble === undefined) continue;
    const advice = trouble.isReadOnly
      ? "mount it for writing"
      : "make it by hand, owned by the agent's user";
    say("warning", [key], `${trouble.why}: ${advice}`);
  }
}

/** Whether the host can keep a job within its limits; what the agent is given is seen when it runs. */
async function checkLimits(config: Partial<AgentConfig>, say: Say): Promise<void> {
  const controllers = await controllersOfHost();
  for (const key of unkeptLimits(config, controllers ?? [])) {
    say(
      "warning",
      [key],
      "does nothing on this host: " +
        (controllers === undefined
          ? "it shows no control groups of version 2"
          : `its control groups of version 2 have no such controller, but ${
            controllers.join(", ") || "none"
          }`),
    );
  }
}

function checkQueues(config: Partial<AgentConfig>, say: Say): void {
  const { job_queues, advertised_queues = {}, advertised_images = {} } = config;
  if (job_queues === undefined) return;
  for (const [index, queue] of job_queues.entries()) {
    const wrong = whyUnusual(queue);
    if (wrong !== undefined) say("warning", ["job_queues", index], wrong);
    if (job_queues.indexOf(queue) < index) {
      say("warning", ["job_queues", index], `${quoted(queue)} is there twice: remove one`);
    }
  }
  for (const [key, queues] of Object.entries({ advertised_queues, advertised_images })) {
    for (const queue of Object.keys(queues)) {
      if (job_queues.includes(queue)) continue;
      const meant = didYouMean(queue, job_queues);
      const hint = meant === undefined
        ? "add it there, or remove it"
        : `did you mean ${quoted(meant)}?`;
      say("warning", [key, queue], `${quoted(queue)} is not one of job_queues: ${hint}`);
    }
  }
}

/** Such a name is stored, but `/v1/queues/NAME/jobs` does not find it. */
function whyUnusual(queue: string): string | undefined {
  if (/[\s\p{Cc}]/u.test(queue)) return "has white space: such a queue is hard to ask for";
  if (/[/?#%]/.test(queue)) {
    return `is ${
      quoted(queue)
    }: the server cannot show a queue with '/', '?', '#' or '%' in its name`;
  }
  return undefined;
}

/** Of phase commands; what the key `connector` says is judged by itself. */
async function checkCall(
  { key, connector, stage, configFile }: ConnectorCall,
  say: Say,
): Promise<void> {
  if (key === "connector") return;
  if (!CONNECTOR_NAMES.includes(connector)) {
    const meant = didYouMean(connector, CONNECTOR_NAMES);
    say(
      "mistake",
      [key],
      `there is no device connector ${quoted(connector)}, ` +
        (meant === undefined
          ? `there are: ${CONNECTOR_NAMES.join(", ")}`
          : `did you mean ${quoted(meant)}?`),
    );
    return;
  }
  if (stage !== undefined && !STAGES.some((name) => name === (STAGE_ALIASES.get(stage) ?? stage))) {
    const meant = didYouMean(stage, STAGES);
    say(
      "mistake",
      [key],
      `there is no stage ${quoted(stage)}, ` +
        (meant === undefined
          ? `there are: ${STAGES.join(", ")}`
          : `did you mean ${quoted(meant)}?`),
    );
  }
  if (configFile === undefined) {
    if ((await loadConnector(connector))?.configOptional === true) return;
    say("mistake", [key], "the connector needs -c and a device configuration");
  } else if (!isFixed(configFile)) {
    say(
      "mistake",
      [key],
      `${quoted(configFile)} is looked for in each job's folder: write the absolute path`,
    );
  }
}

async function checkPrograms(
  config: Partial<AgentConfig>,
  { say, user }: { say: Say; user: AgentUser },
): Promise<void> {
  const where = user.path === undefined
    ? "in this shell's PATH; the agent's may be another"
    : "in the agent's PATH";
  for (const { key, command } of phaseCommands(config)) {
    const programs = new Set(simpleCommands(command).map(([program]) => program));
    for (const program of programs) {
      // A relative path is looked for in the job's folder, which is not there yet.
      if (isBuiltin(program) || program.includes("/") && !program.startsWith("/")) continue;
      if (await findProgram(program, { user, path: user.path }) !== undefined) continue;
      say(
        "warning",
        [key],
        program.startsWith("/")
          ? `there is no program ${quoted(program)} on this host`
          : `there is no program ${quoted(program)} ${where}`,
      );
    }
  }
}

/**
 * One warning for each file of `hooks_dir` that looks like a hook and is none, or that cannot be run: a hook with
 * a slip in its name would never run, and nobody would know.
 */
async function hookWarnings(folder: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const { name } of Deno.readDir(folder)) names.push(name);
  } catch {
    return ["is no folder that can be read: no hook will run"];
  }
  const warnings: string[] = [];
  for (const name of names.sort()) {
    if (HOOK_NAMES.includes(name)) {
      const { mode } = await Deno.stat(join(folder, name)).catch(() => ({ mode: null }));
      if (mode === null || (mode & 0o111) === 0) {
        warnings.push(`${quoted(name)} in it cannot be run: make it executable`);
      }
      // What has another ending was put aside on purpose.
    } else if (/^(?:pre|post)[-_][a-z_-]+$/i.test(name)) {
      const meant = didYouMean(name, HOOK_NAMES);
      warnings.push(
        `${quoted(name)} in it is no hook and will not run` +
          (meant === undefined ? "" : `, did you mean ${quoted(meant)}?`),
      );
    }
  }
  return warnings;
}
