/** Keys that the connectors have in common which write images. */
import * as z from "zod";
import { checksumKey, directOnly } from "../config.ts";
import { WIRES } from "./wire.ts";

/** Configuration of those that write images over ssh. */
export const imageWireShape = {
  image_wire: z.enum(WIRES).default("auto").describe(
    "Form in which an image is sent over the network: unchanged (original), compressed again (zstd, lz4), " +
      "raw, or what the first megabytes show to be the fastest (auto); the host's image cache keeps that for a day.",
  ),
};

/** What a job may say of the block map of its image, and what a configuration says to that. */
export const bmapProvisionShape = {
  bmap: z.string().optional().describe(directOnly(
    "Block map of the image, as bmaptool makes it: a URL; or 'none' to write every block. " +
      "Unset: looked for next to the image.",
    "put it next to the image",
  )),
};

export const bmapConfigShape = {
  image_bmap: z.boolean().default(true).describe(
    "Write only the blocks that the block map next to an image (<image>.bmap) names, and verify " +
      "their checksums. false: every block is written, so that nothing is left of an earlier job.",
  ),
};

/** `provision_data` of those whose one way to an image is a URL. */
export const imageUrlShape = {
  url: z.string().optional().describe(
    "Image to write: http or https, with #sha256=<hex> if wanted.",
  ),
  sha256: checksumKey("SHA-256 that the image must have."),
};
