/** Devices that are logged in on by a password once, to install the agent's key. */
import type { ConnectorContext } from "../../context.ts";
import { ProvisioningError } from "../errors.ts";
import type { Credentials } from "../job.ts";
import { hardReset } from "../script/script.ts";
import { deviceTarget, ssh } from "../ssh/ssh.ts";
import { type CopyKeyResult, copySshKey } from "../ssh/ssh_keys.ts";
import { bootId } from "./boot.ts";
import { pollUntil } from "./poll.ts";

const KEY_TIMEOUT_MS = 60_000;
const REBOOT_TIMEOUT_MS = 60_000;
const BOOT_LIMIT_MS = 5_400_000;
const BOOT_PAUSE_MS = 90_000;

/**
 * Makes sure that the device lets the agent in: one that does not is reset and waited for.
 *
 * @returns whether it was reset.
 * @throws RecoveryError when the reset fails, ProvisioningError when the device does not come back.
 */
export async function letIn(ctx: ConnectorContext, login: Credentials): Promise<boolean> {
  if ((await copyKey(ctx, login)).ok) return false;
  ctx.log.warning("The device does not let the agent in, it is reset");
  await hardReset(ctx);
  await waitUntilBooted(ctx, { login, before: undefined });
  return true;
}

/**
 * Reboots the device, by a hard reset where it does not let the agent in, and waits until it is back.
 *
 * @throws RecoveryError when the reset fails, ProvisioningError when the device does not come back.
 */
export async function restart(ctx: ConnectorContext, login: Credentials): Promise<void> {
  if (await letIn(ctx, login)) return;
  const target = deviceTarget(ctx, { user: login.user });
  const before = await bootId(ctx, target);
  // The connection may go down before the answer comes.
  await ssh(ctx, target, "sudo reboot", { timeoutMs: REBOOT_TIMEOUT_MS });
  await waitUntilBooted(ctx, { login, before });
}

/** A boot that is waited for. */
export interface Boot {
  readonly login: Credentials;
  /** The boot id of a system that is going down and does not count. */
  readonly before: string | undefined;
  /** @default 90 s */
  readonly pauseMs?: number;
}

/**
 * Waits until the device lets the agent in.
 *
 * @throws ProvisioningError when it does not within 90 minutes.
 */
export async function waitUntilBooted(
  ctx: ConnectorContext,
  { login, before, pauseMs = BOOT_PAUSE_MS }: Boot,
): Promise<void> {
  const missing = await pollUntil(ctx, {
    waitingFor: "the device to boot",
    limitMs: BOOT_LIMIT_MS,
    pauseMs,
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

async function copyKey(ctx: ConnectorContext, login: Credentials): Promise<CopyKeyResult> {
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
