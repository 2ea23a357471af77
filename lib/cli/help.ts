/** What `--help` says, from the table of commands. */
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
