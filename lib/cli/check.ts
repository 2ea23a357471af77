/** `testflinger-agent check FILE...`: says what is wrong with configuration files. */
import { CONNECTOR_NAMES } from "../../connectors/registry.ts";
import { didYouMean, sourceLines } from "../config/mistake.ts";
import { filesIn } from "../host/configurations.ts";
import { messageOf } from "../message.ts";
import type { CheckReport } from "./check/check_files.ts";
import { type Finding, formatFinding } from "./check/finding.ts";
import {
  type Command,
  type CommandLine,
  DEFAULT_CONFIG,
  FORMAT_FLAG,
  type Io,
  readFormat,
  USAGE_STATUS,
} from "./command.ts";

/** `testflinger-agent check`. */
export const checkCommand: Command = {
  name: "check",
  summary: "Says what is wrong with configuration files of agents and devices; runs nothing.",
  operands: "[FILE...]",
  positionals: { least: 0, most: Infinity },
  flags: [
    {
      name: "config",
      short: "c",
      value: "FILE",
      repeats: true,
      help: `another file to check (default: ${DEFAULT_CONFIG}, else those of the installed host)`,
    },
    {
      name: "config-dir",
      value: "DIR",
      help: "everything that one process would run: DIR/*.conf and DIR/NAME/testflinger-agent.conf",
    },
    {
      name: "connector",
      value: "NAME",
      help: "connector for device configurations that none of the agents in the files names",
    },
    { name: "strict", help: "end with exit status 1 when there are warnings" },
    FORMAT_FLAG,
  ],
  examples: [
    {
      line: "testflinger-agent check /etc/testflinger-agent/*/testflinger-agent.conf",
      does: "all agents of a host, with the device configurations that they name",
    },
    {
      line: "testflinger-agent check --config-dir /etc/testflinger-agent",
      does: "the same for agents in one process, including what two of them share by mistake",
    },
    {
      line: "testflinger-agent check --connector muxpi device.yaml",
      does: "a device configuration by itself",
    },
    {
      line: "testflinger-agent check --strict --format json *.conf",
      does: "machine-readable, before a change is rolled out",
    },
  ],
  run: runCheck,
};

/** There are mistakes. */
const MISTAKES_STATUS = 2;
/** There are warnings, and they were said to count. */
const WARNINGS_STATUS = 1;

async function runCheck(line: CommandLine, io: Io): Promise<number> {
  const format = readFormat(line, io);
  if (format === undefined) return USAGE_STATUS;
  const { connector } = line.values;
  if (connector !== undefined && !CONNECTOR_NAMES.includes(connector)) {
    const meant = didYouMean(connector, CONNECTOR_NAMES);
    io.stderr(
      `there is no device connector '${connector}', ` +
        (meant === undefined
          ? `there are: ${CONNECTOR_NAMES.join(", ")}\n`
          : `did you mean '${meant}'?\n`),
    );
    return USAGE_STATUS;
  }
  const wanted = await filesOf(line, io);
  if (wanted === undefined) return USAGE_STATUS;
  // Loaded only now: the connectors' schemas are no business of an agent that starts.
  const { checkFiles } = await import("./check/check_files.ts");
  const report = await checkFiles(wanted.files, { ...wanted, connector });
  const mistakes = report.findings.filter(({ severity }) => severity === "mistake").length;
  const warnings = report.findings.length - mistakes;
  io.stdout(
    format === "json"
      ? `${JSON.stringify({ ...report, mistakes, warnings }, null, 2)}\n`
      : asText(report, { mistakes, warnings }),
  );
  if (mistakes > 0) return MISTAKES_STATUS;
  return warnings > 0 && line.switches.has("strict") ? WARNINGS_STATUS : 0;
}

/** The files that the command line names, and whether one process runs all agents among them. */
async function filesOf(
  line: CommandLine,
  io: Io,
): Promise<{ files: string[]; inOneProcess: boolean } | undefined> {
  const named = [...line.positionals, ...line.lists.config ?? []];
  let folder = line.values["config-dir"];
  if (folder === undefined && named.length === 0 && !await exists(DEFAULT_CONFIG)) {
    const { installedHostFolder } = await import("./agents/agent_ref.ts");
    folder = await installedHostFolder();
  }
  if (folder === undefined) {
    return { files: named.length === 0 ? [DEFAULT_CONFIG] : named, inOneProcess: false };
  }
  try {
    const files = [...named, ...await filesIn(folder)];
    if (files.length > 0) return { files, inOneProcess: true };
    io.stderr(`There is no agent's configuration in ${folder}\n`);
  } catch (error) {
    io.stderr(`--config-dir must be a folder that can be read: ${messageOf(error)}\n`);
  }
  return undefined;
}

async function exists(file: string): Promise<boolean> {
  return await Deno.stat(file).then(() => true, () => false);
}

/** A warning is often about this host, and not about the file. */
function shown(finding: Finding): string {
  const source = finding.severity === "mistake" ? sourceLines(finding) : "";
  return `${formatFinding(finding)}\n${source}`;
}

function asText(
  { files, findings }: CheckReport,
  { mistakes, warnings }: { mistakes: number; warnings: number },
): string {
  const told = new Set(findings.map(({ file }) => file));
  const good = files.filter(({ file }) => !told.has(file)).map(({ file, kind, connectors }) => {
    if (kind === "agent") return `${file}: the agent's configuration is valid\n`;
    const by = connectors === undefined || connectors.length === 0
      ? " as far as all connectors have it in common (--connector NAME checks more)"
      : ` for ${connectors.join(" and ")}`;
    return `${file}: the device's configuration is valid${by}\n`;
  });
  const count = (amount: number, noun: string) => `${amount} ${noun}${amount === 1 ? "" : "s"}`;
  const sum = `${count(files.length, "file")}: ${count(mistakes, "mistake")}, ${
    count(warnings, "warning")
  }\n`;
  return findings.map(shown).join("") +
    good.join("") + sum;
}
