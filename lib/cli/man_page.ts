/** The manual page, from the table of commands. */
import { VERSION } from "../version.ts";
import { agentCommand } from "./agent_command.ts";
import { type Command, type Flag, HELP_FLAG, PROGRAM } from "./command.ts";
import { COMMANDS } from "./table.ts";

/** The page testflinger-agent(1), as roff. The build writes it to `dist/`, and `help --man` prints it. */
export function manPage(): string {
  return [
    `.TH TESTFLINGER\\-AGENT 1 "" "${PROGRAM} ${VERSION}" "User Commands"`,
    ".SH NAME",
    roff(`${PROGRAM} - takes jobs from a Testflinger server and runs them on a device`),
    ".SH SYNOPSIS",
    ...synopsis(agentCommand),
    ...COMMANDS.flatMap((command) => [".br", ...synopsis(command)]),
    ".SH DESCRIPTION",
    roff(
      `${PROGRAM} runs on a lab host, one for each device. It asks a Testflinger server for jobs, ` +
        "runs each job's phases, streams their output to the server, and reports the outcome.",
    ),
    ".SH OPTIONS OF THE AGENT",
    ...[...agentCommand.flags, HELP_FLAG].flatMap(option),
    ".SH COMMANDS",
    ...COMMANDS.flatMap(command),
    ".SH EXIT STATUS",
    ...definition("0", "It was told to stop, or the command succeeded."),
    ...definition("1", "It must be started again (or --restart-status), or something failed."),
    ...definition("2", "The configuration, a job file or the command line is wrong."),
    ...definition("3", "The request was not carried out within --timeout; it stays in force."),
    ...definition("46", "Of device-connector: a device that only a person can bring back."),
    ...definition("141", "The reader of the output is gone (broken pipe)."),
    ".SH SIGNALS",
    ...definition("SIGUSR1", "Restart as soon as no job runs."),
    ...definition("SIGTERM, SIGINT", "End the running phase, clean up, and stop. Again: at once."),
    ".SH FILES",
    ...definition("/etc/testflinger-agent/NAME/testflinger-agent.conf", "Configurations."),
    ...definition("/var/lib/testflinger-agent/refresh_token", "The token for the server."),
    ...definition("/tmp/TESTFLINGER-DEVICE-OFFLINE-ID", "While it is there the agent is offline."),
    ...definition("/tmp/TESTFLINGER-DEVICE-RESTART-ID", "Asks for a restart."),
    "",
  ].join("\n");
}

function synopsis({ name, operands, flags }: Command): string[] {
  const words = [name, flags.length > 0 ? "[options]" : "", operands ?? ""];
  const rest = words.filter((word) => word !== "").map(roff).join(" ");
  return [`.B ${roff(PROGRAM)}`, ...rest === "" ? [] : [rest]];
}

function command({ name, summary, flags, examples }: Command): string[] {
  return [
    `.SS ${roff(name)}`,
    roff(summary),
    ...flags.flatMap(option),
    ...examples.flatMap(({ line, does }) => [
      ".PP",
      roff(`Example, ${does}:`),
      ".PP",
      ".RS 4",
      ".nf",
      roff(line),
      ".fi",
      ".RE",
    ]),
  ];
}

function option(flag: Flag): string[] {
  const value = flag.value === undefined ? "" : ` ${flag.value}`;
  const names = [
    ...flag.short === undefined ? [] : [`-${flag.short}`],
    `--${flag.name}`,
  ].map((name) => `\\fB${roff(name)}\\fR`).join(", ");
  return [".TP", `${names}${roff(value)}`, roff(flag.help)];
}

function definition(term: string, text: string): string[] {
  return [".TP", `\\fB${roff(term)}\\fR`, roff(text)];
}

/** Text in which nothing is an order to roff. */
function roff(text: string): string {
  const escaped = text.replaceAll("\\", "\\e").replaceAll("-", "\\-");
  return /^[.']/.test(escaped) ? `\\&${escaped}` : escaped;
}
