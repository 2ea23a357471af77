/** From the command line to a command. */
import { parseArgs } from "@std/cli/parse-args";
import * as z from "zod";
import { didYouMean } from "../config/mistake.ts";
import { agentCommand } from "./run_agent.ts";
import {
  type Command,
  type CommandLine,
  type Flag,
  HELP_FLAG,
  type Io,
  PROGRAM,
  USAGE_STATUS,
} from "./command.ts";
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
  if (first === "" || first.startsWith("-")) return await runNamed(agentCommand, args, io);
  const command = COMMANDS.find(({ name }) => name === first);
  if (command === undefined) {
    const meant = didYouMean(first, COMMANDS.map(({ name }) => name));
    const hint = meant === undefined ? "" : ` Did you mean '${meant}'?`;
    io.stderr(`${PROGRAM}: unknown command '${first}'.${hint}\n`);
    io.stderr(`'${PROGRAM} --help' lists the commands.\n`);
    return USAGE_STATUS;
  }
  return await runNamed(command, rest, io);
}

async function runNamed(command: Command, args: readonly string[], io: Io): Promise<number> {
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

/** A command line, or what is wrong with it in one line. */
type Parsed = { ok: true; line: CommandLine; help: boolean } | {
  ok: false;
  message: string;
};

/** What parseArgs() gives: it comes without types. */
const Arguments = z.looseObject({ _: z.array(z.union([z.string(), z.number()])) });
const Values = z.array(z.string());

/** Every spelling of a flag, without dashes. */
function spellings(flag: Flag): string[] {
  return [flag.name, ...flag.aliases ?? [], ...flag.short === undefined ? [] : [flag.short]];
}

/** Reads `args`, the command's name not among them. */
export function parseCommandLine(command: Command, args: readonly string[]): Parsed {
  const flags = [...command.flags, HELP_FLAG];
  const unknown: string[] = [];
  const raw = Arguments.parse(parseArgs(withNegatives(args, flags), {
    string: ["_", ...flags.filter((flag) => flag.value !== undefined).map((flag) => flag.name)],
    boolean: flags.filter((flag) => flag.value === undefined).map((flag) => flag.name),
    collect: flags.filter((flag) => flag.value !== undefined).map((flag) => flag.name),
    alias: Object.fromEntries(flags.map((flag) => [flag.name, spellings(flag).slice(1)])),
    unknown: (written: string) => {
      if (written.startsWith("-") && written !== "-") unknown.push(written);
    },
  }));
  const first = unknown[0];
  if (first !== undefined) return { ok: false, message: unknownFlag(first, flags) };
  if (raw.help === true) return { ok: true, line: empty(), help: true };

  const values: Record<string, string> = {};
  const lists: Record<string, readonly string[]> = {};
  const switches = new Set<string>();
  for (const flag of command.flags) {
    if (flag.value === undefined) {
      if (raw[flag.name] === true) switches.add(flag.name);
      continue;
    }
    const given = Values.safeParse(raw[flag.name]);
    const all = given.success ? given.data : [];
    const last = all.at(-1);
    if (last === undefined) continue;
    if (all.includes("")) return { ok: false, message: `--${flag.name} needs a ${flag.value}` };
    values[flag.name] = last;
    lists[flag.name] = all;
  }
  const positionals = raw._.map(String);
  const { least, most } = command.positionals;
  if (positionals.length > most) {
    return { ok: false, message: `'${positionals[most]}' is one argument too many` };
  }
  if (positionals.length < least) {
    return { ok: false, message: `${command.operands ?? "an argument"} is missing` };
  }
  return { ok: true, line: { values, lists, switches, positionals }, help: false };
}

/** `--timeout -1` as `--timeout=-1`: a negative number is the value of the option before it, and none itself. */
function withNegatives(args: readonly string[], flags: readonly Flag[]): string[] {
  const joined: string[] = [];
  for (const arg of args) {
    const last = joined.at(-1);
    const flag = flags.find((one) =>
      one.value !== undefined &&
      spellings(one).some((name) => last === `-${name}` || last === `--${name}`)
    );
    if (flag === undefined || !/^-\d/.test(arg) || joined.includes("--")) joined.push(arg);
    else joined.splice(-1, 1, `--${flag.name}=${arg}`);
  }
  return joined;
}

function empty(): CommandLine {
  return { values: {}, lists: {}, switches: new Set(), positionals: [] };
}

function unknownFlag(written: string, flags: readonly Flag[]): string {
  const name = written.replace(/^-+/, "").split("=")[0] ?? "";
  const meant = didYouMean(name, flags.flatMap(spellings));
  const hint = meant === undefined ? "" : `; did you mean --${meant}?`;
  return `unknown option ${written}${hint}`;
}
