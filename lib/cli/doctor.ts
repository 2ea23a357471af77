/** `testflinger-agent doctor`: whether an agent can work here, and what to do if not. */
import { type Command, DEFAULT_CONFIG, FORMAT_FLAG } from "./command.ts";
import { DEFAULT_TOKEN_FILE } from "./defaults.ts";

/** `testflinger-agent doctor`. */
export const doctorCommand: Command = {
  name: "doctor",
  summary: "Looks whether an agent can work on this host, and says what to do; changes nothing.",
  positionals: { least: 0, most: 0 },
  flags: [
    {
      name: "config",
      short: "c",
      value: "FILE",
      help: `the agent's configuration (default: ${DEFAULT_CONFIG})`,
    },
    {
      name: "token-file",
      value: "FILE",
      help: `JSON with the refresh_token (default: ${DEFAULT_TOKEN_FILE})`,
    },
    FORMAT_FLAG,
  ],
  examples: [
    {
      line: "testflinger-agent doctor -c /etc/testflinger-agent/rpi4-1/testflinger-agent.conf",
      does: "server, token, folders, lock, programs, device; takes no job",
    },
    {
      line: "sudo -u testflinger testflinger-agent doctor -c rpi4.conf",
      does: "as the user whom the agent runs as",
    },
  ],
  async run(line, io) {
    const { runDoctor } = await import("./doctor/run_doctor.ts");
    return await runDoctor(line, io);
  },
};
