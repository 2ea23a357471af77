/** What is wrong with a device connector's configuration file. */
import { loadConnectors } from "../../../connectors/registry.ts";
import type { Connector } from "../../../connectors/context.ts";
import { commonShape, readConfigFile } from "../../../connectors/support/config.ts";
import { quoted } from "../../config/mistake.ts";
import { didYouMean } from "../../config/spelling.ts";
import type { YamlResult } from "../../config/yaml_file.ts";
import { type Finding, sayer } from "./finding.ts";

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

/**
 * Finds what is wrong with a device configuration.
 *
 * @param provisions whether the connector's `provision` will be called with it.
 */
export async function checkDevice(
  file: string,
  { connector, provisions }: { connector: Connector | undefined; provisions: boolean },
): Promise<Finding[]> {
  const result = await readDeviceConfig(file, connector);
  if (!result.ok) return result.mistakes.map((mistake) => ({ severity: "mistake", ...mistake }));
  const findings: Finding[] = result.warnings.map((one) => ({ severity: "warning", ...one }));
  const say = sayer(findings, file, result.placeOf);
  const known = connector === undefined
    ? await deviceKeys()
    : new Set(Object.keys(connector.configShape));
  for (const key of Object.keys(result.value)) {
    if (known.has(key)) continue;
    // Other keys are for whoever reads the file besides: only what looks like a slip is told.
    const meant = didYouMean(key, known);
    if (meant !== undefined) {
      say("warning", [key], `is not a key of device connectors, did you mean ${quoted(meant)}?`);
    }
  }
  for (const key of provisions ? connector?.needs ?? [] : []) {
    if (result.value[key] === undefined) {
      say("mistake", [key], `is missing, ${connector?.name} cannot provision without it`);
    }
  }
  return findings;
}
