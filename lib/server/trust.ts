import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";

/**
 * The certificates of the file that `SSL_CERT_FILE` names. The runtime honours `DENO_CERT` and
 * `DENO_TLS_CA_STORE` by itself, this one only together with the system's store.
 */
export function certificatesOfEnvironment(log: Log): string[] {
  return readCertificates("SSL_CERT_FILE", log);
}

/** The same, and those of `DENO_CERT`, which `node:https` does not honour by itself. */
export function certificatesForNode(log: Log): string[] {
  return [...readCertificates("SSL_CERT_FILE", log), ...readCertificates("DENO_CERT", log)];
}

/** Whether the operator has named the system's certificates, which `fetch` then honours. */
export function usesSystemStore(): boolean {
  const stores = Deno.env.get("DENO_TLS_CA_STORE") ?? "";
  return stores.split(",").some((store) => store.trim() === "system");
}

function readCertificates(variable: string, log: Log): string[] {
  const file = Deno.env.get(variable);
  if (file === undefined || file === "") return [];
  let text: string;
  try {
    text = Deno.readTextFileSync(file);
  } catch (error) {
    const reason = messageOf(error);
    log.error(`Cannot read the certificates that ${variable} names: ${reason}`);
    return [];
  }
  const found = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (found.length === 0) {
    log.error(`There is no certificate in ${file}, which ${variable} names: PEM is expected`);
  }
  return found;
}

/** The proxy settings of the environment, for `node:http`, which wants to be told. */
export function proxiesOfEnvironment(): Record<string, string> {
  const names = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
  const settings: Record<string, string> = {};
  for (const name of names.flatMap((upper) => [upper.toLowerCase(), upper])) {
    const value = Deno.env.get(name);
    if (value !== undefined && value !== "") settings[name] = value;
  }
  return settings;
}
