/** Completion for shells, from the table of commands: what is added there is completed at once. */
import { STAGES } from "../../connectors/context.ts";
import { CONNECTOR_NAMES } from "../../connectors/registry.ts";
import { agentCommand } from "./agent_command.ts";
import { type Command, type Flag, HELP_FLAG, PROGRAM } from "./command.ts";
import { type SHELLS } from "./completion.ts";
import { COMMANDS } from "./table.ts";

type Shell = typeof SHELLS[number];

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
function operandsOf({ name, operands }: Command): Choices | "file" | "agents" | "none" {
  if (name === "help") return commandNames();
  if (operands?.includes("AGENT")) return "agents";
  if (operands === undefined) return "none";
  if (/^[a-z|]+$/.test(operands)) return operands.split("|");
  return /FILE|yaml/i.test(operands) ? "file" : "none";
}

function commandNames(): string[] {
  return COMMANDS.map(({ name }) => name);
}

function flagsOf(command: Command): Flag[] {
  return [...command.flags, HELP_FLAG];
}

function spellings(flag: Flag): string[] {
  return [`--${flag.name}`, ...flag.short === undefined ? [] : [`-${flag.short}`]];
}

/** The script for a shell. */
export function completionScript(shell: Shell): string {
  switch (shell) {
    case "bash":
      return bash();
    case "zsh":
      return zsh();
    case "fish":
      return fish();
  }
}

/** Agents that are set up and those that run, as shell: completion must not wait for the program. */
const AGENT_NAMES = `_testflinger_agent_names() {
  {
    ls -d /etc/testflinger-agent/*/ 2>/dev/null | sed 's|.*/\\([^/]*\\)/$|\\1|'
    ls /tmp 2>/dev/null | sed -n 's/^testflinger-agent-\\(.*\\)\\.lock$/\\1/p'
  } | sort -u
}
`;

const CONNECTOR_WORDS = () => [...CONNECTOR_NAMES, "list", "describe"];

function bash(): string {
  const commands = [agentCommand, ...COMMANDS];
  const values = new Map<string, string[]>();
  for (const command of commands) {
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
  const wordCases = commands.map((command) => {
    const words = flagsOf(command).flatMap(spellings).join(" ");
    const operands = operandsOf(command);
    const more = command.name === ""
      ? ` words="$words ${commandNames().join(" ")}"`
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
      ${commandNames().join("|")}) command=\${COMP_WORDS[i]}; break ;;
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

function zsh(): string {
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
    const choice = operandsOf(command);
    if (choice === "file") return ["'*:file:_files'"];
    if (choice === "agents") return ["'*:agent:($(_testflinger_agent_names))'"];
    return choice === "none" ? [] : [`'1:${command.name}:(${choice.join(" ")})'`];
  };
  const cases = COMMANDS.filter(({ name }) => name !== "device-connector").map((command) =>
    `    ${command.name})\n      _arguments ${
      [...flagsOf(command).flatMap(argument), ...operands(command)].join(" \\\n        ")
    } ;;\n`
  ).join("");
  const descriptions = COMMANDS.map(({ name, summary }) => `    '${name}:${zshText(summary)}'`)
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
    _arguments ${flagsOf(agentCommand).flatMap(argument).join(" \\\n      ")}
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

function fish(): string {
  const names = commandNames().join(" ");
  const lines = [
    `# fish completion for ${PROGRAM}`,
    "function _testflinger_agent_names",
    "  begin",
    "    for folder in /etc/testflinger-agent/*/; basename $folder; end",
    "    ls /tmp 2>/dev/null | string match -rg '^testflinger-agent-(.*)\\.lock$'",
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
  for (const flag of flagsOf(agentCommand)) option(flag, none);
  for (const command of COMMANDS) {
    lines.push(
      `complete -c ${PROGRAM} -n ${fishText(none)} -a ${command.name} -d ${
        fishText(command.summary)
      }`,
    );
    const condition = `__fish_seen_subcommand_from ${command.name}`;
    for (const flag of flagsOf(command)) option(flag, condition);
    const operands = operandsOf(command);
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
