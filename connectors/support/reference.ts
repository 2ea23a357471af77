/** What connectors say about themselves, from the schemas that validate. */
import type { Connector } from "../context.ts";
import { commonShape } from "./config.ts";
import type { ProgramNeed } from "./process/programs.ts";
import { type KeyReference, keyReferences } from "../../lib/config/config_reference.ts";

/** One line for each connector. */
export function listConnectors(connectors: readonly Connector[]): string {
  const width = Math.max(...connectors.map(({ name }) => name.length));
  return connectors.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}\n`).join("");
}

/** All about one connector: what it does, its configuration and its `provision_data`. */
export function describeConnector(connector: Connector): string {
  const own = keyReferences(connector.ownConfigShape);
  const common = keyReferences(connector.configShape)
    .filter(({ key }) => !Object.hasOwn(connector.ownConfigShape, key));
  return [
    `${connector.name}: ${connector.summary}\n`,
    ...(connector.configOptional ? ["It needs no configuration file.\n"] : []),
    `Programs on the agent's host:\n` +
    connector.programs.map((need) => `  ${programWords(need)}\n`).join(""),
    ...connector.controlHostPrograms.length === 0 ? [] : [
      `Programs on the control host:\n` +
      connector.controlHostPrograms.map((need) => `  ${programWords(need)}\n`).join(""),
    ],
    section("Configuration", own, connector.needs),
    section("Configuration that all connectors have", common, connector.needs),
    section("provision_data of the job", keyReferences(connector.provisionShape), []),
  ].join("\n");
}

function section(
  title: string,
  keys: readonly KeyReference[],
  needed: readonly string[],
): string {
  if (keys.length === 0) return `${title}: none\n`;
  return `${title}:\n` + keys.map((key) => entry(key, needed.includes(key.key))).join("");
}

function entry({ key, type, required, default: standard, meaning }: KeyReference, needed: boolean) {
  const facts = [
    type,
    ...(required ? ["required"] : needed ? ["needed to provision"] : []),
    ...(standard === undefined ? [] : [`default ${standard}`]),
  ];
  return `  ${key} (${facts.join(", ")})\n      ${meaning}\n`;
}

const STAGE_TABLE = markdownTable([
  ["stage", "does"],
  [
    "`setup`",
    "of a job that is provisioned, says what is wrong with it and with the device configuration, as " +
    "`provision` would; of another one, what provisioning would need; touches nothing",
  ],
  ["`provision`", "what the sections below say, after telling the device's control host (if any)"],
  ["`runtest` (or `test`)", "runs the job's `test_cmds` on this host"],
  ["`allocate`", "leaves `device-info.json` for the agent, as every stage does"],
  [
    "`reserve`",
    "installs the job's `ssh_keys` on the device and waits until the reservation is over",
  ],
  [
    "`firmware_update`",
    "updates the firmware by LVFS (fwupd on the device), or of HPE servers through their iLO",
  ],
  ["`cleanup`", "nothing; `maas2` releases the machine, `multi` cancels the child jobs"],
]);

const INTRODUCTION = `# Device connectors

A device connector does for one kind of device what the phases of a job ask for. A phase command
runs it as

    testflinger-device-connector <device> <stage> -c CONFIG JOB

in the job's folder; \`testflinger-agent device-connector\` and \`snappy-device-agent\` are the same.
\`CONFIG\` is the device's YAML file, \`JOB\` normally \`testflinger.json\`. \`list\` names the device
types, \`describe <device>\` says what this page says about one.

${STAGE_TABLE}
Exit status: 0 for success, 1 for a failure, 2 for a wrong command line, 46 for a device that only a
person can bring back (the agent goes offline), in \`runtest\` that of the first command that failed.
Why a stage failed is in \`device-connector-error.json\`. SIGTERM, SIGINT and SIGHUP end what is
running and put back what was switched or mounted, within 30 s: an agent whose devices have storage
multiplexers should not have a shorter \`cancel_grace\`.

Each connector says below what its tests run it against. Of the stages that all have, \`runtest\` runs
real commands, \`reserve\` a real ssh-import-id and ssh-copy-id against a real OpenSSH server, and
\`firmware_update\` stand-ins. No test has ever had a real board, multiplexer, MAAS or BMC.

Secrets of a job that appear in what a test prints are masked by the agent, not here. The serial logs
are as the device wrote them.
`;

/** All connectors as one document in Markdown. */
export function connectorsDocument(connectors: readonly Connector[]): string {
  const common = table(keyReferences(commonShape), []);
  return [
    INTRODUCTION,
    `## Configuration that all connectors have\n\n${common}`,
    ...connectors.map(chapter),
  ].join("\n");
}

/** `maas (snap install maas)`. */
function programWords({ name, install, onlyFor }: ProgramNeed): string {
  return `${name} (${install})${onlyFor === undefined ? "" : `, only for ${onlyFor}`}`;
}

function chapter(
  {
    name,
    summary,
    ownConfigShape,
    needs,
    mostlyNeeds,
    configOptional,
    provisionShape,
    programs,
    controlHostPrograms,
    testedAgainst,
  }: Connector,
): string {
  const elsewhere = needs.filter((key) => !Object.hasOwn(ownConfigShape, key));
  const own = keyReferences(ownConfigShape);
  const data = keyReferences(provisionShape);
  return [
    `## ${name}\n\n${summary}\n`,
    ...(configOptional ? ["It needs no configuration file.\n"] : []),
    ...(elsewhere.length === 0
      ? []
      : [`Of the common keys it needs ${elsewhere.map(code).join(", ")} to provision.\n`]),
    ...Object.entries(mostlyNeeds).map(([key, jobs]) =>
      `It needs ${code(key)} to provision ${jobs.replaceAll(/'(\w+)'/g, "`$1`")}.\n`
    ),
    `On the agent's host it calls ${programs.map(programInCode).join("; ")}.\n`,
    ...(controlHostPrograms.length === 0 ? [] : [
      `On the control host it needs, besides what every system has and what the configuration names, ` +
      `${controlHostPrograms.map(programInCode).join("; ")}. \`doctor\` looks for them.\n`,
    ]),
    `Tested against ${testedAgainst}.\n`,
    ...(own.length === 0 ? [] : [`Configuration:\n\n${table(own, needs)}`]),
    ...(data.length === 0 ? [] : [`\`provision_data\` of the job:\n\n${table(data, [])}`]),
  ].join("\n");
}

function table(keys: readonly KeyReference[], needed: readonly string[]): string {
  const rows = keys.map(({ key, type, required, default: standard, meaning }) => {
    const must = required ? "required" : needed.includes(key) ? "needed to provision" : "";
    return [code(key), type, standard === undefined ? must : code(standard), meaning];
  });
  return markdownTable([["key", "type", "default", "meaning"], ...rows]);
}

/** Columns of even width, as the formatter wants them. */
function markdownTable([head = [], ...rows]: readonly string[][]): string {
  const cells = rows.map((row) => row.map((cell) => cell.replaceAll("|", "\\|")));
  const widths = head.map((title, column) =>
    Math.max(title.length, ...cells.map((row) => row[column]?.length ?? 0))
  );
  const rule = widths.map((width) => "-".repeat(width));
  return [head, rule, ...cells].map((row) =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |\n`
  ).join("");
}

function programInCode({ name, onlyFor }: ProgramNeed): string {
  return `${code(name)}${onlyFor === undefined ? "" : ` (only for ${onlyFor})`}`;
}

function code(text: string): string {
  return `\`${text}\``;
}
