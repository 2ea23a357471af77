/** Commands that operators write into the device configuration, run one after the other. */
import type { ConnectorContext } from "../../context.ts";
import { ProvisioningError, RecoveryError } from "../errors.ts";
import { type CommandResult, failureText, succeeded } from "../process/runner.ts";

/** A power distribution unit may take a while, but not two minutes. */
const RESET_TIMEOUT_MS = 120_000;

/** How one command of a script is run. */
export interface ScriptCommand {
  readonly timeoutMs: number;
  /** Told what the command prints, as it comes: for the job's log. */
  readonly onOutput: (bytes: Uint8Array) => Promise<void>;
}

/** A list of configured commands. */
export interface Script {
  /** The configuration key, which names the commands in messages. */
  readonly key: string;
  readonly commands: readonly string[];
  /** Time limit for each of the commands. */
  readonly timeoutMs: number;
  /**
   * What a command's failure means. `"log"`: it is logged, and the next command runs. Otherwise it
   * ends the script with this error, which says that we cannot do `step` ("reset the device").
   */
  readonly failure:
    | "log"
    | { readonly step: string; readonly ErrorClass: new (message: string) => Error };
  /** Runs a command where it belongs, such as on the device. @default on this host, by /bin/sh -c */
  readonly run?: (command: string, options: ScriptCommand) => Promise<CommandResult>;
}

/**
 * Runs the commands in order. What they print goes to the job's log.
 *
 * @returns what went wrong, where that is only logged.
 * @throws the script's `failure.ErrorClass`, naming the command, its end and its last output.
 */
export async function runScript(ctx: ConnectorContext, script: Script): Promise<string[]> {
  const { key, commands, timeoutMs, failure } = script;
  const run = script.run ??
    ((command, options) => ctx.runner.run(["/bin/sh", "-c", command], options));
  const failures: string[] = [];
  for (const [index, command] of commands.entries()) {
    const result = await run(command, { timeoutMs, onOutput: (bytes) => ctx.print(bytes) });
    if (succeeded(result)) continue;
    const text = failureText(commandName(key, index, command), result);
    if (failure !== "log") throw new failure.ErrorClass(`Cannot ${failure.step}: ${text}`);
    ctx.log.warning(text);
    failures.push(text);
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

/**
 * Hard-resets the device with `reboot_script`.
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
  await runScript(ctx, {
    key: "reboot_script",
    commands,
    timeoutMs: RESET_TIMEOUT_MS,
    failure: { step: "reset the device", ErrorClass: RecoveryError },
  });
}
