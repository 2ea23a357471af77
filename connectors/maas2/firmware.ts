/** What is asked of a machine's firmware before MAAS gets it: to boot from the network, and to clear its TPM. */
import { fullMessageOf } from "../support/errors.ts";
import { expectSuccess, failureText, succeeded } from "../support/process/runner.ts";
import { deviceTarget, ssh } from "../support/ssh/ssh.ts";
import { type MaasContext, MACHINE_USER } from "./config.ts";

const COMMAND_TIMEOUT_MS = 60_000;
const INSTALL_TIMEOUT_MS = 300_000;

/** For machines with apt, and for those without. */
const INSTALL_COMMANDS = [
  "sudo DEBIAN_FRONTEND=noninteractive apt-get install -y efibootmgr",
  "sudo snap install efi-tools-ijohnson --devmode --edge && " +
  "sudo snap alias efi-tools-ijohnson.efibootmgr efibootmgr",
];

const ENTRY = /^Boot([0-9A-Fa-f]{4})\*?\s+(.+)$/;

/** How network boot entries call themselves. */
const NETWORK = "IPv4";

/**
 * The boot order with network boot first: the entry that was booted, if it is one, then the other
 * network entries as printed, then what else was in the order.
 *
 * @param listing what `efibootmgr -v` prints.
 * @returns undefined when there is no order, or nothing to change in it.
 */
export function networkBootOrder(listing: string): string[] | undefined {
  let current: string | undefined;
  let order: string[] | undefined;
  const network: string[] = [];
  for (const line of listing.split("\n").map((line) => line.trim())) {
    const [, number, description = ""] = ENTRY.exec(line) ?? [];
    if (number !== undefined) {
      if (description.includes(NETWORK)) network.push(number);
    } else if (line.startsWith("BootCurrent:")) {
      current = line.slice("BootCurrent:".length).trim();
    } else if (line.startsWith("BootOrder:")) {
      order = line.slice("BootOrder:".length).split(",").map((entry) => entry.trim())
        .filter((entry) => /^[0-9A-Fa-f]{4}$/.test(entry));
    }
  }
  if (order === undefined || order.length === 0) return undefined;
  const first = network.filter((entry) => entry === current);
  const wanted = [...new Set([...first, ...network, ...order])];
  return wanted.join() === order.join() ? undefined : wanted;
}

/** Puts network boot first on the machine. Best effort: what goes wrong is logged. */
export async function bootFromNetwork(ctx: MaasContext): Promise<void> {
  const run = (command: string, timeoutMs = COMMAND_TIMEOUT_MS) =>
    ssh(ctx, deviceTarget(ctx, { user: MACHINE_USER }), command, { timeoutMs });
  try {
    let listing = await run("sudo efibootmgr -v");
    if (!succeeded(listing) && ctx.config.reset_efi_install_tools) {
      for (const command of INSTALL_COMMANDS) {
        const installed = await run(command, INSTALL_TIMEOUT_MS);
        if (succeeded(installed)) break;
        ctx.log.warning(`Cannot install efibootmgr: ${failureText("ssh", installed)}`);
      }
      listing = await run("sudo efibootmgr -v");
    }
    expectSuccess(listing, { step: "read the EFI boot order", program: "ssh" });
    const order = networkBootOrder(listing.stdout);
    if (order === undefined) return;
    const changed = await run(`sudo efibootmgr -o ${order.join(",")}`);
    expectSuccess(changed, { step: "change the EFI boot order", program: "ssh" });
  } catch (error) {
    ctx.signal.throwIfAborted();
    ctx.log.warning(`${fullMessageOf(error)}; going on without`);
  }
}

const TPM_COMMAND_TIMEOUT_MS = 30_000;
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
    ssh(ctx, deviceTarget(ctx, { user: MACHINE_USER }), command, {
      timeoutMs: TPM_COMMAND_TIMEOUT_MS,
    });
  const written = await run(`echo ${CLEAR} | sudo tee ${REQUEST_FILE}`);
  if (!succeeded(written)) return failureText("ssh", written);
  const read = await run(`cat ${REQUEST_FILE}`);
  if (!succeeded(read)) return failureText("ssh", read);
  const request = read.stdout.trim();
  return request === CLEAR ? undefined : `${REQUEST_FILE} has '${request}' in it, not ${CLEAR}`;
}
