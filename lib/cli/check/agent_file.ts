/** What is odd about one agent's configuration, beyond what its schema says. */
import { STAGES } from "../../../connectors/context.ts";
import { CONNECTOR_NAMES, NOT_IN_THIS_VERSION } from "../../../connectors/registry.ts";
import type { AgentConfig } from "../../config/agent_config.ts";
import { quoted } from "../../config/mistake.ts";
import { didYouMean } from "../../config/spelling.ts";
import { type ConnectorCall, connectorCalls, isFixed, phaseCommands } from "./connector_calls.ts";
import type { Say } from "./finding.ts";
import { whyNotWritable } from "./folders.ts";
import { findProgram } from "./programs.ts";
import { isBuiltin, simpleCommands } from "./shell_commands.ts";

const FOLDER_KEYS = ["execution_basedir", "logging_basedir", "results_basedir"] as const;

/** What people in the field call the stage of the phase `test`. */
const STAGE_ALIASES = new Map([["test", "runtest"]]);

/** Says everything about one agent. */
export async function checkAgent(
  config: AgentConfig,
  { file, say }: { file: string; say: Say },
): Promise<void> {
  checkQueues(config, say);
  for (const call of connectorCalls(config, file)) checkCall(call, say);
  await checkPrograms(config, say);
  for (const key of FOLDER_KEYS) {
    const why = await whyNotWritable(config[key]);
    if (why !== undefined) {
      say("warning", [key], `${why}: make it by hand, owned by the agent's user`);
    }
  }
}

function checkQueues(config: AgentConfig, say: Say): void {
  const { job_queues, advertised_queues = {}, advertised_images = {} } = config;
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

function checkCall({ key, connector, stage, configFile }: ConnectorCall, say: Say): void {
  if (!CONNECTOR_NAMES.includes(connector)) {
    if (NOT_IN_THIS_VERSION.includes(connector)) {
      say(
        "warning",
        [key],
        `the device connector ${quoted(connector)} is not in this version: keep the established ` +
          "agent's testflinger-device-connector for it, and write its full path here",
      );
      return;
    }
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
    if (key !== "connector") {
      say("mistake", [key], "the connector needs -c and a device configuration");
    }
  } else if (!isFixed(configFile)) {
    say(
      "mistake",
      [key],
      `${quoted(configFile)} is looked for in each job's folder: write the whole path`,
    );
  }
}

async function checkPrograms(config: AgentConfig, say: Say): Promise<void> {
  for (const { key, command } of phaseCommands(config)) {
    const programs = new Set(simpleCommands(command).map(([program]) => program));
    for (const program of programs) {
      // A relative path is looked for in the job's folder, which is not there yet.
      if (isBuiltin(program) || program.includes("/") && !program.startsWith("/")) continue;
      if (await findProgram(program) !== undefined) continue;
      say(
        "warning",
        [key],
        program.startsWith("/")
          ? `there is no program ${quoted(program)} on this host`
          : `there is no program ${
            quoted(program)
          } in this shell's PATH; the agent's may be another`,
      );
    }
  }
}
