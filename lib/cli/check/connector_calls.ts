/** How an agent's phases call device connectors. */
import { dirname, isAbsolute, resolve } from "node:path";
import type { AgentConfig } from "../../config/agent_config.ts";
import { PHASES } from "../../phases.ts";
import { PROGRAM } from "../command.ts";
import { type SimpleCommand, simpleCommands } from "./shell_commands.ts";

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
