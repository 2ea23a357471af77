import { failureText, succeeded } from "../support/process/runner.ts";
import { deviceTarget, ssh } from "../support/ssh/ssh.ts";
import { type MaasContext, MACHINE_USER } from "./config.ts";

const COMMAND_TIMEOUT_MS = 30_000;
const REQUEST_FILE = "/sys/class/tpm/tpm0/ppi/request";

/** "Clear the TPM" of the Physical Presence Interface. */
const CLEAR = "5";

/**
 * Asks the machine's firmware to clear the TPM at the next boot.
 *
 * @returns why that did not work; undefined when it did.
 */
export async function requestTpmClear(ctx: MaasContext): Promise<string | undefined> {
  const run = (command: string) =>
    ssh(ctx, deviceTarget(ctx, { user: MACHINE_USER }), command, { timeoutMs: COMMAND_TIMEOUT_MS });
  const written = await run(`echo ${CLEAR} | sudo tee ${REQUEST_FILE}`);
  if (!succeeded(written)) return failureText("ssh", written);
  const read = await run(`cat ${REQUEST_FILE}`);
  if (!succeeded(read)) return failureText("ssh", read);
  const request = read.stdout.trim();
  return request === CLEAR ? undefined : `${REQUEST_FILE} has '${request}' in it, not ${CLEAR}`;
}
