/** `testflinger-agent check FILE...`: says what is wrong with configuration files. */
import { loadAgentConfig } from "../config/agent_config.ts";
import { formatMistake } from "../config/mistake.ts";
import type { Command } from "./command.ts";

/** There are mistakes. */
const MISTAKES_STATUS = 2;

export const checkCommand: Command = {
  name: "check",
  summary: "Says what is wrong with agents' configuration files, without running anything.",
  operands: "FILE...",
  positionals: { least: 1, most: Infinity },
  flags: [],
  examples: [
    {
      line: "testflinger-agent check /etc/testflinger-agent/*/testflinger-agent.conf",
      does: "all agents of a host",
    },
  ],
  async run(line, io) {
    let mistakes = 0;
    for (const file of line.positionals) {
      const result = await loadAgentConfig(file);
      const found = result.ok ? [] : result.mistakes;
      const warnings = result.ok ? result.warnings : [];
      for (const mistake of found) io.stdout(`${formatMistake(mistake)}\n`);
      for (const warning of warnings) io.stdout(`warning: ${formatMistake(warning)}\n`);
      if (found.length === 0) io.stdout(`${file}: the configuration is valid\n`);
      mistakes += found.length;
    }
    return mistakes === 0 ? 0 : MISTAKES_STATUS;
  },
};
