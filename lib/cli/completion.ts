/** `testflinger-agent completion bash|zsh|fish`: what is added to the table of commands is completed at once. */
import { STAGES } from "../../connectors/context.ts";
import { CONNECTOR_NAMES } from "../../connectors/registry.ts";
import { didYouMean } from "../config/mistake.ts";
import {
  type Command,
  type CommandLine,
  type Flag,
  HELP_FLAG,
  type Io,
  PROGRAM,
  USAGE_STATUS,
} from "./command.ts";

/** The shells that there are scripts for. */
export const SHELLS = ["bash", "zsh", "fish"] as const;

/** All that can be completed. */
interface Commands {
  commands: readonly Command[];
  /** The one without a name. */
  bare: Command;
}

/** `testflinger-agent completion`, of all commands in the table. */
export function completionCommand(table: () => Commands): Command {
  return {
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
        line:
          "testflinger-agent completion fish > ~/.config/fish/completions/testflinger-agent.fish",
        does: "for fish",
      },
    ],
    run: (line, io) => Promise.resolve(printScript(line, io, table())),
  };
}

function printScript(line: CommandLine, io: Io, all: Commands): number {
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
  io.stdout(completionScript(shell, all));
  return 0;
}

/** Words that an option or an operand is one of; undefined where it is a file or free text. */
type Choices = readonly string[];

/** What may stand behind an option. */
function valuesOf(flag: Flag): Choices | "file" | "text" {
  if (flag.value === undefined) return "text";
  if (flag.name === "connector") return CONNECTOR_NAMES;
  if (flag.value.includes("|")) return flag.value.split("|");
  return ["FILE", "DIR"].includes(flag.value) ? "file" : "text";
}

/** What may stand for a command's operands. */
function operandsOf(
  { name, operands }: Command,
  commands: readonly Command[],
): Choices | "file" | "agents" | "none" {
  if (name === "help") return namesOf(commands);
  if (operands?.includes("AGENT")) return "agents";
  if (operands === undefined) return "none";
  if (/^[a-z|]+$/.test(operands)) return operands.split("|");
  return /FILE|yaml/i.test(operands) ? "file" : "none";
}

function namesOf(commands: readonly Command[]): string[] {
  return commands.map(({ name }) => name);
}

function flagsOf(command: Command): Flag[] {
  return [...command.flags, HELP_FLAG];
}

function spellings(flag: Flag): string[] {
  return [`--${flag.name}`, ...flag.short === undefined ? [] : [`-${flag.short}`]];
}

/** The script for a shell. */
export function completionScript(shell: typeof SHELLS[number], all: Commands): string {
  return { bash, zsh, fish }[shell](all);
}

/**
 * Agents that are set up and those that run, for every shell: completion must not wait for the program. A
 * folder has its agent's name, which counts for those who may not read the configuration in it.
 */
const FIND_NAMES = [
  "find /etc/testflinger-agent -mindepth 1 -maxdepth 1 -type d -printf '%f\\n' 2>/dev/null",
  "find /etc/testflinger-agent -name '*.conf' -exec grep -hs '^agent_id:' '{}' + 2>/dev/null | " +
  `sed "s/^agent_id: *//; s/ *#.*//; s/[\\"']//g"`,
  "ls /tmp 2>/dev/null | sed -n 's/^testflinger-agent-\\(.*\\)\\.lock$/\\1/p'",
];

const AGENT_NAMES = `_testflinger_agent_names() {
  {
${FIND_NAMES.map((line) => `    ${line}\n`).join("")}  } | sort -u
}
`;

const CONNECTOR_WORDS = () => [...CONNECTOR_NAMES, "list", "describe"];

function bash({ commands, bare }: Commands): string {
  const values = new Map<string, string[]>();
  for (const command of [bare, ...commands]) {
    for (const flag of flagsOf(command)) {
      const choice = valuesOf(flag);
      if (flag.value === undefined) continue;
      const reply = choice === "file"
        ? 'COMPREPLY=($(compgen -f -- "$cur"))'
        : choice === "text"
        ? ":"
        : `COMPREPLY=($(compgen -W '${choice.join(" ")}' -- "$cur"))`;
      for (const spelling of spellings(flag)) {
        values.set(reply, [...values.get(reply) ?? [], `${command.name}:${spelling}`]);
      }
    }
  }
  const valueCases = [...values].map(([reply, patterns]) =>
    `    ${[...new Set(patterns)].join("|")}) ${reply}; return ;;\n`
  ).join("");
  const wordCases = [bare, ...commands].map((command) => {
    const words = flagsOf(command).flatMap(spellings).join(" ");
    const operands = operandsOf(command, commands);
    const more = command.name === ""
      ? ` words="$words ${namesOf(commands).join(" ")}"`
      : operands === "file"
      ? " files=yes"
      : operands === "none"
      ? ""
      : operands === "agents"
      ? ' words="$words $(_testflinger_agent_names)"'
      : ` words="$words ${operands.join(" ")}"`;
    return `    '${command.name}') words='${words}';${more} ;;\n`;
  }).join("");
  return `# bash completion for ${PROGRAM}
${AGENT_NAMES}_testflinger_agent() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]}
  local command='' words='' files='' i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case \${COMP_WORDS[i]} in
      ${namesOf(commands).join("|")}) command=\${COMP_WORDS[i]}; break ;;
    esac
  done
  if [ "$command" = device-connector ]; then
    case $((COMP_CWORD - i)) in
      1) COMPREPLY=($(compgen -W '${CONNECTOR_WORDS().join(" ")}' -- "$cur")) ;;
      2) COMPREPLY=($(compgen -W '${STAGES.join(" ")}' -- "$cur")) ;;
      *) COMPREPLY=($(compgen -W '-c --config --help' -- "$cur") $(compgen -f -- "$cur")) ;;
    esac
    return
  fi
  case $command:$prev in
${valueCases}  esac
  case $command in
${wordCases}  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  [ -z "$files" ] || COMPREPLY+=($(compgen -f -- "$cur"))
}
complete -o filenames -F _testflinger_agent ${PROGRAM}
`;
}

/** For zsh's single quotes, inside of which a colon and brackets have a meaning to _arguments. */
function zshText(text: string): string {
  return text.replaceAll("'", "'\\''").replaceAll(/[[\]:]/g, "\\$&");
}

function zsh({ commands, bare }: Commands): string {
  const argument = (flag: Flag): string[] => {
    const choice = valuesOf(flag);
    const value = flag.value === undefined
      ? ""
      : choice === "file"
      ? ":file:_files"
      : choice === "text"
      ? `:${flag.value}:`
      : `:${flag.name}:(${choice.join(" ")})`;
    const many = flag.repeats === true ? "*" : "";
    return spellings(flag).map((one) => `'${many}${one}[${zshText(flag.help)}]${value}'`);
  };
  const operands = (command: Command): string[] => {
    const choice = operandsOf(command, commands);
    if (choice === "file") return ["'*:file:_files'"];
    if (choice === "agents") return ["'*:agent:($(_testflinger_agent_names))'"];
    return choice === "none" ? [] : [`'1:${command.name}:(${choice.join(" ")})'`];
  };
  const cases = commands.filter(({ name }) => name !== "device-connector").map((command) =>
    `    ${command.name})\n      _arguments ${
      [...flagsOf(command).flatMap(argument), ...operands(command)].join(" \\\n        ")
    } ;;\n`
  ).join("");
  const descriptions = commands.map(({ name, summary }) => `    '${name}:${zshText(summary)}'`)
    .join("\n");
  return `#compdef ${PROGRAM}
# zsh completion for ${PROGRAM}
${AGENT_NAMES}_testflinger_agent() {
  local curcontext=$curcontext state line
  local -a commands
  commands=(
${descriptions}
  )
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe command commands
    return
  fi
  local command=$words[2]
  if (( ! \${commands[(I)$command:*]} )); then
    _arguments ${flagsOf(bare).flatMap(argument).join(" \\\n      ")}
    return
  fi
  shift words
  (( CURRENT-- ))
  case $command in
    device-connector)
      _arguments '1:device:(${CONNECTOR_WORDS().join(" ")})' '2:stage:(${STAGES.join(" ")})' \\
        '(-c --config)'{-c,--config}'[the device configuration]:file:_files' '3:job:_files' ;;
${cases}  esac
}
if [[ $funcstack[1] == _testflinger-agent ]]; then
  _testflinger_agent "$@"
else
  compdef _testflinger_agent ${PROGRAM}
fi
`;
}

function fishText(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}

function fish({ commands, bare }: Commands): string {
  const names = namesOf(commands).join(" ");
  const lines = [
    `# fish completion for ${PROGRAM}`,
    "function _testflinger_agent_names",
    "  begin",
    ...FIND_NAMES.map((line) => `    ${line}`),
    "  end | sort -u",
    "end",
    `complete -c ${PROGRAM} -f`,
  ];
  const option = (flag: Flag, condition: string) => {
    const choice = valuesOf(flag);
    const value = flag.value === undefined
      ? ""
      : choice === "file"
      ? " -r -F"
      : choice === "text"
      ? " -x"
      : ` -x -a ${fishText(choice.join(" "))}`;
    const short = flag.short === undefined ? "" : ` -s ${flag.short}`;
    lines.push(
      `complete -c ${PROGRAM} -n ${fishText(condition)} -l ${flag.name}${short}${value} -d ${
        fishText(flag.help)
      }`,
    );
  };
  const none = `not __fish_seen_subcommand_from ${names}`;
  for (const flag of flagsOf(bare)) option(flag, none);
  for (const command of commands) {
    lines.push(
      `complete -c ${PROGRAM} -n ${fishText(none)} -a ${command.name} -d ${
        fishText(command.summary)
      }`,
    );
    const condition = `__fish_seen_subcommand_from ${command.name}`;
    for (const flag of flagsOf(command)) option(flag, condition);
    const operands = operandsOf(command, commands);
    if (operands === "file") {
      lines.push(`complete -c ${PROGRAM} -n ${fishText(condition)} -F`);
    } else if (operands === "agents") {
      lines.push(
        `complete -c ${PROGRAM} -n ${fishText(condition)} -a '(_testflinger_agent_names)'`,
      );
    } else if (operands !== "none") {
      lines.push(
        `complete -c ${PROGRAM} -n ${fishText(condition)} -a ${fishText(operands.join(" "))}`,
      );
    }
  }
  const connector = "__fish_seen_subcommand_from device-connector";
  lines.push(
    `complete -c ${PROGRAM} -n ${fishText(connector)} -a ${
      fishText([...CONNECTOR_WORDS(), ...STAGES].join(" "))
    }`,
  );
  return `${lines.join("\n")}\n`;
}
