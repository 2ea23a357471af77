/** `testflinger-agent -c FILE`, and `testflinger-agent run`. */
import { type Command, DEFAULT_CONFIG, DEFAULT_TOKEN_FILE, type Flag } from "./command.ts";

const FLAGS: readonly Flag[] = [
  {
    name: "config",
    short: "c",
    value: "FILE",
    repeats: true,
    help: `configuration of an agent (default: ${DEFAULT_CONFIG})`,
  },
  {
    name: "config-dir",
    value: "DIR",
    help: "run an agent for each DIR/*.conf and DIR/NAME/testflinger-agent.conf, in one process",
  },
  {
    name: "metrics-port",
    short: "p",
    aliases: ["metrics_port"],
    value: "N",
    help: "serve metrics and the status page on this port",
  },
  {
    name: "token-file",
    value: "FILE",
    help:
      `JSON with the refresh_token, for agents without a token_file (default: ${DEFAULT_TOKEN_FILE})`,
  },
  {
    name: "restart-status",
    value: "N",
    help: "exit status for a requested restart (default: 1)",
  },
];

const shared = {
  positionals: { least: 0, most: 0 },
  flags: FLAGS,
  run: (async (line, io) => {
    const { runAgents } = await import("./run_agent.ts");
    return await runAgents(line, io);
  }) satisfies Command["run"],
};

/** The agents of a host in one process. */
export const runCommand: Command = {
  ...shared,
  name: "run",
  summary: "Runs agents until they are told to stop or to restart; several in one process.",
  examples: [
    {
      line: "testflinger-agent run --config-dir /etc/testflinger-agent",
      does: "run all agents of this host in one process",
    },
    { line: "testflinger-agent run -c a.conf -c b.conf", does: "run these two in one process" },
  ],
};

/** Bare `testflinger-agent`. */
export const agentCommand: Command = {
  ...shared,
  name: "",
  summary: "Runs the agent until it is told to stop or to restart.",
  examples: [
    { line: "testflinger-agent -c rpi4.conf", does: "run the agent that rpi4.conf describes" },
  ],
};
