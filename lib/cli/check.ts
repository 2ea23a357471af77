/** `testflinger-agent check FILE...`: says what is wrong with configuration files. */
import { type Command, DEFAULT_CONFIG, FORMAT_FLAG } from "./command.ts";

/** `testflinger-agent check`. */
export const checkCommand: Command = {
  name: "check",
  summary: "Says what is wrong with configuration files of agents and devices; runs nothing.",
  operands: "[FILE...]",
  positionals: { least: 0, most: Infinity },
  flags: [
    {
      name: "config",
      short: "c",
      value: "FILE",
      repeats: true,
      help: `another file to check (default: ${DEFAULT_CONFIG}, else those of the installed host)`,
    },
    {
      name: "config-dir",
      value: "DIR",
      help: "everything that one process would run: DIR/*.conf and DIR/NAME/testflinger-agent.conf",
    },
    {
      name: "connector",
      value: "NAME",
      help: "connector for device configurations that none of the agents in the files names",
    },
    { name: "strict", help: "end with exit status 1 when there are warnings" },
    FORMAT_FLAG,
  ],
  examples: [
    {
      line: "testflinger-agent check /etc/testflinger-agent/*/testflinger-agent.conf",
      does: "all agents of a host, with the device configurations that they name",
    },
    {
      line: "testflinger-agent check --config-dir /etc/testflinger-agent",
      does: "the same for agents in one process, including what two of them share by mistake",
    },
    {
      line: "testflinger-agent check --connector muxpi device.yaml",
      does: "a device configuration by itself",
    },
    {
      line: "testflinger-agent check --strict --format json *.conf",
      does: "machine-readable, before a change is rolled out",
    },
  ],
  async run(line, io) {
    // Loaded only now: the connectors' schemas are no business of an agent that starts.
    const { runCheck } = await import("./check/run_check.ts");
    return await runCheck(line, io);
  },
};
