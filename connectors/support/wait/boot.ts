/** Finding out over ssh whether a device has booted, and whether it lets the agent in. */
import type { ConnectorContext } from "../../context.ts";
import { succeeded } from "../process/runner.ts";
import { ssh, sshFailureText, type SshTarget } from "../ssh/ssh.ts";
import { pollUntil } from "./poll.ts";

/** Differs after every boot. */
const BOOT_ID = "cat /proc/sys/kernel/random/boot_id";
const BOOT_ID_TIMEOUT_MS = 15_000;

const LOGIN = "/bin/true";
/** ssh gives up connecting after 10 s; a device that takes the connection and then hangs needs more. */
const LOGIN_TIMEOUT_MS = 30_000;

/** The id of the boot that a system is in; undefined when it does not say. */
export async function bootId(
  ctx: ConnectorContext,
  target: SshTarget,
): Promise<string | undefined> {
  const result = await ssh(ctx, target, BOOT_ID, { timeoutMs: BOOT_ID_TIMEOUT_MS });
  return succeeded(result) ? result.stdout.trim() || undefined : undefined;
}

/** A reboot that is waited for. */
export interface Reboot {
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
      const now = await bootId(ctx, target);
      if (now === undefined) return "it does not answer";
      return now === before ? "the old system is still running" : undefined;
    },
  });
}

/** Whether a login worked, and if not, why not. */
export type LoginResult =
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
