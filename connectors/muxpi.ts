import { defineConnector } from "./define.ts";
import { bootCheck, waitForBoot } from "./muxpi/boot_check.ts";
import { muxpiConfigShape, type MuxpiContext, muxpiProvisionShape } from "./muxpi/config.ts";
import { control, mustControl } from "./muxpi/control.ts";
import { restartControlHost } from "./muxpi/control_host_restart.ts";
import { flash } from "./muxpi/flash.ts";
import { lookInto } from "./muxpi/image_type.ts";
import { imageSource, openImage } from "./muxpi/image_source.ts";
import { mountImage } from "./muxpi/partitions.ts";
import type { Login } from "./muxpi/seed_files.ts";
import { chosenMedia, connectStorage, type Storage, usesMuxProgram } from "./muxpi/storage.ts";
import { createUser, loginFor } from "./muxpi/user.ts";
import { credentials } from "./support/job.ts";
import { hardReset, runScript } from "./support/script/script.ts";
import { QEMU_IMG, SCP, SSH, SSH_COPY_ID, SSHPASS } from "./support/process/programs.ts";
import { REMOTE_TIMEOUT_MS } from "./support/ssh/remote.ts";

/** What boards with a multiplexer of their own need between being reached and being used. */
const SETTLE_MS = 5_000;

/** For boards that boot from a medium which a control host can take away from them and write. */
export const muxpi = defineConnector({
  name: "muxpi",
  summary: "Writes an image to a board's SD card or USB stick through a multiplexer (MuxPi, " +
    "SDWire), on a control host, and boots it.",
  config: muxpiConfigShape,
  provisionData: muxpiProvisionShape,
  needs: ["agent_name", "control_host"],
  powerManagement: true,
  programs: [SSH, SCP, SSHPASS, SSH_COPY_ID, QEMU_IMG],
  async prepare(ctx, { job, data }) {
    return {
      media: chosenMedia(ctx, data.media),
      bootCheck: bootCheck(ctx, { url: data.boot_check_url, login: credentials(job) }),
      login: data.create_user ? await loginFor(ctx, job) : undefined,
      source: await imageSource(ctx, data),
    };
  },
  async provision(ctx, { plan, controlHostCycled }) {
    // 1. The image.
    await using image = await openImage(ctx, plan.source);

    // 2. A control host that answers.
    if (!usesMuxProgram(ctx)) {
      if (!controlHostCycled) await restartControlHost(ctx);
      await ctx.clock.sleep(SETTLE_MS, ctx.signal);
    }
    await mustControl(ctx, { step: "reach the control host", program: "ssh", command: "true" });

    // 3. The medium, with the image on it and a user in the image.
    const storage = await connectStorage(ctx, plan.media);
    await flash(ctx, storage, image);
    if (plan.login !== undefined || ctx.config.mounted_image_script?.length) {
      await changeImage(ctx, storage, plan.login);
    }
    await runOnControlHost(ctx, "post_provision_script");
    await storage.back.run();

    // 4. The device.
    await hardReset(ctx, { optional: true });
    await waitForBoot(ctx, plan.bootCheck);
  },
});

/** What is done with the image while it is mounted. */
async function changeImage(
  ctx: MuxpiContext,
  storage: Storage,
  login: Login | undefined,
): Promise<void> {
  const mounted = await mountImage(ctx, storage);
  if (mounted === undefined) {
    ctx.log.warning(
      `'lsblk' finds no partition with a label on ${storage.device}: the image is left as it is, ` +
        `without a user of ours`,
    );
    return;
  }
  if (login !== undefined) {
    await createUser(ctx, mounted, { facts: await lookInto(ctx, mounted.root), login });
  }
  await runOnControlHost(ctx, "mounted_image_script");
  await mounted.unmount();
}

/** Runs an operator's commands on the control host; what goes wrong is only logged. */
async function runOnControlHost(
  ctx: MuxpiContext,
  key: "mounted_image_script" | "post_provision_script",
): Promise<void> {
  await runScript(ctx, {
    key,
    commands: ctx.config[key] ?? [],
    timeoutMs: REMOTE_TIMEOUT_MS,
    failure: "log",
    run: (command, options) => control(ctx, command, options),
  });
}
