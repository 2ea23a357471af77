/** An image as xz, for receivers that take nothing else. */
import type { ConnectorContext } from "../../context.ts";
import { ProvisioningError } from "../errors.ts";
import { expectSuccess } from "../process/runner.ts";
import { type Filtered, filtered, unfiltered } from "./filter.ts";
import { withProgress } from "./image.ts";
import type { Image } from "./source.ts";
import { localUnpacker, UNPACKING_FAILED } from "./wire.ts";

const COMPRESS_TIMEOUT_MS = 3_600_000;

/**
 * Packs an image with xz as it arrives; one that is xz already stays as it is. The fast level of xz on
 * all cores: what the wire saves by a better one is spent many times over.
 *
 * @returns whose stream fails with a ProvisioningError when the image cannot be had or unpacked.
 */
export async function asXz(ctx: ConnectorContext, image: Image): Promise<Filtered> {
  const input = withProgress(ctx, await image.stream(), {
    what: "Sending the image",
    total: image.size,
  });
  if (image.unpacker === "unxz") return unfiltered(input);
  const program = localUnpacker(image.unpacker).join(" ");
  return filtered(ctx, {
    argv: ["/bin/sh", "-c", `{ ${program} || echo '${UNPACKING_FAILED}' >&2; } | xz -T0 -1 -c`],
    input,
    timeoutMs: COMPRESS_TIMEOUT_MS,
    check(result) {
      expectSuccess(result, { step: "compress the image", program: `${program} | xz` });
      if (!result.stderr.includes(UNPACKING_FAILED)) return;
      const why = result.stderr.split(UNPACKING_FAILED)[0]?.trim() ?? "";
      throw new ProvisioningError(`Cannot unpack the image: '${program}' says: ${why}`);
    },
  });
}
