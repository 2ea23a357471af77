/** Restarting the device before the recovery, and waiting for it after it. */
import { type CopyKeyResult, copySshKey } from "../support/ssh/ssh_keys.ts";
import { ProvisioningError } from "../support/errors.ts";
import type { Credentials } from "../support/job.ts";
import { hardReset } from "../support/script/script.ts";
import { deviceTarget, ssh } from "../support/ssh/ssh.ts";
import { bootId } from "../support/wait/boot.ts";
import { pollUntil } from "../support/wait/poll.ts";
import type { OemContext } from "./config.ts";

const KEY_TIMEOUT_MS = 60_000;
const REBOOT_TIMEOUT_MS = 60_000;
const BOOT_LIMIT_MS = 5_400_000;
const BOOT_PAUSE_MS = 90_000;

/**
 * Reboots the device, by a hard reset where it does not let the agent in, and waits until it is back.
 *
 * @throws RecoveryError when the reset fails, ProvisioningError when the device does not come back.
 */
export async function restart(ctx: OemContext, login: Credentials): Promise<void> {
  const { user } = login;
  let before: string | undefined;
  if ((await copyKey(ctx, login)).ok) {
    before = await bootId(ctx, deviceTarget(ctx, { user }));
    // The connection may go down before the answer comes.
    await ssh(ctx, deviceTarget(ctx, { user }), "sudo reboot", { timeoutMs: REBOOT_TIMEOUT_MS });
  } else {
    ctx.log.warning("The device does not let the agent in, it is reset");
    await hardReset(ctx);
  }
  await waitUntilBooted(ctx, { login, before });
}

/**
 * Waits until the device lets the agent in.
 *
 * @param options.before the boot id of a system that is going down and does not count.
 * @throws ProvisioningError when it does not within 90 minutes.
 */
export async function waitUntilBooted(
  ctx: OemContext,
  { login, before }: { readonly login: Credentials; readonly before: string | undefined },
): Promise<void> {
  const missing = await pollUntil(ctx, {
    waitingFor: "the device to boot",
    limitMs: BOOT_LIMIT_MS,
    pauseMs: BOOT_PAUSE_MS,
    async look() {
      const copied = await copyKey(ctx, login);
      if (!copied.ok) return copied.why;
      if (before === undefined) return undefined;
      const now = await bootId(ctx, deviceTarget(ctx, { user: login.user }));
      return now === before ? "the old system is still running" : undefined;
    },
  });
  if (missing === undefined) return;
  throw new ProvisioningError(
    `The device did not come back within ${BOOT_LIMIT_MS / 1000} s: ${missing}`,
  );
}

async function copyKey(ctx: OemContext, login: Credentials): Promise<CopyKeyResult> {
  const copied = await copySshKey(ctx, deviceTarget(ctx, login), {
    attempts: 1,
    timeoutMs: KEY_TIMEOUT_MS,
  });
  // Not the device's fault: no reset and no waiting would help.
  if (!copied.ok && copied.missing) {
    throw new ProvisioningError(`Cannot log in on the device: ${copied.why}`);
  }
  return copied;
}
