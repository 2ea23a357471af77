/** The commands, in the order in which the help lists them. */
import { runCommand } from "./agent_command.ts";
import type { Command } from "./command.ts";
import { cacheCommand } from "./cache.ts";
import { checkCommand } from "./check.ts";
import { completionCommand } from "./completion.ts";
import { doctorCommand } from "./doctor.ts";
import { jobsCommand } from "./jobs.ts";
import { artifactsCommand, cancelCommand, resultsCommand, submitCommand } from "./lab_commands.ts";
import { logsCommand } from "./logs.ts";
import { offlineCommand, onlineCommand, reloadCommand, restartCommand } from "./requests.ts";
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
  examples: [
    { line: "testflinger-agent device-connector list", does: "list the connectors" },
    {
      line: "testflinger-agent device-connector describe muxpi",
      does: "what one does, and the keys of its configuration and jobs",
    },
    {
      line: "testflinger-agent device-connector muxpi provision -c device.yaml testflinger.json",
      does: "as in a phase command",
    },
  ],
  run: () => Promise.reject(new Error("Cannot be reached: it has a grammar of its own")),
};

const helpCommand: Command = {
  name: "help",
  summary: "Shows the help of the program, or of one command.",
  operands: "[COMMAND]",
  positionals: { least: 0, most: 1 },
  flags: [{ name: "man", help: "print the manual page, as roff" }],
  examples: [
    { line: "testflinger-agent help check", does: "all about 'check'" },
    {
      line: "testflinger-agent help --man | man -l -",
      does: "the manual, where it is not installed",
    },
  ],
  async run(line, io) {
    // Without the option main() has shown the help already.
    if (!line.switches.has("man")) throw new Error("Cannot be reached: main() shows the help");
    const { manPage } = await import("./man_page.ts");
    io.stdout(manPage());
    return 0;
  },
};

export const COMMANDS: readonly Command[] = [
  runCommand,
  tryCommand,
  submitCommand,
  resultsCommand,
  artifactsCommand,
  cancelCommand,
  checkCommand,
  doctorCommand,
  statusCommand,
  jobsCommand,
  logsCommand,
  restartCommand,
  reloadCommand,
  offlineCommand,
  onlineCommand,
  cacheCommand,
  sandboxCommand,
  deviceConnector,
  completionCommand,
  helpCommand,
  versionCommand,
];
