/** `testflinger-agent completion bash|zsh|fish`. */
import { didYouMean } from "../config/mistake.ts";
import { type Command, USAGE_STATUS } from "./command.ts";

/** The shells that there are scripts for. */
export const SHELLS = ["bash", "zsh", "fish"] as const;

/** `testflinger-agent completion`. */
export const completionCommand: Command = {
  name: "completion",
  summary: "Prints a script that lets a shell complete commands and options.",
  operands: SHELLS.join("|"),
  positionals: { least: 1, most: 1 },
  flags: [],
  examples: [
    {
      line: "testflinger-agent completion bash > /etc/bash_completion.d/testflinger-agent",
      does: "for all users of bash on this host",
    },
    {
      line: "testflinger-agent completion zsh > ~/.zfunc/_testflinger-agent",
      does: "for zsh, where ~/.zfunc is in fpath",
    },
    {
      line: "testflinger-agent completion fish > ~/.config/fish/completions/testflinger-agent.fish",
      does: "for fish",
    },
  ],
  async run(line, io) {
    const [name = ""] = line.positionals;
    const shell = SHELLS.find((one) => one === name);
    if (shell === undefined) {
      const meant = didYouMean(name, SHELLS);
      const hint = meant === undefined
        ? `there are: ${SHELLS.join(", ")}`
        : `did you mean '${meant}'?`;
      io.stderr(`there is no completion for '${name}'; ${hint}\n`);
      return USAGE_STATUS;
    }
    const { completionScript } = await import("./completion_script.ts");
    io.stdout(completionScript(shell));
    return 0;
  },
};
