/** `testflinger-agent logs`: what an agent logs, or what its job prints. */
import { CONFIG_FLAGS } from "./agents/flags.ts";
import { type Command, USAGE_STATUS } from "./command.ts";

const DEFAULT_LINES = "50";

/** `testflinger-agent logs`. */
export const logsCommand: Command = {
  name: "logs",
  summary: "Shows the end of an agent's own log, or of the output of its job.",
  operands: "[AGENT]",
  positionals: { least: 0, most: 1 },
  flags: [
    ...CONFIG_FLAGS,
    { name: "follow", short: "f", help: "show new lines as they come, until Ctrl-C" },
    { name: "lines", short: "n", value: "N", help: `how many lines (default: ${DEFAULT_LINES})` },
    { name: "job", short: "j", help: "show the output of the running job instead of the log" },
  ],
  examples: [
    { line: "testflinger-agent logs -f rpi4-1", does: "watch the agent" },
    { line: "testflinger-agent logs --job -f rpi4-1", does: "watch the job that it runs" },
  ],
  async run(line, io) {
    const lines = Number(line.values.lines ?? DEFAULT_LINES);
    if (!Number.isInteger(lines) || lines < 0) {
      io.stderr(`--lines must be a whole number, 0 or more: it is '${line.values.lines}'\n`);
      return USAGE_STATUS;
    }
    const { chooseAgents } = await import("./agents/choose.ts");
    const chosen = await chooseAgents(line, io, { manyByDefault: false });
    const [agent, ...more] = chosen?.agents ?? [];
    if (agent === undefined) return 1;
    if (more.length > 0) {
      io.stderr("One log at a time: name one agent\n");
      return USAGE_STATUS;
    }
    const { showLog } = await import("./agents/show_log.ts");
    return await showLog(agent, io, {
      lines,
      follow: line.switches.has("follow"),
      job: line.switches.has("job"),
    });
  },
};
