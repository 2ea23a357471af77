/**
 * Raspberry Pi Compute Modules. A control host switches the module to USB boot by a GPIO, so that
 * its eMMC is a block device there, and a helper program writes the image.
 */
import * as z from "zod";
import type { ConnectorContext } from "./context.ts";
import { defineConnector } from "./define.ts";
import { muxpiConfigShape } from "./muxpi/config.ts";
import { awaitDevice } from "./muxpi/storage.ts";
import {
  checksumKey,
  type CommonConfig,
  need,
  script,
  type ShapeOutput,
  wholeNumber,
} from "./support/config.ts";
import { ProvisioningError } from "./support/errors.ts";
import { bmapConfigShape, bmapProvisionShape, imageWireShape } from "./support/image/config.ts";
import { flash } from "./support/image/flash.ts";
import { imageType, lookInto } from "./support/image/image_type.ts";
import { mountImage } from "./support/image/partitions.ts";
import type { Login } from "./support/image/seed_files.ts";
import { imageSource, openImage } from "./support/image/source.ts";
import { createUser, loginFor } from "./support/image/user.ts";
import { credentials } from "./support/job.ts";
import {
  FLASH_PROGRAMS,
  IMAGE_PROGRAMS,
  SSH,
  SSH_COPY_ID,
  SSHPASS,
} from "./support/process/programs.ts";
import { hardReset, runScript } from "./support/script/script.ts";
import { controlHost } from "./support/ssh/remote.ts";
import { quote } from "./support/ssh/ssh.ts";
import { bootCheck, waitForBoot } from "./support/wait/boot.ts";

const SETTLE_MS = 5_000;
const USB_BOOT_TIMEOUT_MS = 120_000;
const INSTALL_TIMEOUT_MS = 1_800_000;
/** What is still in memory goes to an eMMC. */
const SYNC_TIMEOUT_MS = 600_000;
const BOOT_LIMIT_MS = 600_000;

const configShape = {
  agent_name: muxpiConfigShape.agent_name,
  test_device: muxpiConfigShape.test_device.describe(
    "Block device on the control host that the module's eMMC is, such as /dev/sda.",
  ),
  usb_boot_gpio: wholeNumber.default(16)
    .describe("GPIO of the control host that switches the module to USB boot."),
  usb_boot_script: script.optional().describe(
    "Commands on the control host that make the module's eMMC the block device 'test_device' there " +
      "once it boots from USB, such as sudo rpiboot. With them the agent writes the image, through " +
      "the host's cache and in one pass. Unset: cm3-installer downloads and writes it.",
  ),
  ...imageWireShape,
  ...bmapConfigShape,
};

type Cm3Context = ConnectorContext<CommonConfig & ShapeOutput<typeof configShape>>;

export const cm3 = defineConnector({
  name: "cm3",
  summary: "Writes an image to the eMMC of a Raspberry Pi Compute Module, by USB boot from a " +
    "control host, and boots it.",
  config: configShape,
  provisionData: {
    url: z.string().optional().describe(
      "Image, which cm3-installer on the control host downloads, unpacks and writes; or the agent, " +
        "where the configuration has 'usb_boot_script'.",
    ),
    sha256: checksumKey("SHA-256 that the image must have, where the agent writes it."),
    ...bmapProvisionShape,
  },
  testedAgainst:
    "a real OpenSSH server as control host and device; the control host's programs and the board " +
    "are stand-ins",
  needs: ["agent_name", "control_host", "device_ip", "reboot_script", "test_device"],
  programs: [SSH, SSHPASS, SSH_COPY_ID],
  controlHostPrograms: [
    ...IMAGE_PROGRAMS,
    { name: "pi3gpio", install: "comes with the board's tools" },
    {
      name: "cm3-installer",
      install: "comes with the board's tools",
      onlyFor: "modules without usb_boot_script",
    },
    ...FLASH_PROGRAMS.map((need) => ({ onlyFor: "modules with usb_boot_script", ...need })),
    { name: "udisksctl", install: "apt install udisks2" },
  ],
  async prepare(ctx, { job, data }) {
    const { url } = data;
    if (url === undefined) {
      throw new ProvisioningError(
        "The job's provision_data has no 'url': there is no image to write",
      );
    }
    if (!URL.canParse(url)) throw new ProvisioningError(`The job's image '${url}' is no URL`);
    const isOurs = ctx.config.usb_boot_script !== undefined;
    return {
      url,
      source: isOurs ? await imageSource(ctx, data, ctx.config) : undefined,
      login: await loginFor(ctx, job),
      check: bootCheck(ctx, { url: undefined, login: credentials(job) }),
    };
  },
  async provision(ctx, { plan: { url, source, login, check } }) {
    const device = need(ctx.config, "test_device");
    const host = controlHost(ctx);
    // A plain file, which something has written while there was no device.
    await host.run(`test -f ${quote(device)} && sudo rm -f ${quote(device)}`);
    await using image = source && await openImage(ctx, source);
    await using usbBoot = await bootFromUsb(ctx);
    if (image === undefined) {
      ctx.log.info(`Writing the image to ${device}`);
      await host.must({
        step: `write the image to ${device}`,
        program: "cm3-installer",
        command: `sudo cm3-installer ${quote(url)}`,
        timeoutMs: INSTALL_TIMEOUT_MS,
        // It may still be at work, and two would be in each other's way.
        attempts: 1,
        onOutput: (bytes) => ctx.print(bytes),
      });
    } else {
      await showEmmc(ctx, device);
      await flash(ctx, { image, device, verify: false, wire: ctx.config.image_wire });
    }
    await prepareImage(ctx, device, login);
    await host.must({
      step: `write all that is in memory to ${device}`,
      program: "sync",
      command: "sudo sync",
      timeoutMs: SYNC_TIMEOUT_MS,
    });
    await ctx.clock.sleep(SETTLE_MS, ctx.signal);
    await host.must({
      step: `power ${device} off`,
      program: "udisksctl",
      command: `sudo udisksctl power-off -b ${quote(device)}`,
    });
    await ctx.clock.sleep(SETTLE_MS, ctx.signal);
    await usbBoot.run();
    await waitForBoot(ctx, { check, limitMs: BOOT_LIMIT_MS });
  },
});

/** Boots the module from USB. However the stage ends, it is booted from its eMMC again. */
async function bootFromUsb(ctx: Cm3Context) {
  // Registered first: a command that failed may have switched anyway.
  const back = ctx.putBack("the module's boot from its eMMC", async (own) => {
    await setGpio(own, "low");
    await own.clock.sleep(SETTLE_MS, own.signal);
    await hardReset(own);
  });
  await setGpio(ctx, "high");
  await ctx.clock.sleep(SETTLE_MS, ctx.signal);
  await hardReset(ctx);
  return back;
}

/** Has the control host see the module's eMMC. */
async function showEmmc(ctx: Cm3Context, device: string): Promise<void> {
  await runScript(ctx, {
    key: "usb_boot_script",
    commands: ctx.config.usb_boot_script ?? [],
    timeoutMs: USB_BOOT_TIMEOUT_MS,
    failure: { step: "see the module's eMMC", ErrorClass: ProvisioningError },
    run: (command, options) => controlHost(ctx).run(command, options),
  });
  await awaitDevice(ctx, device);
}

async function setGpio(ctx: Cm3Context, level: "high" | "low"): Promise<void> {
  await controlHost(ctx).must({
    step: `switch the module's boot (GPIO ${ctx.config.usb_boot_gpio} ${level})`,
    program: "pi3gpio",
    command: `sudo pi3gpio set ${level} ${ctx.config.usb_boot_gpio}`,
  });
}

/** Creates the user in the image that has been written. */
async function prepareImage(ctx: Cm3Context, device: string, login: Login): Promise<void> {
  const mounted = await mountImage(ctx, device);
  if (mounted === undefined) {
    throw new ProvisioningError(
      `No user can be created in the image: no partition of ${device} has a label`,
    );
  }
  const type = imageType(await lookInto(ctx, mounted.root));
  if (type === "unknown") {
    throw new ProvisioningError(
      `No user can be created in the image: it is of no known type, with the partitions ` +
        [...mounted.labels].join(", "),
    );
  }
  await createUser(ctx, mounted, login);
  await mounted.unmount();
}
