/** The cloud-init user data that we bring along, with the job's user and keys in it. */
import type { Credentials } from "../support/job.ts";
import defaultUserData from "./templates/default-user-data.yaml" with { type: "text" };
import enableRemoteDesktop from "./templates/enable_remote_desktop.sh" with { type: "text" };
import setUbuntuBoot from "./templates/set_ubuntu_boot.sh" with { type: "text" };
import setUsbBoot from "./templates/set_usb_boot.sh" with { type: "text" };
import stockUserData from "./templates/stock-user-data.yaml" with { type: "text" };

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
export function base64(text: string): string {
  return new TextEncoder().encode(text).toBase64();
}
