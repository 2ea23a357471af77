import { hardReset, runScript } from "../support/script/script.ts";
import { ProvisioningError } from "../support/errors.ts";
import { succeeded } from "../support/process/runner.ts";
import type { MuxpiContext } from "./config.ts";
import { control, mustControl } from "./control.ts";

const SCRIPT_TIMEOUT_MS = 60_000;
const PAUSE_MS = 10_000;

/**
 * Reboots a control host that switches storage through hardware of its own, which may hang, and
 * waits until it is back. Does nothing without a `control_host_reboot_script`.
 *
 * @throws ProvisioningError when the script fails, or the control host does not come back.
 */
export async function restartControlHost(ctx: MuxpiContext): Promise<void> {
  const { clock, config, signal } = ctx;
  const commands = config.control_host_reboot_script ?? [];
  if (commands.length === 0) return;
  ctx.log.info("Rebooting the control host");
  await runScript(ctx, {
    key: "control_host_reboot_script",
    commands,
    timeoutMs: SCRIPT_TIMEOUT_MS,
    failure: { step: "reboot the control host", ErrorClass: ProvisioningError },
  });
  await hardReset(ctx, { optional: true });
  await clock.sleep(config.control_host_reboot_timeout * 1000, signal);
  const looks = Math.floor(config.control_host_reboot_timeout * 1000 / PAUSE_MS);
  for (let look = 0; look < looks; look++) {
    if (succeeded(await control(ctx, "true", { attempts: 1 }))) return;
    await clock.sleep(PAUSE_MS, signal);
  }
  await mustControl(ctx, {
    step: "reach the control host after its reboot",
    program: "ssh",
    command: "true",
  });
}
