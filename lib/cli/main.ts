/** From the command line to a command. */
import { didYouMean } from "../config/mistake.ts";
import { agentCommand } from "./agent_command.ts";
import { type Command, type Io, PROGRAM, USAGE_STATUS } from "./command.ts";
import { parseCommandLine } from "./command_line.ts";
import { commandHelp, programHelp, usageLine } from "./help.ts";
import { COMMANDS } from "./table.ts";

/** Runs the program; resolves with its exit status. */
export async function main(args: readonly string[], io: Io): Promise<number> {
  const [first = "", ...rest] = args;
  if (first === "device-connector") {
    // Its command line is the established one, with a grammar of its own.
    const { runDeviceConnector } = await import("./device_connector.ts");
    return await runDeviceConnector(rest);
  }
  if (first === "-h" || first === "--help" || first === "help" && rest.length === 0) {
    io.stdout(programHelp(COMMANDS, agentCommand));
    return 0;
  }
  if (first === "--version") return await main(["version", ...rest], io);
  // 'help --help' is about 'help' itself.
  if (first === "help" && rest[0] !== undefined && !rest[0].startsWith("-")) {
    return await main([rest[0], "--help"], io);
  }
  if (first === "" || first.startsWith("-")) return await runCommand(agentCommand, args, io);
  const command = COMMANDS.find(({ name }) => name === first);
  if (command === undefined) {
    const meant = didYouMean(first, COMMANDS.map(({ name }) => name));
    const hint = meant === undefined ? "" : ` Did you mean '${meant}'?`;
    io.stderr(`${PROGRAM}: unknown command '${first}'.${hint}\n`);
    io.stderr(`'${PROGRAM} --help' lists the commands.\n`);
    return USAGE_STATUS;
  }
  return await runCommand(command, rest, io);
}

async function runCommand(command: Command, args: readonly string[], io: Io): Promise<number> {
  const parsed = parseCommandLine(command, args);
  if (!parsed.ok) {
    io.stderr(`${usageLine(command)}${PROGRAM}: ${parsed.message}\n`);
    return USAGE_STATUS;
  }
  if (parsed.help) {
    io.stdout(commandHelp(command));
    return 0;
  }
  return await command.run(parsed.line, io);
}
