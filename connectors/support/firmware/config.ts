/** Keys of the device configuration that are about its firmware. Every connector has them. */
import * as z from "zod";

/** lvfs: fwupd on the device. hpe: the server's iLO, from the agent's host. */
const FIRMWARE_METHODS = ["lvfs", "hpe"] as const;
export type FirmwareMethod = typeof FIRMWARE_METHODS[number];

/** A word for the command line of `maas` that is no option. */
const maasWord = z.string({ error: "must be text, in quotes" })
  .regex(/^[^-\s]\S*$/, "must be one word that does not begin with '-'");

export const firmwareShape = {
  firmware_method: z.enum(FIRMWARE_METHODS).optional().describe(
    "How the stage firmware_update works; unset: detected from the device's DMI data.",
  ),
  firmware_dry_run: z.boolean().default(false).describe(
    "The stage firmware_update only says what it would do.",
  ),
  firmware_repository: z.url({ protocol: /^https?$/, error: "must be an http or https URL" })
    .meta({ type: "URL" }).optional().describe(
      "Repository of firmware for HPE servers, such as a mirror; unset: HPE's own.",
    ),
  bmc: z.strictObject({
    address: z.string().describe("Its IP address."),
    user: z.string().min(1).describe("Who logs in."),
    password_file: z.string().min(1).describe("A file with the password in it."),
  }).meta({ type: "mapping" }).optional().describe(
    "The BMC of an HPE server: address, user and password_file; unset: MAAS is asked with maas_user " +
      "and node_id.",
  ),
  bmc_ca_file: z.string().min(1).optional().describe(
    "File with the CA certificates (PEM) to verify the certificate of an HPE server's BMC. Firmware " +
      "updates of such servers need it, unless bmc_verify_tls is false.",
  ),
  bmc_verify_tls: z.boolean().default(true).describe(
    "false: do not check the certificate of an HPE server's BMC. Each update logs a warning.",
  ),
  maas_user: maasWord.optional().describe(
    "Profile that the maas command line client is logged in as.",
  ),
  node_id: maasWord.optional().describe("System id of the machine in MAAS."),
};
