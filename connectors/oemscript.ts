/**
 * OEM PCs with a recovery partition: an ISO is unpacked over that partition, on the device itself,
 * and the device is told to recover from it. Four connectors of one kind, which differ in what
 * recovers.
 */
import type { Connector } from "./context.ts";
import { defineConnector } from "./define.ts";
import {
  type Flavour,
  type IsoPlan,
  isoPlan,
  oemConfigShape,
  type OemContext,
  type OemData,
  type OemPrepareContext,
  oemProvisionShape,
} from "./oemscript/config.ts";
import { checkPresetCopies } from "./oemscript/presets.ts";
import { recover } from "./oemscript/recovery.ts";
import { need } from "./support/config.ts";
import type { JobData } from "./support/job.ts";
import { GIT, SCP, SSH, SSH_COPY_ID, SSHPASS, TAR } from "./support/process/programs.ts";
import { expectSuccess } from "./support/process/runner.ts";
import { deviceTarget } from "./support/ssh/ssh.ts";
import { publicKeyFile } from "./support/ssh/ssh_keys.ts";
import { deviceBootId, restart, waitUntilBooted } from "./support/wait/boot.ts";

function oemConnector(name: string, flavour: Flavour, recovers: string): Connector {
  return defineConnector({
    name,
    summary: `Installs an OEM PC from an ISO by way of its recovery partition, by ${recovers}.`,
    testedAgainst: "a real OpenSSH server as the device; what is run there is a stand-in",
    config: oemConfigShape,
    provisionData: oemProvisionShape,
    needs: ["device_ip"],
    programs: [SSH, SCP, SSHPASS, SSH_COPY_ID, { ...GIT, onlyFor: "presets from Launchpad" }, TAR],
    prepare: (ctx, { job, data }) => installPlan(ctx, { job, data, flavour }),
    provision: (ctx, { plan }) => installIso(ctx, plan),
  });
}

/**
 * What is to be installed, after a look at all that the installation needs of this host.
 *
 * @throws ProvisioningError when something of it is not there, or the job names no ISO that can be used.
 * @throws JobError when the job wants to log in as a user that there will not be.
 */
export async function installPlan(
  ctx: OemPrepareContext,
  wanted: { readonly job: JobData; readonly data: OemData; readonly flavour: Flavour },
): Promise<IsoPlan> {
  const plan = isoPlan(ctx, wanted);
  await publicKeyFile(ctx);
  // An operator's own script brings its own presets.
  if (ctx.config.oem_recovery_script === undefined) await checkPresetCopies(ctx, plan);
  return plan;
}

/** Unpacks the ISO over the recovery partition, and has the device recover from it. */
export async function installIso(ctx: OemContext, plan: IsoPlan): Promise<void> {
  const { login } = plan;
  await restart(ctx, login);
  const isByScript = ctx.config.oem_recovery_script !== undefined;
  const before = isByScript ? await recoverByScript(ctx, plan) : await recover(ctx, plan);
  await waitUntilBooted(ctx, { login, before });
}

export const oemscript = oemConnector("oemscript", "dell", "dell-restore-system");
export const dellOemscript = oemConnector("dell_oemscript", "dell", "dell-restore-system");
export const hpOemscript = oemConnector("hp_oemscript", "ubr", "Ubuntu's recovery (ubr)");
export const lenovoOemscript = oemConnector("lenovo_oemscript", "ubr", "Ubuntu's recovery (ubr)");

const SCRIPT_TIMEOUT_MS = 5_400_000;

/**
 * Has the operator's script do the recovery.
 *
 * @returns the boot id of the system that was told to recover; undefined where it did not say.
 * @throws ProvisioningError when the script fails or takes more than 90 minutes.
 */
async function recoverByScript(ctx: OemContext, plan: IsoPlan): Promise<string | undefined> {
  const before = await deviceBootId(ctx, deviceTarget(ctx, { user: plan.login.user }));
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
  return before;
}
