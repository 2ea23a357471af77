/** What can be read from an agent's phase commands: how they call device connectors, and what a shell runs. */
import type { AgentConfig } from "../../config/agent_config.ts";
import { dirname, isAbsolute, resolve } from "../../path.ts";
import { PHASES } from "../../phases.ts";
import { PROGRAM } from "../command.ts";

/** The names under which `install.sh` puts the program for that purpose, now and formerly. */
const CONNECTOR_PROGRAMS = ["testflinger-device-connector", "snappy-device-agent"];

/** One call, as far as it can be read. */
export interface ConnectorCall {
  /** The configuration's key. */
  key: string;
  connector: string;
  /** Undefined for the key `connector`, which is for every stage. */
  stage: string | undefined;
  /** Path of the device configuration. */
  configFile: string | undefined;
}

/** Each phase's command that has one, by its key. */
export function phaseCommands(config: Partial<AgentConfig>): { key: string; command: string }[] {
  return PHASES.map((phase) => ({
    key: `${phase}_command`,
    command: config[`${phase}_command`] ?? "",
  })).filter(({ command }) => command !== "");
}

/** The calls of device connectors that the configuration in `file` holds. */
export function connectorCalls(config: Partial<AgentConfig>, file: string): ConnectorCall[] {
  const named = config.connector === undefined ? [] : [{
    key: "connector",
    connector: config.connector,
    stage: undefined,
    // Looked for next to the agent's configuration.
    configFile: config.connector_config === undefined
      ? undefined
      : resolve(dirname(file), config.connector_config),
  }];
  return [
    ...named,
    ...phaseCommands(config).flatMap(({ key, command }) =>
      simpleCommands(command).flatMap((simple) => {
        const call = readCall(simple);
        return call === undefined ? [] : [{ key, ...call }];
      })
    ),
  ];
}

function readCall(command: SimpleCommand): Omit<ConnectorCall, "key"> | undefined {
  const [program, ...rest] = command;
  const name = program.split("/").at(-1) ?? "";
  let args: (string | undefined)[];
  if (CONNECTOR_PROGRAMS.includes(name)) args = rest;
  else if (name === PROGRAM && rest[0] === "device-connector") args = rest.slice(1);
  else return undefined;
  const [connector, stage] = args;
  if (connector === undefined || connector.startsWith("-")) return undefined;
  return { connector, stage, configFile: configArgument(args.slice(2)) };
}

function configArgument(args: readonly (string | undefined)[]): string | undefined {
  for (const [index, arg] of args.entries()) {
    if (arg === "-c" || arg === "--config") return args[index + 1];
    if (arg?.startsWith("--config=")) return arg.slice("--config=".length);
  }
  return undefined;
}

/** Whether the path means the same file in every job's folder. */
export function isFixed(configFile: string): boolean {
  return isAbsolute(configFile);
}

/** A word taken literally; undefined where the shell would put something else in its place. */
type Word = string | undefined;

/** The words of one simple command, its program first. */
type SimpleCommand = readonly [program: string, ...rest: Word[]];

const BUILTINS = new Set(
  (". : [ alias bg break cd command continue echo eval exec exit export false fg getopts hash jobs " +
    "kill local printf pwd read readonly return set shift test times trap true type ulimit umask " +
    "unalias unset wait").split(" "),
);

/** Words before a command that are none themselves. */
const PREFIXES = new Set(
  "if then else elif while until do ! { time exec command nohup setsid env".split(" "),
);
/** Words that stand where a command could, and begin none. */
const NO_COMMAND = new Set("fi done esac } for".split(" "));

/** What ends a simple command. */
const SEPARATOR = /[;&|()\n]/;
/** What the shell replaces; inside double quotes only the first two do. */
const EXPANDS = /[$`*?[\]~{}]/;

/** Whether the shell itself does what this word asks for. */
export function isBuiltin(program: string): boolean {
  return BUILTINS.has(program);
}

/** The simple commands in a text for `/bin/sh -c`. */
export function simpleCommands(text: string): SimpleCommand[] {
  const found: SimpleCommand[] = [];
  const functions = new Set<string>();
  for (const words of split(text, functions)) {
    const command = withoutPrefixes(words);
    if (command !== undefined && !functions.has(command[0])) found.push(command);
  }
  return found;
}

function withoutPrefixes(words: Word[]): SimpleCommand | undefined {
  const [first, ...rest] = words;
  if (first === undefined || NO_COMMAND.has(first)) return undefined;
  if (PREFIXES.has(first) || /^[A-Za-z_]\w*=/.test(first)) return withoutPrefixes(rest);
  // An option of one of the prefixes: what follows may be its value.
  return first.startsWith("-") || first === "" ? undefined : [first, ...rest];
}

function split(text: string, functions: Set<string>): Word[][] {
  const commands: Word[][] = [];
  let words: Word[] = [];
  let word = "";
  let state: "between" | "literal" | "expanded" = "between";
  /** The next word is the target of a redirection. */
  let redirected = false;
  const endWord = () => {
    if (state === "between") return;
    if (!redirected) words.push(state === "literal" ? word : undefined);
    redirected = false;
    word = "";
    state = "between";
  };
  const endCommand = () => {
    endWord();
    if (words.length > 0) commands.push(words);
    words = [];
  };
  for (let i = 0; i < text.length; i++) {
    const character = text[i] ?? "";
    const next = text[i + 1] ?? "";
    if (character === "\\") {
      i++;
      if (next === "\n") continue;
      word += next;
      if (state === "between") state = "literal";
    } else if (character === "'" || character === '"') {
      const end = text.indexOf(character, i + 1);
      if (end < 0) return commands;
      const inside = text.slice(i + 1, end);
      // An escaped quote inside would need more care than it is worth.
      if (character === '"' && inside.endsWith("\\")) return commands;
      if (character === '"' && /[$`\\]/.test(inside)) state = "expanded";
      else if (state === "between") state = "literal";
      word += inside;
      i = end;
    } else if (character === "#" && state === "between") {
      const end = text.indexOf("\n", i);
      i = end < 0 ? text.length : end - 1;
    } else if (character === "$" && next === "(" || character === "`") {
      // A command in a command: what follows cannot be told apart from it.
      return commands;
    } else if (character === "<" || character === ">") {
      // Here documents hold text, not commands.
      if (character === "<" && next === "<") return commands;
      if (/^\d+$/.test(word)) {
        word = "";
        state = "between";
      }
      endWord();
      if (next === "&" || next === ">") i++;
      redirected = true;
    } else if (character === "(" && state === "literal" && next === ")") {
      functions.add(word);
      words = [];
      word = "";
      state = "between";
      i++;
    } else if (SEPARATOR.test(character)) {
      endCommand();
    } else if (/\s/.test(character)) {
      endWord();
      if (words.length === 1 && words[0] === "case") return commands;
    } else {
      const isBrace = /[{}]/.test(character) && state === "between" && /^(\s|;|)$/.test(next);
      if (EXPANDS.test(character) && !isBrace && !isTestBracket(character, state, next)) {
        state = "expanded";
      } else if (state === "between") state = "literal";
      word += character;
    }
  }
  endCommand();
  return commands;
}

/** `[ -e x ]`: the program called `[`. */
function isTestBracket(character: string, state: string, next: string): boolean {
  return (character === "[" || character === "]") && state === "between" && /^(\s|;|)$/.test(next);
}
