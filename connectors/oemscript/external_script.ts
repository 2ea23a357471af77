/** The recovery by an operator's own script, such as recovery-from-iso.sh. */
import { need } from "../support/config.ts";
import { expectSuccess } from "../support/process/runner.ts";
import { publicKeyFile } from "../support/ssh/ssh_keys.ts";
import type { OemContext } from "./config.ts";
import type { IsoPlan } from "./iso.ts";

const SCRIPT_TIMEOUT_MS = 5_400_000;

/** @throws ProvisioningError when the script fails or takes more than 90 minutes. */
export async function recoverByScript(ctx: OemContext, plan: IsoPlan): Promise<void> {
  const script = need(ctx.config, "oem_recovery_script");
  const result = await ctx.runner.run([
    script,
    ...(plan.flavour === "ubr" ? ["--ubr"] : []),
    "--dut-iso-url",
    plan.url,
    "--inject-ssh-key",
    await publicKeyFile(ctx),
    "-t",
    need(ctx.config, "device_ip"),
  ], { timeoutMs: SCRIPT_TIMEOUT_MS, onOutput: (bytes) => ctx.print(bytes) });
  expectSuccess(result, { step: "recover the device", program: script });
}
