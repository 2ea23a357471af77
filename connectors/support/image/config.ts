/** Configuration keys of the connectors that write images over ssh. */
import * as z from "zod";
import { WIRES } from "./wire.ts";

export const imageWireShape = {
  image_wire: z.enum(WIRES).default("auto").describe(
    "In which form an image crosses the network: as it came (original), packed anew on its way " +
      "(zstd, lz4), raw, or what the first megabytes show to be the fastest (auto).",
  ),
};
