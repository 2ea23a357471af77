/** `testflinger-agent doctor`: whether an agent can work here, and what to do if not. */
import { AGENT_OPERANDS, ALL_FLAG, CONFIG_FLAGS } from "./agents/flags.ts";
import { type Command, DEFAULT_TOKEN_FILE, FORMAT_FLAG } from "./command.ts";

/** `testflinger-agent doctor`. */
export const doctorCommand: Command = {
  name: "doctor",
  summary: "Checks whether an agent can work on this host, and says what to do; changes nothing.",
  ...AGENT_OPERANDS,
  flags: [
    ...CONFIG_FLAGS,
    ALL_FLAG,
    {
      name: "token-file",
      value: "FILE",
      help: `JSON with the refresh_token (default: ${DEFAULT_TOKEN_FILE})`,
    },
    FORMAT_FLAG,
  ],
  examples: [
    {
      line: "testflinger-agent doctor rpi4-1",
      does: "server, token, folders, lock, programs, device; takes no job",
    },
    { line: "testflinger-agent doctor --all", does: "for each agent, only the problems" },
    {
      line: "sudo testflinger-agent doctor -c rpi4.conf",
      does: "check folders and files as the user that the agent runs as",
    },
  ],
  async run(line, io) {
    const { runDoctor } = await import("./doctor/run_doctor.ts");
    return await runDoctor(line, io);
  },
};
