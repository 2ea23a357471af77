/** The commands, in the order in which the help lists them. */
import type { Command } from "./command.ts";
import { checkCommand } from "./check.ts";
import { doctorCommand } from "./doctor.ts";
import { jobsCommand } from "./jobs.ts";
import { logsCommand } from "./logs.ts";
import { offlineCommand, onlineCommand, restartCommand } from "./requests.ts";
import { sandboxCommand } from "./sandbox.ts";
import { statusCommand } from "./status.ts";
import { tryCommand } from "./try.ts";
import { versionCommand } from "./version.ts";

const deviceConnector: Command = {
  name: "device-connector",
  summary: "Runs one stage of a device connector, as phase commands do.",
  operands: "DEVICE STAGE -c FILE JOB",
  positionals: { least: 0, most: Infinity },
  flags: [],
  examples: [],
  run: () => Promise.reject(new Error("Cannot be reached: it has a grammar of its own")),
};

export const COMMANDS: readonly Command[] = [
  tryCommand,
  checkCommand,
  doctorCommand,
  statusCommand,
  jobsCommand,
  logsCommand,
  restartCommand,
  offlineCommand,
  onlineCommand,
  sandboxCommand,
  deviceConnector,
  versionCommand,
];
