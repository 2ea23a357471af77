/** `testflinger-agent status`: what the agents of this host are doing. */
import { AGENT_OPERANDS, ALL_FLAG, CONFIG_FLAGS } from "./agents/flags.ts";
import { type Command, FORMAT_FLAG, readFormat, USAGE_STATUS } from "./command.ts";

/** `testflinger-agent status`. */
export const statusCommand: Command = {
  name: "status",
  summary: "Shows what the agents of this host are doing: state and reason, job, phase, server.",
  ...AGENT_OPERANDS,
  flags: [...CONFIG_FLAGS, ALL_FLAG, FORMAT_FLAG],
  examples: [
    {
      line: "testflinger-agent status",
      does: "all agents of this host, or the one configured here",
    },
    { line: "testflinger-agent status rpi4-1", does: "everything about one agent" },
    { line: "testflinger-agent status --all --format json", does: "for a program" },
    {
      line: "testflinger-agent status >/dev/null || echo trouble",
      does: "exit status 1: one does not run, hangs, or its configuration has mistakes",
    },
  ],
  async run(line, io) {
    const format = readFormat(line, io);
    if (format === undefined) return USAGE_STATUS;
    const { chooseAgents } = await import("./agents/choose.ts");
    const { findAgents } = await import("./agents/agent_ref.ts");
    const { askAgents } = await import("./agents/ask_agent.ts");
    const { statusLines, statusTable } = await import("./agents/show_status.ts");
    const chosen = await chooseAgents(line, io, { manyByDefault: true });
    if (chosen === undefined) return 1;
    const entries = await askAgents(chosen.agents, async () => (await findAgents()).agents);
    const [only] = entries;
    if (format === "json") {
      const plain = entries.map(({ agent, answer: { kind, ...more } }) => ({
        agent_id: agent.id,
        file: agent.file,
        state: kind,
        ...more,
      }));
      io.stdout(`${JSON.stringify(plain, null, 2)}\n`);
    } else if (entries.length === 1 && only !== undefined) {
      io.stdout(statusLines(only.agent, only.answer));
    } else {
      io.stdout(statusTable(entries));
    }
    const isWell = chosen.isComplete && !chosen.isBroken &&
      entries.every(({ answer }) => answer.kind === "running" && answer.status.healthy);
    return isWell ? 0 : 1;
  },
};
