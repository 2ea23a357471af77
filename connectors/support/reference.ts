/** What connectors say about themselves, from the schemas that validate. */
import type { Connector } from "../connector.ts";
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
