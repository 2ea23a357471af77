import type { ConnectorContext } from "../../connector.ts";
import { ProvisioningError, RecoveryError } from "../errors.ts";
import { failureText, succeeded } from "../process/runner.ts";

/** A power distribution unit may take a while, but not two minutes. */
const RESET_TIMEOUT_MS = 120_000;

const HOOK_SCRIPT_TIMEOUT_MS = 60_000;

/**
 * Hard-resets the device: each command of `reboot_script` by `/bin/sh -c`, in order.
 *
 * @param options.optional without a `reboot_script` only warn.
 * @throws ProvisioningError when a reset is needed and none is configured.
 * @throws RecoveryError when a command fails: nobody but a person can help the device now.
 */
export async function hardReset(
  ctx: ConnectorContext,
  options: { readonly optional?: boolean } = {},
): Promise<void> {
  const commands = ctx.config.reboot_script ?? [];
  if (commands.length === 0) {
    const message = "no 'reboot_script' is set in the device configuration";
    if (!options.optional) throw new ProvisioningError(`Cannot reset the device: ${message}`);
    ctx.log.warning(`The device is not reset: ${message}`);
    return;
  }
  ctx.log.info("Resetting the device with reboot_script");
  for (const [index, command] of commands.entries()) {
    const result = await ctx.runner.run(["/bin/sh", "-c", command], {
      timeoutMs: RESET_TIMEOUT_MS,
    });
    if (succeeded(result)) continue;
    throw new RecoveryError(
      `Cannot reset the device: ${
        failureText(commandName("reboot_script", index, command), result)
      }`,
    );
  }
}

/**
 * Runs commands of the control host hooks by `/bin/sh -c`; failures are logged and the next one
 * runs.
 *
 * @param script the configuration key and its commands.
 * @returns what went wrong.
 */
export async function runLeniently(
  ctx: ConnectorContext,
  script: { readonly key: string; readonly commands: readonly string[] },
): Promise<string[]> {
  const failures: string[] = [];
  for (const [index, command] of script.commands.entries()) {
    const result = await ctx.runner.run(["/bin/sh", "-c", command], {
      timeoutMs: HOOK_SCRIPT_TIMEOUT_MS,
    });
    if (succeeded(result)) continue;
    const failure = failureText(commandName(script.key, index, command), result);
    ctx.log.warning(failure);
    failures.push(failure);
  }
  return failures;
}

/**
 * Names a command of a script without showing all of it: the arguments of power switches tend to
 * be passwords, and the message reaches the job's owner.
 */
function commandName(key: string, index: number, command: string): string {
  return `${key}[${index}]: ${command.trim().split(/\s+/)[0] ?? ""}`;
}
