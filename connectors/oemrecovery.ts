import * as z from "zod";
import type { ConnectorContext } from "./context.ts";
import { defineConnector } from "./define.ts";
import { script } from "./support/config.ts";
import { ProvisioningError } from "./support/errors.ts";
import { credentials } from "./support/job.ts";
import { hardReset, runScript } from "./support/script/script.ts";
import { type CommandResult, succeeded } from "./support/process/runner.ts";
import { isLost, remote } from "./support/ssh/remote.ts";
import { deviceTarget, ssh, sshFailureText, type SshTarget } from "./support/ssh/ssh.ts";
import { copySshKey } from "./support/ssh/ssh_keys.ts";
import { SSH, SSH_COPY_ID, SSHPASS } from "./support/process/programs.ts";
import { deviceBootId, keyLetsIn, notRebooted } from "./support/wait/boot.ts";
import { pollUntil } from "./support/wait/poll.ts";

const KEY_TIMEOUT_MS = 60_000;
const COMMAND_TIMEOUT_MS = 600_000;
const QUERY_TIMEOUT_MS = 15_000;
const ANSWER_TIMEOUT_MS = 15_000;
/** The connection is lost when a device begins to go down: its ssh server may answer for a while. */
const GONE_LIMIT_MS = 120_000;
const GONE_PAUSE_MS = 5_000;
const READY_CMD_TIMEOUT_MS = 60_000;
const READY_LIMIT_MS = 3_600_000;
const READY_PAUSE_MS = 90_000;

/** For devices that reset themselves to their original image when they are told to. */
export const oemrecovery = defineConnector({
  name: "oemrecovery",
  summary: "Runs recovery commands on the device, which reset it to its original image.",
  config: {
    recovery_cmds: script.optional()
      .describe("Commands that start the recovery, run on the device by ssh, in order."),
    recovery_disconnect_ok: z.boolean().default(true).describe(
      "The last recovery command may lose the connection, as the device goes away.",
    ),
    recovery_reboots: z.boolean().default(true).describe(
      "The recovery reboots the device: as long as the old system answers, it is not complete. " +
        "Ignored if ready_cmd is set.",
    ),
    ready_cmd: z.string().optional().describe(
      "Command on the device whose exit status 0 says that recovery is complete; unset: asks snapd.",
    ),
  },
  provisionData: {},
  needs: ["device_ip", "recovery_cmds"],
  setupBody: { usb: "DUT" },
  programs: [SSH, SSHPASS, SSH_COPY_ID],
  testedAgainst: "a real OpenSSH server as the device; what recovers it, and snapd, are stand-ins",
  prepare(ctx, { job }) {
    const commands = ctx.config.recovery_cmds ?? [];
    if (commands.length === 0) {
      throw new ProvisioningError(
        "'recovery_cmds' is empty in the device configuration: nothing would recover " +
          "the device",
      );
    }
    return {
      commands,
      target: deviceTarget(ctx, credentials(job)),
      lastMayDisconnect: ctx.config.recovery_disconnect_ok,
      readyCommand: ctx.config.ready_cmd,
      mustReboot: ctx.config.recovery_reboots && ctx.config.ready_cmd === undefined,
    };
  },
  async provision(ctx, { plan: recovery }) {
    const refusal = await copyKey(ctx, recovery.target);
    if (refusal !== undefined) {
      ctx.log.warning(`The device is reset, as it does not take the ssh key: ${refusal}`);
      await hardReset(ctx);
      await waitUntilReady(ctx, recovery, undefined);
    }
    const oldBootId = recovery.mustReboot ? await deviceBootId(ctx, recovery.target) : undefined;
    await recover(ctx, recovery, oldBootId);
    await waitUntilReady(ctx, recovery, oldBootId);
  },
});

interface Recovery {
  readonly commands: readonly string[];
  readonly target: SshTarget;
  /** The connection may be lost while the last command runs. */
  readonly lastMayDisconnect: boolean;
  readonly readyCommand: string | undefined;
  /** Complete only when another system answers than the one that was told to recover. */
  readonly mustReboot: boolean;
}

function keysOnly({ password: _, ...target }: SshTarget): SshTarget {
  return target;
}

/** Why the key could not be copied; undefined when it has been. */
async function copyKey(ctx: ConnectorContext, target: SshTarget): Promise<string | undefined> {
  const copied = await copySshKey(ctx, target, { attempts: 1, timeoutMs: KEY_TIMEOUT_MS });
  if (copied.ok) return undefined;
  if (copied.missing) throw new ProvisioningError(`Cannot copy the ssh key: ${copied.why}`);
  return copied.why;
}

/** Runs the recovery commands on the device. */
async function recover(
  ctx: ConnectorContext,
  { commands, target, lastMayDisconnect }: Recovery,
  oldBootId: string | undefined,
): Promise<void> {
  const device = remote(ctx, keysOnly(target));
  let left = commands.length;
  await runScript(ctx, {
    key: "recovery_cmds",
    commands,
    timeoutMs: COMMAND_TIMEOUT_MS,
    failure: { step: "recover the device", ErrorClass: ProvisioningError },
    async run(command, options) {
      ctx.log.info(`Running on the device: ${command}`);
      // Once: nobody knows what a command has done whose connection was lost.
      const result = await device.run(command, { ...options, attempts: 1 });
      left -= 1;
      const gone = result.ended === "timeout" || isLost(result);
      if (!gone || left > 0 || !lastMayDisconnect) return result;
      // Still there, so it was not the recovery that ended the connection.
      if (!await goesAway(ctx, target, oldBootId)) return result;
      ctx.log.info("The device has gone away, as it should");
      return { ended: "exited", status: 0, stdout: "", stderr: "" };
    },
  });
  // What answers from now on is to be the new system, by connections of its own.
  await device.disconnect();
}

/** Does the device stop answering, or has it come back already? */
async function goesAway(
  ctx: ConnectorContext,
  target: SshTarget,
  oldBootId: string | undefined,
): Promise<boolean> {
  const missing = await pollUntil(ctx, {
    waitingFor: "the device to go away",
    limitMs: GONE_LIMIT_MS,
    pauseMs: GONE_PAUSE_MS,
    lookFirst: true,
    async look() {
      if (!(await keyLetsIn(ctx, target, ANSWER_TIMEOUT_MS)).ok) return undefined;
      const isBack = oldBootId !== undefined &&
        await notRebooted(ctx, target, oldBootId) === undefined;
      return isBack ? undefined : "it still answers";
    },
  });
  return missing === undefined;
}

/**
 * Waits until the device is ready and has the agent's key, which it would lose if it got it before
 * its first boot is complete.
 *
 * @param oldBootId of the system that was told to recover: as long as it answers, nothing has
 *   happened. Undefined: that does not count.
 */
async function waitUntilReady(
  ctx: ConnectorContext,
  recovery: Recovery,
  oldBootId: string | undefined,
): Promise<void> {
  const missing = await pollUntil(ctx, {
    waitingFor: "the device to be ready",
    limitMs: READY_LIMIT_MS,
    pauseMs: READY_PAUSE_MS,
    look: async () =>
      await missingForReadiness(ctx, recovery, oldBootId) ?? await copyKey(ctx, recovery.target),
  });
  if (missing === undefined) return;
  throw new ProvisioningError(
    `The device was not ready ${READY_LIMIT_MS / 1000} s after its recovery: ${missing}`,
  );
}

/** What the device still lacks, undefined when it is ready. */
async function missingForReadiness(
  ctx: ConnectorContext,
  { target, readyCommand }: Recovery,
  oldBootId: string | undefined,
): Promise<string | undefined> {
  const notYet = await notRebooted(ctx, target, oldBootId);
  if (notYet !== undefined) return notYet;
  if (readyCommand !== undefined) {
    const result = await ssh(ctx, target, readyCommand, { timeoutMs: READY_CMD_TIMEOUT_MS });
    return succeeded(result) ? undefined : sshFailureText(target, "ready_cmd", result);
  }
  const model = await ssh(ctx, target, "snap model", { timeoutMs: QUERY_TIMEOUT_MS });
  if (lineHas(model, "model", "generic-classic")) return undefined;
  const changes = await ssh(ctx, target, "snap changes", { timeoutMs: QUERY_TIMEOUT_MS });
  if (lineHas(changes, "Initialize device", "Done")) return undefined;
  return succeeded(changes)
    ? "snapd has not initialized the device"
    : sshFailureText(target, "snap changes", changes);
}

/** Does a line with the first text also have the second? */
function lineHas(result: CommandResult, first: string, second: string): boolean {
  return succeeded(result) &&
    result.stdout.split("\n").some((line) => line.includes(first) && line.includes(second));
}
