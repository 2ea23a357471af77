import type { ConnectorContext, PrepareContext } from "../../context.ts";
import { need } from "../config.ts";
import { JobError, ProvisioningError } from "../errors.ts";
import type { Credentials } from "../job.ts";
import { bracketed, deviceTarget, type SshTarget } from "../ssh/ssh.ts";
import { copySshKey } from "../ssh/ssh_keys.ts";
import { pollUntil } from "./poll.ts";

const PAUSE_MS = 10_000;
const KEY_TIMEOUT_MS = 60_000;
const REQUEST_TIMEOUT_MS = 5_000;

/** What stands for the device's address in a `boot_check_url`. */
const ADDRESS_MARK = "$DEVICE_IP";

/** By what the device is known to be up. */
export type BootCheck =
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
    const answer = await ctx.http.send(url, { timeoutMs: REQUEST_TIMEOUT_MS });
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
