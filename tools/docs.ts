/**
 * `deno task docs`: writes the references that come from the code, `docs/configuration.md`,
 * `docs/commands.md`, `docs/connectors.md` and `docs/monitoring/status.md`. A test fails when they are not what
 * this writes.
 *
 * Usage: deno run --allow-read --allow-write --allow-env tools/docs.ts
 */
import { fileURLToPath } from "node:url";
import { loadConnectors } from "../connectors/registry.ts";
import type { Connector } from "../connectors/context.ts";
import { connectorsDocument } from "../connectors/support/reference.ts";
import { agentCommand } from "../lib/cli/run_agent.ts";
import { type Command, type Flag, HELP_FLAG, PROGRAM } from "../lib/cli/command.ts";
import { COMMANDS } from "../lib/cli/table.ts";
import {
  configReference,
  type KeyReference,
  keyReferences,
} from "../lib/config/config_reference.ts";
import { type FieldReference, statusReference } from "./status_reference.ts";

/** The files below the repository, each with what it should hold. */
export async function generatedDocs(): Promise<Record<string, string>> {
  const connectors = await loadConnectors();
  return {
    "docs/configuration.md": configuration(connectors),
    "docs/connectors.md": connectorsDocument(connectors),
    "docs/commands.md": commands(),
    "docs/monitoring/status.md": status(),
  };
}

const NOTE = "<!-- Written by `deno task docs`: change the code, not this file. -->\n";

function configuration(connectors: readonly Connector[]): string {
  const [first] = connectors;
  const common = keyReferences(first?.configShape ?? {})
    .filter(({ key }) => connectors.every((one) => !Object.hasOwn(one.ownConfigShape, key)));
  return [
    NOTE,
    "# Configuration\n",
    "An agent reads one file, `testflinger-agent.conf` in the working directory or what `-c FILE` " +
    "names. It is YAML as PyYAML reads it (YAML 1.1: `yes`, `on` and `off` are booleans). A file " +
    "with mistakes stops the agent before it does anything; all of them are listed with line and " +
    `column. \`${PROGRAM} check FILE\` does that without running the agent; see ` +
    "[commands.md](commands.md).\n",
    "```yaml",
    "agent_id: rpi4-1",
    "server_address: https://testflinger.example.com",
    "job_queues: [rpi4, rpi4-1]",
    "test_command: testflinger-device-connector noprovision runtest -c /etc/testflinger-agent/rpi4-1/device.yaml testflinger.json",
    "```\n",
    "A size is a number of bytes or text such as `500 MB` or `1 GiB`.\n",
    "## The agent\n",
    table(configReference()),
    "Keys of the established agent and the connector keys whose value is text are in the " +
    "environment of every phase, under their own names: phase scripts rely on it.\n",
    "## Environment\n",
    grid(["variable", "meaning"], [
      [
        "`INFLUX_HOST`, `INFLUX_PORT`, `INFLUX_USER`, `INFLUX_PW`",
        "if set, points are sent to that InfluxDB (database `agent_jobs`)",
      ],
      [
        "`SSL_CERT_FILE`, `DENO_CERT`",
        "certificates of additional authorities to trust",
      ],
      ["`DENO_TLS_CA_STORE`", "`system`: trust the host's own store"],
      [
        "`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`",
        "proxies, as in other programs",
      ],
      ["`NO_COLOR`", "no colours, even on a terminal"],
    ]) + "\n",
    "## Device connectors\n",
    "The file that `-c` of `testflinger-device-connector`, or the key `connector_config`, names. " +
    "Keys that are not listed are kept: other programs may read the same file.\n",
    table(common),
    ...connectors.flatMap((connector) => [
      `### ${connector.name}\n`,
      `${connector.summary}\n`,
      ...connector.needs.length === 0
        ? []
        : [`To provision it needs ${connector.needs.map((key) => `\`${key}\``).join(" and ")}.\n`],
      ...Object.keys(connector.ownConfigShape).length === 0
        ? ["It has no configuration keys of its own.\n"]
        : [table(keyReferences(connector.ownConfigShape))],
      "`provision_data` of its jobs:\n",
      Object.keys(connector.provisionShape).length === 0
        ? "none of its own.\n"
        : table(keyReferences(connector.provisionShape)),
    ]),
  ].join("\n");
}

function table(keys: readonly KeyReference[]): string {
  const rows = keys.map(({ key, type, required, default: standard, meaning }) => {
    const otherwise = required ? "required" : standard === undefined ? "" : `\`${standard}\``;
    return [`\`${key}\``, cell(type), cell(otherwise), cell(meaning)];
  });
  return `${grid(["key", "type", "default", "meaning"], rows)}\n`;
}

/** A table, its columns as wide as `deno fmt` makes them. */
function grid(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = heads.map((head, column) =>
    Math.max(3, head.length, ...rows.map((cells) => cells[column]?.length ?? 0))
  );
  const line = (cells: readonly string[]) =>
    `| ${cells.map((text, column) => text.padEnd(widths[column] ?? 0)).join(" | ")} |`;
  return [line(heads), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join(
    "\n",
  );
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("\n", " ");
}

function commands(): string {
  return [
    NOTE,
    "# Commands\n",
    `\`${PROGRAM} COMMAND --help\` says the same. \`${PROGRAM} completion bash|zsh|fish\` prints a ` +
    "script with which shells complete commands and options. A command or an option that does not " +
    "exist gets a suggestion and exit status 2.\n",
    grid(["command", "what it does"], [
      [`[\`${PROGRAM}\`](#the-agent-itself)`, agentCommand.summary],
      ...COMMANDS.map(({ name, summary }) => [`[\`${name}\`](#${name})`, cell(summary)]),
    ]) + "\n",
    "## The agent itself\n",
    ...command(agentCommand),
    ...COMMANDS.flatMap((one) => [`## ${one.name}\n`, ...command(one)]),
    "## Exit status\n",
    grid(["status", "meaning"], [
      ["0", "the agent was told to stop; a command succeeded"],
      [
        "1",
        "the agent must be started again (or what `--restart-status` says), or could not start; " +
        "something failed: a phase of `try`, a check of `doctor`, in `status` an agent " +
        "that does not run or hangs, or whose configuration has mistakes (though it may run on with the " +
        "one before), a warning with `check --strict`",
      ],
      [
        "2",
        "the configuration, the job file or the command line is wrong, or names an agent that is not there; nothing was done",
      ],
      ["3", "the request was not carried out within `--timeout`; it stays in force"],
      ["46", "of `device-connector`: a device that only a person can bring back"],
      ["141", "the reader of the output is gone (broken pipe)"],
    ]),
    "",
  ].join("\n");
}

function status(): string {
  const { host, agent } = statusReference();
  const rows = (fields: FieldReference[]) =>
    grid(
      ["field", "type", "", "meaning"],
      fields.map(({ path, type, isOptional, meaning }) => [
        `\`${path}\``,
        cell(type),
        isOptional ? "may be absent" : "",
        cell(meaning),
      ]),
    );
  return [
    NOTE,
    "# What is answered as JSON\n",
    "Times are ISO 8601 in UTC. Fields may be added; those here stay as they are.\n",
    "## `GET /v1/status`: the process and its agents\n",
    `${rows(host)}\n`,
    "## `GET /v1/agents/<id>`: one agent\n",
    rows(agent),
    "",
  ].join("\n");
}

function command({ name, summary, operands, flags, examples }: Command): string[] {
  const words = [PROGRAM, name, "[options]", operands ?? ""].filter((word) => word !== "");
  return [
    `${summary}\n`,
    "```",
    words.join(" "),
    "```\n",
    grid(
      ["option", "meaning"],
      [...flags, HELP_FLAG].map((flag) => [spelled(flag), cell(flag.help)]),
    ) + "\n",
    "Examples:\n",
    "```sh",
    ...examples.flatMap(({ line, does }) => [`# ${does}`, line]),
    "```\n",
  ];
}

function spelled(flag: Flag): string {
  const value = flag.value === undefined ? "" : ` ${flag.value}`;
  const names = [...flag.short === undefined ? [] : [`-${flag.short}`], `--${flag.name}`];
  return names.map((one) => `\`${cell(`${one}${value}`)}\``).join(", ") +
    (flag.repeats === true ? " (may repeat)" : "");
}

if (import.meta.main) {
  const root = fileURLToPath(new URL("..", import.meta.url));
  for (const [file, text] of Object.entries(await generatedDocs())) {
    await Deno.writeTextFile(`${root}/${file}`, text);
  }
}
