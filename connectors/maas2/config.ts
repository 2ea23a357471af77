import * as z from "zod";
import type { ConnectorContext } from "../context.ts";
import { type CommonConfig, positiveNumber, type ShapeOutput } from "../support/config.ts";

/** A list of storage entries; what is in it is validated when it is used. */
const storageEntries = z.array(z.unknown(), { error: "must be a list of storage entries" })
  .meta({ type: "list of mapping" });

/** Who can always log in on what MAAS deploys, by the agent's key. */
export const MACHINE_USER = "ubuntu";

/** The configuration keys of `maas2`. */
export const maasConfigShape = {
  timeout_min: positiveNumber.default(60).describe(
    "Minutes that a deployment may take.",
  ),
  release_timeout_min: positiveNumber.default(5).describe(
    "Minutes that MAAS may say that it is releasing the machine or erasing its disks; " +
      "at least 5 are given.",
  ),
  reset_efi: z.boolean().default(false).describe(
    "Put network boot first in the machine's EFI boot order before it is released.",
  ),
  reset_efi_install_tools: z.boolean().default(false).describe(
    "Install efibootmgr on the machine where it is missing.",
  ),
  clear_tpm: z.boolean().default(false).describe(
    "Have the machine's TPM cleared at the boot of the deployment.",
  ),
  default_disks: storageEntries.optional().describe(
    "Storage layout for jobs that bring no 'disks', in the same form.",
  ),
  always_release: z.boolean().default(true).describe(
    "Cleanup also releases the machine after a job without provision_data.",
  ),
};

/** The keys of `provision_data` of `maas2`. */
export const maasProvisionShape = {
  distro: z.string().min(1).default("jammy").describe("Series or image to deploy."),
  kernel: z.string().min(1).optional().describe("Kernel to deploy (MAAS' hwe_kernel)."),
  user_data: z.string().optional().describe("cloud-init user data, as text or in base64."),
  disks: storageEntries.optional().describe(
    "Storage layout: a list of disk, partition, format and mount entries.",
  ),
  ephemeral: z.boolean().default(false).describe(
    "Deploy into memory only, which needs MAAS 3.5.0 or later.",
  ),
};

/** What the steps of `maas2` work with. */
export type MaasContext = ConnectorContext<CommonConfig & ShapeOutput<typeof maasConfigShape>>;
