import * as z from "zod";
import { defineConnector } from "./define.ts";
import { ProvisioningError, RecoveryError } from "./support/errors.ts";
import { credentials } from "./support/job.ts";
import { hardReset } from "./support/script/script.ts";
import { destination, deviceTarget } from "./support/ssh/ssh.ts";
import { copySshKey } from "./support/ssh/ssh_keys.ts";
import { SSH, SSH_COPY_ID, SSHPASS } from "./support/process/programs.ts";
import { keyLetsIn } from "./support/wait/boot.ts";
import { pollUntil } from "./support/wait/poll.ts";

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
  summary:
    "Installs nothing: makes sure that the device answers on ssh, and resets it if necessary.",
  config: {
    unreachable_is_recovery_error: z.boolean().default(false).describe(
      "A device that does not answer even after a reset takes the agent offline (exit status 46).",
    ),
  },
  testedAgainst: "a real OpenSSH server as the device",
  provisionData: {
    skip: z.boolean().optional().describe("true: do not even check whether the device answers."),
  },
  needs: ["device_ip"],
  wanted: (data) => data.skip !== true,
  programs: [SSH, { ...SSHPASS, onlyFor: PASSWORDS }, { ...SSH_COPY_ID, onlyFor: PASSWORDS }],
  prepare: (ctx, { job }) => deviceTarget(ctx, { user: credentials(job).user }),
  async provision(ctx, { job, plan: target }) {
    let last = await keyLetsIn(ctx, target, PROBE_TIMEOUT_MS);
    if (last.ok) return;

    let alsoWrong = "";
    const password = job.test_data?.test_password;
    if (last.refused && password) {
      ctx.log.info(`${destination(target)} refuses the agent's key: installing it`);
      const copied = await copySshKey(ctx, { ...target, password }, {
        attempts: 1,
        timeoutMs: KEY_TIMEOUT_MS,
      });
      if (copied.ok) {
        last = await keyLetsIn(ctx, target, PROBE_TIMEOUT_MS);
        if (last.ok) return;
      } else {
        const problem = `Cannot install the agent's key on the device: ${copied.why}`;
        // This host lacks something: no reset of the device would bring it.
        if (copied.missing) throw new ProvisioningError(problem);
        alsoWrong = `; ${problem}`;
      }
    }

    if (!ctx.config.reboot_script?.length) {
      throw new ProvisioningError(
        `Cannot log in to the device, and no 'reboot_script' is set to reset it: ` +
          last.why + alsoWrong,
      );
    }
    ctx.log.warning(`Cannot log in to the device: ${last.why}${alsoWrong}`);
    await hardReset(ctx);
    await ctx.clock.sleep(FIRST_PAUSE_MS, ctx.signal);
    let why = last.why;
    const missing = await pollUntil(ctx, {
      waitingFor: "the device to accept the agent's key after its reset",
      limitMs: BOOT_LIMIT_MS,
      pauseMs: PROBE_PAUSE_MS,
      async look(leftMs) {
        // At the very end there is no time for another probe.
        if (leftMs === 0) return why;
        const login = await keyLetsIn(ctx, target, Math.min(PROBE_TIMEOUT_MS, leftMs));
        if (login.ok) return undefined;
        return why = login.why;
      },
    });
    if (missing === undefined) return;
    const ErrorClass = ctx.config.unreachable_is_recovery_error ? RecoveryError : ProvisioningError;
    throw new ErrorClass(
      `Cannot log in to the device ${
        (FIRST_PAUSE_MS + BOOT_LIMIT_MS) / 1000
      } s after its reset: ${missing}${alsoWrong}`,
    );
  },
});
