import type { Connector } from "./context.ts";

/** The connectors of this version, by their names on the command line. */
const LOADERS: Readonly<Record<string, () => Promise<Connector>>> = {
  cm3: async () => (await import("./cm3.ts")).cm3,
  control_host_iot: async () => (await import("./control_host_iot.ts")).controlHostIot,
  control_host_kvm: async () => (await import("./control_host_kvm.ts")).controlHostKvm,
  dell_oemscript: async () => (await import("./oemscript.ts")).dellOemscript,
  dragonboard: async () => (await import("./dragonboard.ts")).dragonboard,
  fake_connector: async () => (await import("./fake_connector.ts")).fakeConnector,
  hp_oemscript: async () => (await import("./oemscript.ts")).hpOemscript,
  lenovo_oemscript: async () => (await import("./oemscript.ts")).lenovoOemscript,
  maas2: async () => (await import("./maas2.ts")).maas2,
  multi: async () => (await import("./multi.ts")).multi,
  muxpi: async () => (await import("./muxpi.ts")).muxpi,
  netboot: async () => (await import("./netboot.ts")).netboot,
  noprovision: async () => (await import("./noprovision.ts")).noprovision,
  oem_autoinstall: async () => (await import("./oem_autoinstall.ts")).oemAutoinstall,
  oemrecovery: async () => (await import("./oemrecovery.ts")).oemrecovery,
  oemscript: async () => (await import("./oemscript.ts")).oemscript,
};

/** Their names, sorted. */
export const CONNECTOR_NAMES: readonly string[] = Object.keys(LOADERS);

/** Loads the connector of that name, and no other one; undefined where there is none. */
export async function loadConnector(name: string): Promise<Connector | undefined> {
  return Object.hasOwn(LOADERS, name) ? await LOADERS[name]?.() : undefined;
}

/** Loads all connectors, in the order of their names. */
export async function loadConnectors(): Promise<Connector[]> {
  return await Promise.all(Object.values(LOADERS).map((load) => load()));
}
