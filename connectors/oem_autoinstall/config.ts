import * as z from "zod";
import type { ConnectorContext } from "../context.ts";
import { checksumKey, type CommonConfig, directOnly, type ShapeOutput } from "../support/config.ts";
import { controlHostProvisionShape } from "../support/control_host/provision.ts";

/** What a control host can boot on the device. */
const ISO_TYPES = ["bootstrap", "stock", "bios", "dummyefi"] as const;

const attachment = (what: string) =>
  z.string().optional().describe(`Attachment of the phase provision: ${what}`);

/** The keys of `provision_data` of `oem_autoinstall`. */
export const autoinstallProvisionShape = {
  control_host_iso_url: z.string().optional().describe(
    "ISO that the control host boots on the device.",
  ),
  control_host_iso_type: z.enum(ISO_TYPES, { error: `must be one of ${ISO_TYPES.join(", ")}` })
    .optional().describe("What that ISO is."),
  update_user_data: z.boolean().default(false).describe("Passed on to the control host."),
  provisioning_timeout: controlHostProvisionShape.provisioning_timeout.describe(directOnly(
    controlHostProvisionShape.provisioning_timeout.description ?? "",
  )),
  url: z.string().optional().describe(
    "OEM ISO for the device's reset partition: http or https, with #sha256=<hex> if wanted.",
  ),
  sha256: checksumKey("SHA-256 that this ISO must have."),
  token_file: attachment(
    "credentials for the download: an rclone configuration, or username: and token:",
  ),
  user_data: attachment("cloud-init user data; absent: the one included in this program."),
  redeploy_cfg: attachment("configuration of GRUB; absent: the one included in this program."),
  authorized_keys: attachment("public keys that may log in on the installed system."),
};

/** The job's `provision_data`, validated. */
export type AutoinstallData = ShapeOutput<typeof autoinstallProvisionShape>;

/** What the steps work with. */
export type AutoinstallContext = ConnectorContext<CommonConfig>;
