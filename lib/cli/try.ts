/** `testflinger-agent try JOB.yaml`. */
import type { Command } from "./command.ts";

/** `testflinger-agent try`. */
export const tryCommand: Command = {
  name: "try",
  summary: "Runs one job on this machine, without a server, and shows the result.",
  operands: "JOB.yaml",
  positionals: { least: 1, most: 1 },
  flags: [{
    name: "config",
    short: "c",
    value: "FILE",
    help: "take the phase commands from this agent's configuration (default: tests run here)",
  }, {
    name: "verbose",
    short: "v",
    help: "show what the agent logs, too",
  }],
  examples: [
    { line: "testflinger-agent try job.yaml", does: "run the tests of job.yaml on this machine" },
    { line: "testflinger-agent try job.yaml -c rpi4.conf", does: "with the phases of an agent" },
  ],
  async run(line, io) {
    const { runTry } = await import("./try/run_try.ts");
    return await runTry(line, io);
  },
};
