import * as z from "zod";
import { bmapConfigShape, bmapProvisionShape, imageWireShape } from "../support/image/config.ts";
import type { ConnectorContext } from "../context.ts";
import {
  amount,
  checksumKey,
  type CommonConfig,
  script,
  type ShapeOutput,
} from "../support/config.ts";

/** A file or device on the control host. */
const absolutePath = z.string({ error: "must be a path, in quotes" })
  .regex(/^\/[^\0\n]*[^\0\n/]$/, "must be an absolute path");

/** The configuration keys of `muxpi`. */
export const muxpiConfigShape = {
  agent_name: z.string({ error: "must be a short name without spaces, in quotes" })
    .regex(
      /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/,
      "must be made of letters, digits, '_', '.', '-': it becomes part of paths",
    ).optional()
    .describe("Name of the agent: also the folder below /mnt and /tmp on the control host."),
  test_device: absolutePath.optional().describe(
    "Block device on the control host that the image is written to, where the job names no media.",
  ),
  control_switch_local_cmd: z.string().min(1).default("stm -ts").describe(
    "Command on the control host that connects the storage medium to it.",
  ),
  control_switch_device_cmd: z.string().min(1).default("stm -dut").describe(
    "Command on the control host that connects the storage medium to the device again.",
  ),
  return_both_media: z.boolean().default(true).describe(
    "After a job that chose one of two media, give both back to the device, not only that one.",
  ),
  control_host_reboot_timeout: amount.default(120).describe(
    "Seconds to wait after the control host's reboot before it is polled.",
  ),
  mounted_image_script: script.optional().describe(
    "Commands run on the control host while the image is mounted below /mnt/<agent_name>/<label>; " +
      "failures are only logged.",
  ),
  post_provision_script: script.optional().describe(
    "The same, run after the image is unmounted and before the medium is given back: the " +
      "place for fsck, resize2fs, dd.",
  ),
  ...imageWireShape,
  ...bmapConfigShape,
  verify_flash: z.boolean().default(false).describe(
    "Read back what was written, and compare checksums: while the rest of the image still arrives, where " +
      "the control host's dd knows iflag=direct, else when all is written.",
  ),
};

/** The keys of `provision_data` of `muxpi`. */
export const muxpiProvisionShape = {
  url: z.string().optional().describe(
    "Image to write: raw, or packed with xz, lzma, zstd, gzip, bzip2, lz4, zip; or qcow2.",
  ),
  sha256: checksumKey("Checksum that the file of 'url' must have."),
  use_attachment: z.string().optional().describe(
    "Image below attachments/provision/, instead of 'url'.",
  ),
  ...bmapProvisionShape,
  media: z.string().optional().describe("sd or usb, on boards with two media."),
  create_user: z.boolean().default(true).describe(
    "Prepare the image for a login with test_username and test_password.",
  ),
  boot_check_url: z.string().optional().describe(
    "The device is ready when this URL answers with status 200; $DEVICE_IP stands for its address. " +
      "Unset: when it accepts the agent's ssh key.",
  ),
};

/** What the steps of `muxpi` work with. */
export type MuxpiContext = ConnectorContext<CommonConfig & ShapeOutput<typeof muxpiConfigShape>>;
