/**
 * OEM PCs from Ubuntu 24.04 on: a control host boots an ISO on the device, or an OEM ISO is written to
 * the device's reset partition and installs itself from there, or both, one after the other.
 */
import stockGrub from "./oem_autoinstall/templates/stock-grub.cfg" with { type: "text" };
import defaultUserData from "./oem_autoinstall/templates/default-user-data.yaml" with {
  type: "text",
};
import enableRemoteDesktop from "./oem_autoinstall/templates/enable_remote_desktop.sh" with {
  type: "text",
};
import setUbuntuBoot from "./oem_autoinstall/templates/set_ubuntu_boot.sh" with { type: "text" };
import setUsbBoot from "./oem_autoinstall/templates/set_usb_boot.sh" with { type: "text" };
import stockUserData from "./oem_autoinstall/templates/stock-user-data.yaml" with { type: "text" };
import type { PrepareContext } from "./context.ts";
import { defineConnector } from "./define.ts";
import { type AutoinstallData, autoinstallProvisionShape } from "./oem_autoinstall/config.ts";
import { deployImage, deployPlan } from "./oem_autoinstall/deploy.ts";
import {
  type ControlHostRequest,
  controlHostRequest,
  provisionByControlHost,
} from "./support/control_host/provision.ts";
import { ProvisioningError } from "./support/errors.ts";
import { type Credentials, credentials, type JobData } from "./support/job.ts";
import { SSH, SSH_COPY_ID, SSHPASS } from "./support/process/programs.ts";
import { publicKeys } from "./support/ssh/ssh_keys.ts";

const DEFAULT_LOGIN: Credentials = { user: "ubuntu", password: "insecure" };

export const oemAutoinstall = defineConnector({
  name: "oem_autoinstall",
  summary: "Installs an OEM PC from its reset partition, or from an ISO that a control host boots.",
  testedAgainst: "a real OpenSSH server as the device; what is run there is a stand-in",
  config: {},
  provisionData: autoinstallProvisionShape,
  needs: ["device_ip"],
  programs: [SSH, SSHPASS, SSH_COPY_ID],
  async prepare(ctx, { job, data }) {
    const login = { ...credentials(job, DEFAULT_LOGIN), keys: await publicKeys(ctx) };
    const { control_host_iso_url: isoUrl, control_host_iso_type: isoType, url } = data;
    const hasIso = isoUrl !== undefined || isoType !== undefined;
    if (!hasIso && url === undefined) {
      throw new ProvisioningError(
        "The job's provision_data has neither 'url' nor 'control_host_iso_url': there is nothing to " +
          "install",
      );
    }
    const userData = bundledUserData("default", login);
    return {
      boot: hasIso ? await bootRequest(ctx, { job, data, login }) : undefined,
      deployment: url === undefined
        ? undefined
        : await deployPlan(ctx, { data, url, login, userData }),
    };
  },
  async provision(ctx, { plan: { boot, deployment } }) {
    if (boot !== undefined) await provisionByControlHost(ctx, boot);
    if (deployment !== undefined) await deployImage(ctx, deployment);
  },
});

/** What the control host is asked for when it is to boot an ISO on the device. */
async function bootRequest(
  ctx: PrepareContext,
  { job, data, login }: {
    readonly job: JobData;
    readonly data: AutoinstallData;
    readonly login: Credentials & { readonly keys: readonly string[] };
  },
): Promise<ControlHostRequest> {
  const { control_host_iso_url: url, control_host_iso_type: type } = data;
  if (url === undefined || type === undefined) {
    throw new ProvisioningError(
      "The job's provision_data must have both 'control_host_iso_url' and 'control_host_iso_type'",
    );
  }
  const isStock = type === "stock";
  return await controlHostRequest(ctx, {
    method: "ProvisioningOEM",
    kwargs: {
      control_host_iso_url: url,
      control_host_iso_type: type,
      update_user_data: data.update_user_data,
      username: login.user,
      password: login.password,
      meta_data_b64: isStock ? "" : null,
      user_data_b64: isStock ? base64(bundledUserData("stock", login)) : null,
      grub_cfg_b64: isStock ? base64(stockGrub) : null,
    },
    job,
    data,
  });
}

const TEMPLATES = { default: defaultUserData, stock: stockUserData };

/**
 * User data for an installation that nobody attends.
 *
 * @param which `default` for the reset partition, `stock` for a stock desktop image.
 * @param login the user that is to be on the installed system, and the keys that let one in.
 */
export function bundledUserData(
  which: keyof typeof TEMPLATES,
  login: Credentials & { readonly keys: readonly string[] },
): string {
  // JSON is YAML, and what is a user name by `checkUserName` needs no quotes in a shell.
  const values: Readonly<Record<string, string>> = {
    USER: JSON.stringify(login.user),
    USER_NAME: login.user,
    PASSWORD: JSON.stringify(login.password),
    KEYS: JSON.stringify(login.keys),
    SET_USB_BOOT: base64(setUsbBoot),
    SET_UBUNTU_BOOT: base64(setUbuntuBoot),
    ENABLE_REMOTE_DESKTOP: base64(enableRemoteDesktop),
  };
  return TEMPLATES[which].replaceAll(
    /@([A-Z_]+)@/g,
    (whole, name: string) => values[name] ?? whole,
  );
}

/** Text as base64 of its UTF-8. */
function base64(text: string): string {
  return new TextEncoder().encode(text).toBase64();
}
