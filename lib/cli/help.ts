/** What `--help` and the manual page say, from the table of commands. */
import { VERSION } from "../version.ts";
import { type Command, type Flag, HELP_FLAG, PROGRAM } from "./command.ts";

/** Width of the column of flags. */
const COLUMN = 28;
/** Width of the column of commands. */
const NAME_COLUMN = 18;
/** Of the narrowest terminal that people use. */
const WIDTH = 80;

/** The line that begins the help of a command, and a complaint about its command line. */
export function usageLine(command: Command): string {
  const operands = command.operands === undefined ? "" : ` ${command.operands}`;
  const name = command.name === "" ? "" : ` ${command.name}`;
  return `usage: ${PROGRAM}${name} [options]${operands}\n`;
}

/** A line of two columns; what is too long for a terminal goes on below its column. */
function row(left: string, right: string, column = COLUMN): string {
  const [first = "", ...rest] = wrapped(right, WIDTH - column - 2);
  const below = rest.map((line) => `  ${" ".repeat(column)}${line}\n`).join("");
  return left.length >= column
    ? `  ${left}\n  ${" ".repeat(column)}${first}\n${below}`
    : `  ${left.padEnd(column)}${first}\n${below}`;
}

function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width) {
      lines[lines.length - 1] = `${last} ${word}`;
    } else lines.push(word);
  }
  return lines;
}

function spelled(flag: Flag): string {
  const short = flag.short === undefined ? "" : `-${flag.short}, `;
  return `${short}--${flag.name}${flag.value === undefined ? "" : ` ${flag.value}`}`;
}

/** The whole help of one command. */
export function commandHelp(command: Command): string {
  const flags = [...command.flags, HELP_FLAG];
  return `${usageLine(command)}\n${command.summary}\n\nOptions:\n` +
    flags.map((flag) => row(spelled(flag), flag.help)).join("") +
    `\nExamples:\n` +
    command.examples.map(({ line, does }) => `  ${line}\n      ${does}\n`).join("");
}

/** The help of the program. */
export function programHelp(commands: readonly Command[], bare: Command): string {
  return `usage: ${PROGRAM} [-c FILE] [options]      run the agent\n` +
    `       ${PROGRAM} COMMAND [options]        do something else\n\n` +
    `A Testflinger agent: takes jobs from a Testflinger server and runs them on a device.\n\n` +
    `Commands:\n` +
    commands.map(({ name, summary }) => row(name, summary, NAME_COLUMN)).join("") +
    `\nOptions of the agent:\n` +
    bare.flags.map((flag) => row(spelled(flag), flag.help)).join("") +
    row(spelled(HELP_FLAG), HELP_FLAG.help) +
    `\nExamples:\n` +
    bare.examples.map(({ line, does }) => `  ${line}\n      ${does}\n`).join("") +
    `\n'${PROGRAM} COMMAND --help' says more about a command.\n`;
}

/** The page testflinger-agent(1), as roff. The build writes it to `dist/`, and `help --man` prints it. */
export function manPage(commands: readonly Command[], bare: Command): string {
  return [
    `.TH TESTFLINGER\\-AGENT 1 "" "${PROGRAM} ${VERSION}" "User Commands"`,
    ".SH NAME",
    roff(`${PROGRAM} - takes jobs from a Testflinger server and runs them on a device`),
    ".SH SYNOPSIS",
    ...synopsis(bare),
    ...commands.flatMap((command) => [".br", ...synopsis(command)]),
    ".SH DESCRIPTION",
    roff(
      `${PROGRAM} runs on a lab host, one for each device. It asks a Testflinger server for jobs, ` +
        "runs each job's phases, streams their output to the server, and reports the outcome.",
    ),
    ".SH OPTIONS OF THE AGENT",
    ...[...bare.flags, HELP_FLAG].flatMap(option),
    ".SH COMMANDS",
    ...commands.flatMap(section),
    ".SH EXIT STATUS",
    ...definition("0", "It was told to stop, or the command succeeded."),
    ...definition("1", "It must be started again (or --restart-status), or something failed."),
    ...definition(
      "2",
      "The configuration, a job file or the command line is wrong; nothing was done.",
    ),
    ...definition("3", "The request was not carried out within --timeout; it stays in force."),
    ...definition("46", "Of device-connector: a device that only a person can bring back."),
    ...definition("141", "The reader of the output is gone (broken pipe)."),
    ".SH SIGNALS",
    ...definition("SIGUSR1", "Restart as soon as the agent is online and runs no job."),
    ...definition("SIGTERM, SIGINT", "End the running phase, clean up, and stop. Again: at once."),
    ".SH ENVIRONMENT",
    ...definition("TESTFLINGER_SERVER", "The server of submit, results, artifacts and cancel."),
    ...definition("TESTFLINGER_CLIENT_ID", "As whom they log in, where the server wants to know."),
    ...definition(
      "TESTFLINGER_SECRET_KEY",
      "The secret of that client; there is no option for it.",
    ),
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

function section({ name, summary, flags, examples }: Command): string[] {
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
