/** Finding out over ssh whether a device has booted, and whether it lets the agent in. */
import type { ConnectorContext, PrepareContext } from "../../context.ts";
import { need } from "../config.ts";
import { JobError, ProvisioningError } from "../errors.ts";
import type { Credentials } from "../job.ts";
import { succeeded } from "../process/runner.ts";
import { hardReset } from "../script/script.ts";
import { bracketed, deviceTarget, ssh, sshFailureText, type SshTarget } from "../ssh/ssh.ts";
import { type CopyKeyResult, copySshKey } from "../ssh/ssh_keys.ts";
import { pollUntil } from "./poll.ts";

/** Differs after every boot. */
const BOOT_ID = "cat /proc/sys/kernel/random/boot_id";
const BOOT_ID_TIMEOUT_MS = 15_000;

const LOGIN = "/bin/true";
/** ssh gives up connecting after 10 s; a device that takes the connection and then hangs needs more. */
const LOGIN_TIMEOUT_MS = 30_000;

/** The id of the boot that a system is in; undefined when it does not say. */
export async function deviceBootId(
  ctx: ConnectorContext,
  target: SshTarget,
): Promise<string | undefined> {
  const result = await ssh(ctx, target, BOOT_ID, { timeoutMs: BOOT_ID_TIMEOUT_MS });
  return succeeded(result) ? result.stdout.trim() || undefined : undefined;
}

/**
 * What shows that a system has not been replaced by another boot; undefined when it has.
 *
 * @param before boot id of the system that is to go down. Undefined: it did not say, so that whatever
 *   answers counts.
 */
export async function notRebooted(
  ctx: ConnectorContext,
  target: SshTarget,
  before: string | undefined,
): Promise<string | undefined> {
  if (before === undefined) return undefined;
  const now = await deviceBootId(ctx, target);
  if (now === undefined) return "it does not say which boot it is in";
  return now === before ? "the old system is still running" : undefined;
}

/** A reboot that is waited for. */
interface Reboot {
  /** How to log in on the system that comes up. */
  readonly target: SshTarget;
  /** Boot id of the system that was told to reboot; undefined where it did not say. */
  readonly before: string | undefined;
  readonly limitMs: number;
  readonly pauseMs: number;
}

/**
 * Waits until another system answers than the one that was told to reboot.
 *
 * @returns undefined when it does; else what was seen last.
 */
export function waitForReboot(
  ctx: ConnectorContext,
  { target, before, limitMs, pauseMs }: Reboot,
): Promise<string | undefined> {
  return pollUntil(ctx, {
    waitingFor: "the device to reboot",
    limitMs,
    pauseMs,
    async look() {
      const now = await deviceBootId(ctx, target);
      if (now === undefined) return "it does not answer";
      return now === before ? "the old system is still running" : undefined;
    },
  });
}

/** Whether a login worked, and if not, why not. */
type LoginResult =
  | { readonly ok: true }
  /** `refused`: the device answers, but does not take the key. */
  | { readonly ok: false; readonly refused: boolean; readonly why: string };

/**
 * Does the device let the agent's key in? Never asks for a password.
 *
 * @param timeoutMs for the whole attempt. @default 30 s
 */
export async function keyLetsIn(
  ctx: ConnectorContext,
  { password: _, ...target }: SshTarget,
  timeoutMs: number = LOGIN_TIMEOUT_MS,
): Promise<LoginResult> {
  const result = await ssh(ctx, target, LOGIN, { timeoutMs });
  if (succeeded(result)) return { ok: true };
  return {
    ok: false,
    refused: result.ended === "exited" && result.stderr.includes("Permission denied"),
    why: sshFailureText(target, LOGIN, result),
  };
}

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
  ctx.log.warning("Cannot log in to the device; it is reset");
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
  const before = await deviceBootId(ctx, target);
  // The connection may go down before the answer comes.
  await ssh(ctx, target, "sudo reboot", { timeoutMs: REBOOT_TIMEOUT_MS });
  await waitUntilBooted(ctx, { login, before });
}

/** A boot that is waited for. */
interface Boot {
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
      return await notRebooted(ctx, deviceTarget(ctx, { user: login.user }), before);
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

const PAUSE_MS = 10_000;
const REQUEST_TIMEOUT_MS = 5_000;

/** What stands for the device's address in a `boot_check_url`. */
const ADDRESS_MARK = "$DEVICE_IP";

/** By what the device is known to be up. */
type BootCheck =
  /** It lets the agent's ssh key in, which is installed with the password where that is needed. */
  | { readonly kind: "login"; readonly target: SshTarget }
  /** This URL answers with status 200. */
  | { readonly kind: "url"; readonly url: string };

/**
 * How to find out that the device is up.
 *
 * @param options.url what the job says, with `$DEVICE_IP` in it.
 * @throws ProvisioningError when the device's address is not known; JobError when `url` is no URL.
 */
export function bootCheck(
  ctx: PrepareContext,
  { url, login }: { readonly url: string | undefined; readonly login: Credentials },
): BootCheck {
  if (url === undefined) return { kind: "login", target: deviceTarget(ctx, login) };
  const address = url.includes(ADDRESS_MARK)
    ? url.replaceAll(ADDRESS_MARK, () => bracketed(need(ctx.config, "device_ip")))
    : url;
  if (!/^https?:/i.test(address) || !URL.canParse(address)) {
    throw new JobError(`The job's 'boot_check_url' is no http or https URL: '${address}'`);
  }
  return { kind: "url", url: address };
}

/** Why the device is not up; undefined when it is. */
async function whyNotUp(ctx: ConnectorContext, check: BootCheck): Promise<string | undefined> {
  if (check.kind === "url") {
    const { url } = check;
    const answer = await ctx.http.send(url, {
      timeoutMs: REQUEST_TIMEOUT_MS,
      onlyBeginning: true,
    });
    if (answer.ended === "failed") return `${url}: ${answer.message}`;
    return answer.status === 200 ? undefined : `${url} answered with status ${answer.status}`;
  }
  const copied = await copySshKey(ctx, check.target, { attempts: 1, timeoutMs: KEY_TIMEOUT_MS });
  if (copied.ok) return undefined;
  if (copied.missing) throw new ProvisioningError(`Cannot log in to the device: ${copied.why}`);
  return copied.why;
}

/**
 * Waits until the device is up.
 *
 * @throws ProvisioningError when it is not within the time.
 */
export async function waitForBoot(
  ctx: ConnectorContext,
  { check, limitMs }: { readonly check: BootCheck; readonly limitMs: number },
): Promise<void> {
  const missing = await pollUntil(ctx, {
    waitingFor: "the device to be up",
    limitMs,
    pauseMs: PAUSE_MS,
    look: () => whyNotUp(ctx, check),
  });
  if (missing === undefined) return;
  throw new ProvisioningError(
    `The device was not up ${limitMs / 1000} s after its reset: ${missing}`,
  );
}
