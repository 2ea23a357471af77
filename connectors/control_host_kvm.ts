/** PCs and servers that a control host installs through its KVM-over-IP hardware. */
import type { ConnectorContext } from "./context.ts";
import {
  bringsOem,
  kvmArguments,
  kvmProvisionShape,
  OEM_LOGIN,
} from "./control_host_kvm/request.ts";
import { defineConnector } from "./define.ts";
import { installIso, installPlan } from "./oemscript.ts";
import { type Flavour, oemConfigShape } from "./oemscript/config.ts";
import {
  bootBinary,
  controlHostRequest,
  provisionByControlHost,
} from "./support/control_host/provision.ts";
import { ProvisioningError } from "./support/errors.ts";
import { type Credentials, credentials } from "./support/job.ts";
import { GIT, SCP, SSH, SSH_COPY_ID, SSHPASS, TAR } from "./support/process/programs.ts";
import { succeeded } from "./support/process/runner.ts";
import { deviceTarget, ssh, sshFailureText } from "./support/ssh/ssh.ts";
import { copySshKey } from "./support/ssh/ssh_keys.ts";

const PASSWORD_TIMEOUT_MS = 60_000;
/** The machine may still be rebooting. */
const PASSWORD_ATTEMPTS = 10;
const PASSWORD_PAUSE_MS = 30_000;

/** Vendors whose images bring Ubuntu's own recovery. */
const UBR_VENDORS = ["hp", "lenovo"];

const OEM_ONLY = "OEM images";

export const controlHostKvm = defineConnector({
  name: "control_host_kvm",
  summary: "Lets the service of a control host install a PC or server through KVM over IP.",
  config: oemConfigShape,
  provisionData: kvmProvisionShape,
  testedAgainst: "a real HTTP server, in place of the control host's service",
  needs: ["control_host", "agent_name", "device_ip"],
  mostlyNeeds: { reboot_script: "jobs without a 'reboot_script'" },
  programs: [SSH, SCP, SSHPASS, SSH_COPY_ID, { ...GIT, onlyFor: "presets from Launchpad" }, TAR]
    .map((program) => ({ ...program, onlyFor: program.onlyFor ?? OEM_ONLY })),
  async prepare(ctx, { job, data }) {
    const request = await controlHostRequest(ctx, {
      method: "ProvisioningKVM",
      kwargs: await kvmArguments(ctx, { job, data }),
      job,
      data,
      bootBinary: await bootBinary(ctx),
    });
    if (!bringsOem(data)) return { request };
    const flavour: Flavour = UBR_VENDORS.includes(data.oem?.toLowerCase() ?? "") ? "ubr" : "dell";
    return {
      request,
      login: credentials(job),
      // Without a URL there is no second step.
      iso: data.url === undefined ? undefined : await installPlan(ctx, { job, data, flavour }),
    };
  },
  async provision(ctx, { plan: { request, login, iso } }) {
    await provisionByControlHost(ctx, request);
    if (login === undefined) return;
    await setPassword(ctx, login);
    const copied = await copySshKey(ctx, deviceTarget(ctx, login), { force: true });
    if (!copied.ok) {
      throw new ProvisioningError(`The device does not take the agent's ssh key: ${copied.why}`);
    }
    if (iso !== undefined) await installIso(ctx, iso);
    else ctx.log.warning("The job has no 'url': the device stays with the OEM image");
  },
});

/** Gives the user of the OEM image the job's password, which goes by standard input. */
async function setPassword(ctx: ConnectorContext, login: Credentials): Promise<void> {
  const target = deviceTarget(ctx, OEM_LOGIN);
  const command = "sudo chpasswd";
  for (let attempt = 1;; attempt++) {
    const result = await ssh(ctx, target, command, {
      timeoutMs: PASSWORD_TIMEOUT_MS,
      input: `${login.user}:${login.password}\n`,
    });
    if (succeeded(result)) return;
    const failure = `Cannot set the device's password: ${sshFailureText(target, command, result)}`;
    if (attempt >= PASSWORD_ATTEMPTS) throw new ProvisioningError(failure);
    ctx.log.warning(`${failure}; trying again in ${PASSWORD_PAUSE_MS / 1000} s`);
    await ctx.clock.sleep(PASSWORD_PAUSE_MS, ctx.signal);
  }
}
