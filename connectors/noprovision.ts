import * as z from "zod";
import { type ConnectorContext, defineConnector } from "./connector.ts";
import { ProvisioningError, RecoveryError } from "./support/errors.ts";
import { credentials } from "./support/job.ts";
import { hardReset } from "./support/script/reboot.ts";
import { type CommandResult, succeeded } from "./support/process/runner.ts";
import {
  destination,
  deviceTarget,
  ssh,
  sshFailureText,
  type SshTarget,
} from "./support/ssh/ssh.ts";
import { copySshKey } from "./support/ssh/ssh_keys.ts";
import { SSH, SSH_COPY_ID, SSHPASS } from "./support/process/programs.ts";

const PROBE = "/bin/true";

const PASSWORDS = "devices that ask for a password";

/** ssh gives up connecting after 10 s; a device that takes the connection and then hangs needs more. */
const PROBE_TIMEOUT_MS = 30_000;

/** The device does not even begin to boot before. */
const FIRST_PAUSE_MS = 60_000;
const PROBE_PAUSE_MS = 10_000;
const BOOT_LIMIT_MS = 300_000;

const KEY_TIMEOUT_MS = 60_000;

/** For devices that are never reinstalled: makes sure that they answer. */
export const noprovision = defineConnector({
  name: "noprovision",
  summary: "Installs nothing: makes sure that the device answers on ssh, resetting it if need be.",
  config: {
    unreachable_is_recovery_error: z.boolean().default(false).describe(
      "A device that does not answer even after a reset takes the agent offline (exit status 46).",
    ),
  },
  provisionData: {
    skip: z.boolean().optional().describe("True: do not even look whether the device answers."),
  },
  needs: ["device_ip"],
  wanted: (data) => data.skip !== true,
  programs: [SSH, { ...SSHPASS, onlyFor: PASSWORDS }, { ...SSH_COPY_ID, onlyFor: PASSWORDS }],
  async provision(ctx, { job }) {
    const { user } = credentials(job);
    const target = deviceTarget(ctx, { user });
    let last = await probe(ctx, target);
    if (succeeded(last)) return;

    let alsoWrong = "";
    const password = job.test_data?.test_password;
    if (isRefusal(last) && password) {
      ctx.log.info(`${destination(target)} refuses the agent's key: installing it`);
      const copied = await copySshKey(ctx, { ...target, password }, {
        attempts: 1,
        timeoutMs: KEY_TIMEOUT_MS,
      });
      if (copied.ok) {
        last = await probe(ctx, target);
        if (succeeded(last)) return;
      } else {
        const problem = `Cannot install the agent's key on the device: ${copied.why}`;
        // This host lacks something: no reset of the device would bring it.
        if (copied.missing) throw new ProvisioningError(problem);
        alsoWrong = `; ${problem}`;
      }
    }

    if (!ctx.config.reboot_script?.length) {
      throw new ProvisioningError(
        `The device does not let us in, and no 'reboot_script' is set to reset it: ` +
          sshFailureText(target, PROBE, last) + alsoWrong,
      );
    }
    ctx.log.warning(
      `The device does not let us in: ${sshFailureText(target, PROBE, last)}${alsoWrong}`,
    );
    await hardReset(ctx);
    await ctx.clock.sleep(FIRST_PAUSE_MS, ctx.signal);
    const deadline = ctx.clock.monotonic() + BOOT_LIMIT_MS;
    const leftMs = () => deadline - ctx.clock.monotonic();
    while (leftMs() > 0) {
      await ctx.clock.sleep(Math.min(PROBE_PAUSE_MS, leftMs()), ctx.signal);
      if (leftMs() <= 0) break;
      last = await probe(ctx, target, Math.min(PROBE_TIMEOUT_MS, leftMs()));
      if (succeeded(last)) return;
    }
    const ErrorClass = ctx.config.unreachable_is_recovery_error ? RecoveryError : ProvisioningError;
    throw new ErrorClass(
      `The device does not let us in ${
        (FIRST_PAUSE_MS + BOOT_LIMIT_MS) / 1000
      } s after its reset: ` +
        sshFailureText(target, PROBE, last) + alsoWrong,
    );
  },
});

function probe(
  ctx: ConnectorContext,
  target: SshTarget,
  timeoutMs = PROBE_TIMEOUT_MS,
): Promise<CommandResult> {
  return ssh(ctx, target, PROBE, { timeoutMs });
}

/** Did the device answer, but not let us in? */
function isRefusal(result: CommandResult): boolean {
  return result.ended === "exited" && result.stderr.includes("Permission denied");
}
