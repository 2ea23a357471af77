import type { Connector } from "./connector.ts";
import { fakeConnector } from "./fake_connector.ts";
import { maas2 } from "./maas2.ts";
import { multi } from "./multi.ts";
import { muxpi } from "./muxpi.ts";
import { noprovision } from "./noprovision.ts";
import { oemrecovery } from "./oemrecovery.ts";

/** The connectors of this version, by their names on the command line. */
export const CONNECTORS: ReadonlyMap<string, Connector> = new Map(
  [
    fakeConnector,
    maas2,
    multi,
    muxpi,
    noprovision,
    oemrecovery,
  ].map((connector) => [connector.name, connector]),
);

/** Names that jobs and configurations in the field use, and that this version does not have. */
export const NOT_IN_THIS_VERSION: readonly string[] = [
  "cm3",
  "control_host_iot",
  "control_host_kvm",
  "dell_oemscript",
  "dragonboard",
  "hp_oemscript",
  "lenovo_oemscript",
  "netboot",
  "oem_autoinstall",
  "oemscript",
];
