/** The commands, in the order in which the help lists them. */
import { noticesText, versionText } from "../version.ts";
import {
  doctorCommand,
  jobsCommand,
  logsCommand,
  offlineCommand,
  onlineCommand,
  reloadCommand,
  restartCommand,
  statusCommand,
} from "./agent_commands.ts";
import { cacheCommand } from "./cache.ts";
import { checkCommand } from "./check.ts";
import type { Command } from "./command.ts";
import { completionCommand } from "./completion.ts";
import { manPage } from "./help.ts";
import {
  artifactsCommand,
  cancelCommand,
  resultsCommand,
  sandboxCommand,
  submitCommand,
  tryCommand,
} from "./lab_commands.ts";
import { agentCommand, hostCommand } from "./run_agent.ts";

const versionCommand: Command = {
  name: "version",
  summary: "Shows the version and how it was built.",
  positionals: { least: 0, most: 0 },
  flags: [{
    name: "licenses",
    help: "also print the licences of the runtime and of the included packages",
  }],
  examples: [
    { line: "testflinger-agent version", does: "version, commit, target, runtime" },
    {
      line: "testflinger-agent version --licenses",
      does: "also the licences of the included packages",
    },
  ],
  async run(line, io) {
    io.stdout(versionText());
    if (line.switches.has("licenses")) io.stdout(`\n${await noticesText()}`);
    return 0;
  },
};

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
  run(line, io) {
    // Without the option main() has shown the help already.
    if (!line.switches.has("man")) throw new Error("Cannot be reached: main() shows the help");
    io.stdout(manPage(COMMANDS, agentCommand));
    return Promise.resolve(0);
  },
};

export const COMMANDS: readonly Command[] = [
  hostCommand,
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
  completionCommand(() => ({ commands: COMMANDS, bare: agentCommand })),
  helpCommand,
  versionCommand,
];
