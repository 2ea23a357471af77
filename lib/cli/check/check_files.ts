/** Checks configuration files, each by itself and all of them against each other. */
import * as z from "zod";
import { CONNECTOR_NAMES, loadConnector } from "../../../connectors/registry.ts";
import { AgentConfig, loadAgentConfig } from "../../config/agent_config.ts";
import { quoted } from "../../config/mistake.ts";
import { readYamlFile } from "../../config/yaml_file.ts";
import { sameIdWords } from "../../host/configurations.ts";
import { dirname, join, resolve } from "../../path.ts";
import { withDeviceFile } from "../read_config.ts";
import { checkAgent } from "./agent_file.ts";
import { connectorCalls, isFixed } from "./phase_commands.ts";
import { checkDevice, deviceKeys } from "./device_file.ts";
import { type Finding, type Say, sayer } from "./finding.ts";

/** Beside a configuration: read by the unit of an agent that has one of its own. */
const ENVIRONMENT_FILE = "environment";

/** One file that was looked at. */
export interface CheckedFile {
  file: string;
  /** `unknown` where it cannot be told, because the file cannot be read at all. */
  kind: "agent" | "device" | "unknown";
  /** Of an agent's file that is valid. */
  agent_id?: string;
  /** By which connectors a device's file was judged; none: by the keys that all have. */
  connectors?: string[];
}

/** Everything that was found. */
export interface CheckReport {
  files: CheckedFile[];
  /** By file, in the order of its lines. */
  findings: Finding[];
}

/** What belongs to an agent. */
interface Agent {
  file: string;
  /** The keys that are right, defaults included. */
  config: Partial<AgentConfig>;
  say: Say;
}

/** How one device file is used. */
interface DeviceUse {
  file: string;
  connector: string;
  provisions: boolean;
  updatesFirmware?: boolean;
  /** The agents that use it. */
  agents: Set<string>;
}

/** What to look at. */
export interface CheckOptions {
  /** Judges device files that no agent among the files uses. */
  connector?: string | undefined;
  /** Whether to look at agents' folders on this host. @default true */
  withFolders?: boolean;
  /** Whether one process runs all agents among the files. @default false */
  inOneProcess?: boolean;
}

/** Checks the files, and the device configurations that agents among them name. */
export async function checkFiles(
  files: readonly string[],
  { connector, withFolders = true, inOneProcess = false }: CheckOptions = {},
): Promise<CheckReport> {
  const checked: CheckedFile[] = [];
  const findings: Finding[] = [];
  const agents: Agent[] = [];
  const devices: { file: string; real: string }[] = [];
  const seen = new Set<string>();

  for (const file of files) {
    const real = await realPath(file);
    if (seen.has(real)) continue;
    seen.add(real);
    const kind = await kindOf(file, { findings, connector });
    if (kind === "device") devices.push({ file, real });
    else if (kind === "unknown") checked.push({ file, kind });
    else checked.push({ file, kind, ...await readAgent(file, { agents, findings }) });
  }

  const uses = new Map<string, DeviceUse[]>();
  for (const agent of agents) {
    await checkAgent(agent.config, { ...agent, withFolders });
    if (inOneProcess) await checkMember(agent);
    await collectUses(agent, uses);
  }
  compareAgents(agents, inOneProcess);

  for (const { file, real } of devices) {
    if (!uses.has(real)) {
      const unused: DeviceUse[] = connector === undefined
        ? []
        : [{ file, connector, provisions: true, agents: new Set() }];
      uses.set(real, unused);
    }
    // The name by which it was asked for.
    for (const use of uses.get(real) ?? []) use.file = file;
    if (uses.get(real)?.length === 0) {
      findings.push(...await checkDevice(file, { connector: undefined, provisions: false }));
      checked.push({ file, kind: "device", connectors: [] });
    }
  }
  for (const group of uses.values()) {
    const [first] = group;
    if (first === undefined) continue;
    const names = group.map((use) => use.connector);
    checked.push({ file: first.file, kind: "device", connectors: names });
    const found = await Promise.all(
      group.map(async ({ file, connector, ...calls }) =>
        checkDevice(file, { connector: await loadConnector(connector), ...calls })
      ),
    );
    findings.push(...withoutRepetitions(found.flat()));
    shared(group, findings);
  }
  const order = new Map(checked.map(({ file }, index) => [file, index]));
  findings.sort((a, b) =>
    (order.get(a.file) ?? 0) - (order.get(b.file) ?? 0) || a.line - b.line || a.column - b.column
  );
  return { files: checked, findings };
}

const Anything = z.looseObject({});

/**
 * Which of the two kinds of file this is, by the keys that it has. Where a connector is named, what has no
 * key of an agent is a device's.
 */
async function kindOf(
  file: string,
  { findings, connector }: { findings: Finding[]; connector: string | undefined },
): Promise<CheckedFile["kind"]> {
  const result = await readYamlFile(file, Anything);
  if (!result.ok) {
    findings.push(...result.mistakes.map((one) => ({ severity: "mistake" as const, ...one })));
    return "unknown";
  }
  const keys = Object.keys(result.value);
  const agentKeys = keys.filter((key) => Object.hasOwn(AgentConfig.shape, key)).length;
  if (connector !== undefined && agentKeys === 0) return "device";
  const known = await deviceKeys();
  return keys.filter((key) => known.has(key)).length > agentKeys ? "device" : "agent";
}

async function readAgent(
  file: string,
  { agents, findings }: { agents: Agent[]; findings: Finding[] },
): Promise<{ agent_id?: string }> {
  const result = await loadAgentConfig(file);
  const config = await withDeviceFile(result.ok ? result.value : result.valid, file);
  findings.push(
    ...result.ok ? [] : result.mistakes.map((one) => ({ severity: "mistake" as const, ...one })),
    ...result.warnings.map((one) => ({ severity: "warning" as const, ...one })),
  );
  agents.push({ file, config, say: sayer(findings, file, result.placeOf) });
  return config.agent_id === undefined ? {} : { agent_id: config.agent_id };
}

/** What an agent with a process of its own may have, and one among others not. */
async function checkMember({ file, say }: Agent): Promise<void> {
  if (await Deno.stat(join(dirname(file), ENVIRONMENT_FILE)).then(() => true, () => false)) {
    say(
      "warning",
      [],
      `the file '${ENVIRONMENT_FILE}' next to it is for an agent with its own process, and is not ` +
        "read: what is for all agents belongs into /etc/testflinger-agent/environment, what is for " +
        "this one's jobs into its commands",
    );
  }
}

async function collectUses(
  { file, config, say }: Agent,
  uses: Map<string, DeviceUse[]>,
): Promise<void> {
  for (const { key, connector, stage, configFile } of connectorCalls(config, file)) {
    if (configFile === undefined || !isFixed(configFile) || !CONNECTOR_NAMES.includes(connector)) {
      continue;
    }
    const place = key === "connector" ? "connector_config" : key;
    if (!await exists(configFile)) {
      say("mistake", [place], `there is no file ${quoted(configFile)}, a device configuration`);
      continue;
    }
    const real = await realPath(configFile);
    const group = uses.get(real) ?? [];
    uses.set(real, group);
    let use = group.find((one) => one.connector === connector);
    if (use === undefined) {
      use = { file: configFile, connector, provisions: false, agents: new Set() };
      group.push(use);
    }
    use.provisions ||= stage === "provision" || stage === undefined;
    use.updatesFirmware ||= stage === "firmware_update";
    use.agents.add(file);
  }
}

/** One device cannot run two agents' jobs at a time. */
function shared(group: readonly DeviceUse[], findings: Finding[]): void {
  const agents = [...new Set(group.flatMap((use) => [...use.agents]))];
  const file = group[0]?.file;
  if (file === undefined || agents.length < 2) return;
  findings.push({
    severity: "warning",
    file,
    line: 0,
    column: 0,
    path: "",
    message: `is the device of ${agents.length} agents, which would disturb each other: ${
      agents.join(", ")
    }`,
  });
}

/** What must not be the same for two agents on a host. */
function compareAgents(agents: readonly Agent[], inOneProcess: boolean): void {
  const ids = new Map<string, Agent[]>();
  const markers = new Map<string, string>();
  const ports = new Map<string, string>();
  const logs = new Map<string, string>();
  for (const { file, config, say } of agents) {
    const { agent_id: id, metrics_host, metrics_port, logging_basedir } = config;
    const log = logging_basedir === undefined ? undefined : resolve(logging_basedir);
    const sameLog = log === undefined ? undefined : logs.get(log);
    if (sameLog !== undefined) {
      say(
        "warning",
        ["logging_basedir"],
        `${
          quoted(log ?? "")
        } is that of ${sameLog} too: both write one log, whose lines have their ` +
          "names; give each its own folder",
      );
    }
    if (log !== undefined) logs.set(log, sameLog ?? file);
    if (id === undefined) continue;
    const sameId = ids.get(id);
    ids.set(id, [...sameId ?? [], { file, config, say }]);
    // Markers in /tmp also count with the dashes of the id removed.
    const marker = id.replaceAll("-", "");
    const sameMarker = sameId === undefined ? markers.get(marker) : undefined;
    if (sameMarker !== undefined) {
      say(
        "warning",
        ["agent_id"],
        `${
          quoted(id)
        } without its dashes is the id of ${sameMarker} too: a marker file meant for ` +
          "one of the two may reach the other",
      );
    }
    markers.set(marker, markers.get(marker) ?? file);
    if (metrics_port === undefined) continue;
    const address = `${metrics_host}:${metrics_port}`;
    const samePort = ports.get(address);
    const [first] = ports;
    if (inOneProcess) {
      // One endpoint serves all of them, at the first address that is named.
      if (first !== undefined && first[0] !== address) {
        say(
          "warning",
          ["metrics_port"],
          `${address} is not opened: one endpoint serves all agents of the process, at ${
            first[0]
          } of ${first[1]}; remove the key here`,
        );
      }
    } else if (samePort !== undefined) {
      say(
        "warning",
        ["metrics_port"],
        `${metrics_port} is the port of ${samePort} too: choose another`,
      );
    }
    ports.set(address, samePort ?? file);
  }
  // Which of them is wrong only a person knows.
  for (const [id, same] of ids) {
    for (const { file, say } of same.length > 1 ? same : []) {
      const others = same.filter((one) => one.file !== file).map((one) => one.file);
      say("mistake", ["agent_id"], sameIdWords(id, others));
    }
  }
}

function withoutRepetitions(findings: readonly Finding[]): Finding[] {
  return [...new Map(findings.map((one) => [JSON.stringify(one), one])).values()];
}

async function exists(file: string): Promise<boolean> {
  // What is there and cannot be read is reported where it is read.
  return await Deno.stat(file).then(
    () => true,
    (error) => !(error instanceof Deno.errors.NotFound),
  );
}

async function realPath(file: string): Promise<string> {
  return await Deno.realPath(file).catch(() => file);
}
