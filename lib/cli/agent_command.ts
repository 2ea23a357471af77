/** `testflinger-agent -c FILE`. */
import { type Command, DEFAULT_CONFIG } from "./command.ts";
import { DEFAULT_TOKEN_FILE } from "./defaults.ts";

/** Bare `testflinger-agent`. */
export const agentCommand: Command = {
  name: "",
  summary: "Runs the agent until it is told to stop or to restart.",
  positionals: { least: 0, most: 0 },
  flags: [
    {
      name: "config",
      short: "c",
      value: "FILE",
      help: `configuration of the agent (default: ${DEFAULT_CONFIG})`,
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
      help: `JSON with the refresh_token (default: ${DEFAULT_TOKEN_FILE})`,
    },
    {
      name: "restart-status",
      value: "N",
      help: "exit status for a restart that was asked for (default: 1)",
    },
  ],
  examples: [
    { line: "testflinger-agent -c rpi4.conf", does: "run the agent that rpi4.conf describes" },
  ],
  async run(line, io) {
    const { runCommand } = await import("./run_agent.ts");
    return await runCommand(line, io);
  },
};
