/** An image as xz, for receivers that take nothing else. */
import type { ConnectorContext } from "../../context.ts";
import { ProvisioningError } from "../errors.ts";
import { expectSuccess } from "../process/runner.ts";
import { UNPACKING_FAILED } from "./wire.ts";
import { fileStream, rawFromQcow2, sniffImage, unpacker, withProgress } from "./image.ts";

const COMPRESS_TIMEOUT_MS = 3_600_000;

/**
 * Makes `<path>.xz` of an image and removes the image itself, also where that fails. One that is xz already is only renamed.
 * The fast level of xz on all cores: what the wire saves by a better one is spent many times over.
 *
 * @returns the path of the result.
 * @throws ProvisioningError when it is no image, or cannot be unpacked.
 */
export async function recompressToXz(ctx: ConnectorContext, path: string): Promise<string> {
  const result = `${path}.xz`;
  await Deno.remove(result).catch(() => {});
  const format = await sniffImage(path);
  if (format === "xz") {
    await Deno.rename(path, result);
    return result;
  }
  const program = format === "qcow2" ? "cat" : unpacker(format);
  let source = path;
  let isComplete = false;
  try {
    if (format === "qcow2") source = await rawFromQcow2(ctx, path);
    const ended = await ctx.runner.run(
      [
        "/bin/sh",
        "-c",
        `{ ${program} || echo '${UNPACKING_FAILED}' >&2; } | xz -T0 -1 -c > "$1"`,
        "sh",
        result,
      ],
      {
        timeoutMs: COMPRESS_TIMEOUT_MS,
        input: withProgress(ctx, await fileStream(source), {
          what: "Compressing the image with xz",
          total: (await Deno.stat(source)).size,
        }),
      },
    );
    expectSuccess(ended, { step: "compress the image", program: `${program} | xz` });
    if (ended.stderr.includes(UNPACKING_FAILED)) {
      const why = ended.stderr.split(UNPACKING_FAILED)[0]?.trim() ?? "";
      throw new ProvisioningError(`Cannot unpack the image: '${program}' says: ${why}`);
    }
    isComplete = true;
    return result;
  } finally {
    // A disk that is full of images is no use to the job's other phases.
    const unneeded = [path, source, ...(isComplete ? [] : [result])];
    for (const file of new Set(unneeded)) await Deno.remove(file).catch(() => {});
  }
}
