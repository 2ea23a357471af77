/**
 * OEM PCs with a recovery partition: an ISO is unpacked over that partition, on the device itself,
 * and the device is told to recover from it. Four connectors of one kind, which differ in what
 * recovers.
 */
import type { Connector } from "./context.ts";
import { defineConnector } from "./define.ts";
import { oemConfigShape, type OemContext, oemProvisionShape } from "./oemscript/config.ts";
import { recoverByScript } from "./oemscript/external_script.ts";
import { type Flavour, type IsoPlan, isoPlan } from "./oemscript/iso.ts";
import { recover } from "./oemscript/recovery.ts";
import { restart, waitUntilBooted } from "./support/wait/key_login.ts";
import { GIT, SCP, SSH, SSH_COPY_ID, SSHPASS, TAR } from "./support/process/programs.ts";

function oemConnector(name: string, flavour: Flavour, recovers: string): Connector {
  return defineConnector({
    name,
    summary: `Installs an OEM PC from an ISO by way of its recovery partition, by ${recovers}.`,
    testedAgainst: "a real OpenSSH server as the device; what is run there is a stand-in",
    config: oemConfigShape,
    provisionData: oemProvisionShape,
    needs: ["device_ip"],
    programs: [SSH, SCP, SSHPASS, SSH_COPY_ID, { ...GIT, onlyFor: "presets from Launchpad" }, TAR],
    prepare: (ctx, { job, data }) => isoPlan(ctx, { job, data, flavour }),
    provision: (ctx, { plan }) => installIso(ctx, plan),
  });
}

/** Unpacks the ISO over the recovery partition, and has the device recover from it. */
export async function installIso(ctx: OemContext, plan: IsoPlan): Promise<void> {
  await restart(ctx, plan.login);
  if (ctx.config.oem_recovery_script !== undefined) await recoverByScript(ctx, plan);
  else await recover(ctx, plan);
  await waitUntilBooted(ctx, { login: plan.login, before: undefined });
}

export const oemscript = oemConnector("oemscript", "dell", "dell-restore-system");
export const dellOemscript = oemConnector("dell_oemscript", "dell", "dell-restore-system");
export const hpOemscript = oemConnector("hp_oemscript", "ubr", "Ubuntu's recovery (ubr)");
export const lenovoOemscript = oemConnector("lenovo_oemscript", "ubr", "Ubuntu's recovery (ubr)");
