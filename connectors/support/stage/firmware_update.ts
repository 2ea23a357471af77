/** The stage `firmware_update`, the same for all connectors. Works on a device that runs. */
import * as z from "zod";
import type { ConnectorContext } from "../../context.ts";
import { mappingSchema } from "../config.ts";
import { FirmwareUpdateError, fullMessageOf } from "../errors.ts";
import { updateByIlo } from "../firmware/hpe.ts";
import { LVFS_VERSIONS, updateByLvfs } from "../firmware/lvfs.ts";
import { detectMethod } from "../firmware/machine.ts";
import { credentials, issuesText } from "../job.ts";
import { deviceTarget } from "../ssh/ssh.ts";

/** Keys of `firmware_update_data`. */
const firmwareUpdateShape = {
  version: z.string({ error: "must be text: latest, previous or a release of HPE" }).min(1)
    .describe(
      "latest; previous (not for HPE servers); or for HPE servers the name of a release, such as " +
        "2023.09.00.04.",
    ),
  ignore_failure: z.union([z.boolean(), z.enum(["true", "false"])], {
    error: "must be true or false",
  }).transform((value) => value === true || value === "true").default(false)
    .meta({ type: "boolean" })
    .describe("A failure is logged, and the stage ends with status 0."),
};

const schema = mappingSchema(firmwareUpdateShape);

/**
 * Updates the device's firmware.
 *
 * @throws FirmwareUpdateError for whatever goes wrong, unless the job says `ignore_failure`.
 */
export async function updateFirmware(ctx: ConnectorContext): Promise<void> {
  ctx.log.info("BEGIN firmware_update");
  let isIgnored = false;
  try {
    const job = await ctx.readJob();
    const section = job.firmware_update_data;
    // Asked for first: also of a section that is wrong otherwise a failure may be unimportant.
    isIgnored = section?.ignore_failure === true || section?.ignore_failure === "true";
    await update(ctx, section);
  } catch (error) {
    ctx.signal.throwIfAborted();
    const failure = error instanceof FirmwareUpdateError
      ? error
      : new FirmwareUpdateError(fullMessageOf(error), { cause: error });
    if (!isIgnored) throw failure;
    ctx.log.error(`${failure.name}: ${failure.message}; the job says ignore_failure`);
  }
  ctx.log.info("END firmware_update");
}

async function update(ctx: ConnectorContext, section: unknown): Promise<void> {
  if (section === undefined || section === null) {
    throw new FirmwareUpdateError("The job has no firmware_update_data: it says which version");
  }
  const parsed = schema.safeParse(section);
  if (!parsed.success) {
    throw new FirmwareUpdateError(
      `The job's firmware_update_data is wrong: ${issuesText(parsed.error)}`,
    );
  }
  const { version } = parsed.data as z.output<z.ZodObject<typeof firmwareUpdateShape>>;
  const { user } = credentials(await ctx.readJob());
  const target = deviceTarget(ctx, { user });
  const method = await detectMethod(ctx, target);
  if (method === "hpe") return await updateByIlo(ctx, target, version);
  const wanted = LVFS_VERSIONS.find((name) => name === version);
  if (wanted === undefined) {
    throw new FirmwareUpdateError(
      `This device can be updated to 'latest' or 'previous', not to '${version}'`,
    );
  }
  await updateByLvfs(ctx, target, wanted);
}
