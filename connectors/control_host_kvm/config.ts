import * as z from "zod";
import { checksumKey, directOnly, script, type ShapeOutput } from "../support/config.ts";
import { controlHostProvisionShape } from "../support/control_host/provision.ts";

const forwarded = z.unknown().meta({ type: "any" });

/** The keys of `provision_data`. All others that begin with autoinstall_ are forwarded, too. */
export const kvmProvisionShape = {
  url: z.string().optional().describe(
    "ISO to boot; with an OEM image the ISO of the second step, by way of the recovery partition.",
  ),
  alloem_url: z.string().optional().describe("OEM image that is installed first."),
  robot_tasks: z.array(z.string(), { error: "must be a list of names" })
    .meta({ type: "list of text" }).optional()
    .describe("Robot Framework tasks of the control host; needed where there is no preset."),
  preset: z.string().optional().describe(
    "Name of a preset that the control host knows, such as desktop-jammy-oem.",
  ),
  oem: z.string().optional().describe(
    "hp, dell or lenovo: how the recovery partition of the second step works.",
  ),
  autoinstall_storage_layout: z.string().optional().describe("Storage layout of the installer."),
  autoinstall_base_user_data: z.string().optional()
    .describe("Base64 of the user data for the installer, a YAML mapping."),
  autoinstall_oem: z.boolean().optional().describe(
    "true: user data for OEM images, included in this program.",
  ),
  cmdline_append: forwarded.optional().describe("Forwarded: kernel parameters of the installer."),
  skip_download: forwarded.optional()
    .describe(directOnly("Forwarded: take the image that the control host has.")),
  wait_until_ssh: forwarded.optional().describe("Forwarded: wait until the device answers on ssh."),
  live_image: forwarded.optional().describe("Forwarded: the image is not installed, only booted."),
  ubuntu_sso_email: z.string().optional().describe("Forwarded: account of the first login."),
  robot_retries: forwarded.optional().describe("Forwarded: how often one of the tasks may fail."),
  reboot_script: script.optional()
    .describe(directOnly("Commands that reset the device, instead of the configuration's.")),
  poweron_script: script.optional()
    .describe(directOnly("Commands that turn it on, instead of the configuration's.")),
  sha256: checksumKey("SHA-256 of the second step's ISO."),
  insecure_download: z.boolean().default(false).describe(
    directOnly("The device does not check the server of the second step's ISO."),
  ),
  ...controlHostProvisionShape,
};

/** The job's `provision_data`, validated. */
export type KvmData = ShapeOutput<typeof kvmProvisionShape>;
