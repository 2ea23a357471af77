import * as z from "zod";
import type { ConnectorContext } from "../context.ts";
import { checksumKey, type CommonConfig, directOnly, type ShapeOutput } from "../support/config.ts";

/** The configuration keys of the `oemscript` connectors. */
export const oemConfigShape = {
  oem_recovery_script: z.string().min(1).optional().describe(
    "A script on the agent's host that does the recovery instead of the connector: recovery-from-iso.sh.",
  ),
  insecure_download: z.boolean().default(false).describe(
    "Devices do not check the certificate of the server that an ISO comes from.",
  ),
  oem_preset_dir: z.string().min(1).optional().describe(
    "Folder with a copy of each preset repository; unset: they are cloned from Launchpad each time.",
  ),
};

/** The keys of `provision_data`. */
export const oemProvisionShape = {
  url: z.string().optional().describe("ISO to install: http or https."),
  sha256: checksumKey("SHA-256 that the ISO must have."),
  insecure_download: z.boolean().default(false).describe(
    directOnly("The device does not check the certificate of the server that the ISO comes from."),
  ),
};

/** What the steps work with. */
export type OemContext = ConnectorContext<CommonConfig & ShapeOutput<typeof oemConfigShape>>;

/** The job's `provision_data`, validated. */
export type OemData = ShapeOutput<typeof oemProvisionShape>;
