/** What is wrong with a device connector's configuration file. */
import { loadConnectors } from "../../../connectors/registry.ts";
import type { Connector } from "../../../connectors/context.ts";
import { commonShape, readConfigFile } from "../../../connectors/support/config.ts";
import { didYouMean, quoted } from "../../config/mistake.ts";
import type { YamlResult } from "../../config/yaml_file.ts";
import { type Finding, type Say, sayer } from "./finding.ts";

/** Scripts whose commands the established agent splits at blanks, with no shell that reads them. */
const ONCE_SPLIT = ["reboot_script", "select_master_script", "select_test_script"];

/** What a shell does not take literally. */
const SHELL_READS = /[&;|<>$`()'"\\]|(?<=^|\s)[#~]/;

/** What a device configuration holds, known keys validated. */
export type DeviceConfig = Readonly<Record<string, unknown>>;

/** Every key that some connector knows. */
export async function deviceKeys(): Promise<ReadonlySet<string>> {
  const connectors = await loadConnectors();
  return new Set(connectors.flatMap(({ configShape }) => Object.keys(configShape)));
}

/** Reads a device configuration as the connector will; without one, by the keys that all have. */
export function readDeviceConfig(
  file: string,
  connector?: Connector,
): Promise<YamlResult<DeviceConfig>> {
  return readConfigFile(file, connector?.configShape ?? commonShape);
}

/** By whom a device configuration is read, and for what. */
export interface DeviceCalls {
  /** Undefined: by nobody who is known. */
  connector: Connector | undefined;
  /** Whether the connector's `provision` will be called with it. */
  provisions: boolean;
  /** The same of `firmware_update`. @default false */
  updatesFirmware?: boolean;
}

/** Finds what is wrong with a device configuration. */
export async function checkDevice(
  file: string,
  { connector, provisions, updatesFirmware = false }: DeviceCalls,
): Promise<Finding[]> {
  const result = await readDeviceConfig(file, connector);
  const findings: Finding[] = [
    ...result.ok ? [] : result.mistakes.map((one) => ({ severity: "mistake" as const, ...one })),
    ...result.warnings.map((one) => ({ severity: "warning" as const, ...one })),
  ];
  // What cannot be read at all has been told of.
  if (!result.ok && result.given.size === 0) return findings;
  const values = result.ok ? result.value : result.valid;
  const say = sayer(findings, file, result.placeOf);
  const known = connector === undefined
    ? await deviceKeys()
    : new Set(Object.keys(connector.configShape));
  for (const key of result.given) {
    if (known.has(key)) continue;
    // Other keys may be for other programs that read the file: only what looks like a slip is told.
    const meant = didYouMean(key, known);
    if (meant !== undefined) {
      say("warning", [key], `is not a key of device connectors, did you mean ${quoted(meant)}?`);
    }
  }
  for (const key of ONCE_SPLIT) checkScript(key, values[key], say);
  checkBmc(values, { updatesFirmware, say });
  const isMissing = (key: string) => result.ok ? values[key] === undefined : !result.given.has(key);
  for (const key of provisions ? connector?.needs ?? [] : []) {
    if (isMissing(key)) {
      say("mistake", [key], `is missing, ${connector?.name} cannot provision without it`);
    } else if (Array.isArray(values[key]) && values[key].length === 0) {
      say("warning", [key], `is empty, ${connector?.name} needs it to provision`);
    }
  }
  for (const [key, jobs] of Object.entries(provisions ? connector?.mostlyNeeds ?? {} : {})) {
    if (!isMissing(key)) continue;
    say("warning", [key], `is missing, ${connector?.name} needs it for ${jobs}`);
  }
  return findings;
}

/** The established agent never checked the certificate of a BMC: its configurations do not say how to. */
function checkBmc(
  values: DeviceConfig,
  { updatesFirmware, say }: { updatesFirmware: boolean; say: Say },
): void {
  const { firmware_method: method, bmc, bmc_ca_file: ca, bmc_verify_tls: verify } = values;
  if (ca !== undefined || verify === false || method === "lvfs") return;
  const isHpe = method === "hpe" || bmc !== undefined;
  const mayBeHpe = updatesFirmware && values.maas_user !== undefined &&
    values.node_id !== undefined;
  if (!isHpe && !mayBeHpe) return;
  say(
    "warning",
    ["bmc_ca_file"],
    `is missing: ${
      isHpe ? "" : "if this is an HPE server, its "
    }firmware updates fail without it, ` +
      "unless 'bmc_verify_tls' is false; the established agent did not check certificates of BMCs " +
      "(docs/migrating.md)",
  );
}

/** `rb http://pdu/o?a=1&b=2` is two commands for a shell. */
function checkScript(key: string, commands: unknown, say: Say): void {
  if (!Array.isArray(commands)) return;
  for (const [index, command] of commands.entries()) {
    const [character] = SHELL_READS.exec(String(command)) ?? [];
    if (character === undefined) continue;
    say(
      "warning",
      [key, index],
      `is run by /bin/sh, which reads the ${
        quoted(character)
      } in it; the established agent splits ` +
        `commands at blanks and nothing else: quote what is no shell code (docs/migrating.md)`,
    );
  }
}
