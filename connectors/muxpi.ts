import { defineConnector } from "./define.ts";
import { muxpiConfigShape, type MuxpiContext, muxpiProvisionShape } from "./muxpi/config.ts";
import { chosenMedia, connectStorage, usesMuxProgram } from "./muxpi/storage.ts";
import { ProvisioningError } from "./support/errors.ts";
import { flash } from "./support/image/flash.ts";
import { mountImage } from "./support/image/partitions.ts";
import type { Login } from "./support/image/seed_files.ts";
import { imageSource, openImage } from "./support/image/source.ts";
import { createUser, loginFor } from "./support/image/user.ts";
import { credentials } from "./support/job.ts";
import {
  FLASH_PROGRAMS,
  IMAGE_PROGRAMS,
  QEMU_IMG,
  SSH,
  SSH_COPY_ID,
  SSHPASS,
  UNPACK_PROGRAMS,
} from "./support/process/programs.ts";
import { hardReset, runScript } from "./support/script/script.ts";
import {
  controlHost,
  REMOTE_ATTEMPTS,
  REMOTE_PAUSE_MS,
  REMOTE_TIMEOUT_MS,
} from "./support/ssh/remote.ts";
import { bootCheck, waitForBoot } from "./support/wait/boot.ts";

/** What boards with a multiplexer of their own need between being reached and being used. */
const SETTLE_MS = 5_000;

const BOOT_LIMIT_MS = 1_200_000;

/** For boards that boot from a medium which a control host can take away from them and write. */
export const muxpi = defineConnector({
  name: "muxpi",
  summary: "Writes an image to a board's SD card or USB stick through a multiplexer (MuxPi, " +
    "SDWire), on a control host, and boots it.",
  config: muxpiConfigShape,
  provisionData: muxpiProvisionShape,
  testedAgainst:
    "a real OpenSSH server as control host and device, with real images of each kind on " +
    "loop devices, and the real mount, lsblk, hdparm and dd; multiplexers and boards are stand-ins",
  needs: ["agent_name", "control_host"],
  mostlyNeeds: {
    test_device: "jobs without 'media'",
    device_ip: "jobs without a 'boot_check_url'",
  },
  powerManagement: true,
  programs: [SSH, SSHPASS, SSH_COPY_ID, QEMU_IMG, ...UNPACK_PROGRAMS],
  controlHostPrograms: [...IMAGE_PROGRAMS, ...FLASH_PROGRAMS],
  async prepare(ctx, { job, data }) {
    return {
      media: chosenMedia(ctx, data.media),
      check: bootCheck(ctx, { url: data.boot_check_url, login: credentials(job) }),
      login: data.create_user ? await loginFor(ctx, job) : undefined,
      source: await imageSource(ctx, data, ctx.config),
    };
  },
  async provision(ctx, { plan, controlHostCycled }) {
    const { check, login, media } = plan;
    await using image = await openImage(ctx, plan.source);
    await reachControlHost(ctx, controlHostCycled);

    const { device, back } = await connectStorage(ctx, media);
    await flash(ctx, {
      image,
      device,
      verify: ctx.config.verify_flash,
      wire: ctx.config.image_wire,
    });
    if (login !== undefined || ctx.config.mounted_image_script?.length) {
      await changeImage(ctx, device, login);
    }
    await runOnControlHost(ctx, "post_provision_script");
    await back.run();

    await hardReset(ctx, { optional: true });
    await waitForBoot(ctx, { check, limitMs: BOOT_LIMIT_MS });
  },
});

/**
 * Makes sure that the control host answers. One that switches storage through hardware of its own is
 * rebooted before, unless the hook has just done that: the hardware may hang.
 *
 * @throws ProvisioningError when it does not answer, or its `control_host_reboot_script` fails.
 */
async function reachControlHost(ctx: MuxpiContext, isCycled: boolean): Promise<void> {
  const { clock, config, signal } = ctx;
  const commands = config.control_host_reboot_script ?? [];
  const hasOwnHardware = !usesMuxProgram(ctx);
  let attempts = REMOTE_ATTEMPTS;
  if (hasOwnHardware && !isCycled && commands.length > 0) {
    ctx.log.info("Rebooting the control host");
    await runScript(ctx, {
      key: "control_host_reboot_script",
      commands,
      timeoutMs: REMOTE_TIMEOUT_MS,
      failure: { step: "reboot the control host", ErrorClass: ProvisioningError },
    });
    await hardReset(ctx, { optional: true });
    const timeoutMs = config.control_host_reboot_timeout * 1000;
    await clock.sleep(timeoutMs, signal);
    // As much time again, for one that is slow.
    attempts += Math.ceil(timeoutMs / REMOTE_PAUSE_MS);
  }
  const step = "reach the control host";
  await controlHost(ctx).must({ step, program: "ssh", command: "true", attempts });
  if (hasOwnHardware) await clock.sleep(SETTLE_MS, signal);
}

/** What is done with the image while it is mounted. */
async function changeImage(
  ctx: MuxpiContext,
  device: string,
  login: Login | undefined,
): Promise<void> {
  const mounted = await mountImage(ctx, device);
  if (mounted === undefined) return;
  if (login !== undefined) await createUser(ctx, mounted, login);
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
    run: (command, options) => controlHost(ctx).run(command, options),
  });
}
