/** Contents of the files that create a user at an image's first boot. */
import { stringify } from "yaml";
import oemConfigService from "./templates/oem-config.service" with { type: "text" };
import preseedTemplate from "./templates/preseed.cfg" with { type: "text" };

/** The user to create. */
export interface Login {
  readonly user: string;
  readonly password: string;
  /** Public keys, one each. */
  readonly keys: readonly string[];
}

/** The user that Ubuntu's images create by themselves. */
const DEFAULT_USER = "ubuntu";

const SUDO_RULE = "ALL=(ALL) NOPASSWD:ALL";

/** What the default user of Ubuntu's own images may use. */
const GROUPS = [
  "adm",
  "dialout",
  "cdrom",
  "floppy",
  "sudo",
  "audio",
  "dip",
  "video",
  "plugdev",
  "lxd",
  "netdev",
  "render",
];

/** cloud-init does its work once for each instance id. */
export const META_DATA = stringify({ "instance-id": "testflinger" });

/** User data for images whose cloud-init creates a default user. */
export function classicUserData(login: Login): string {
  if (login.user !== DEFAULT_USER) return cloudConfig(withUsers(login, ["default", person(login)]));
  return cloudConfig({
    password: login.password,
    chpasswd: { expire: false },
    ssh_pwauth: true,
    ...authorized(login),
  });
}

/** User data for IoT images, which have no default user. */
export function iotUserData(login: Login): string {
  return cloudConfig(withUsers(login, [{ ...person(login), uid: 1000 }]));
}

/** User data for desktops whose first boot is cloud-init's business. */
export function desktopUserData(login: Login): string {
  return cloudConfig({
    ...withUsers(login, [person(login)]),
    packages: ["openssh-server"],
    write_files: [{
      path: "/etc/gdm3/custom.conf",
      content: `[daemon]\nAutomaticLoginEnable=true\nAutomaticLogin=${login.user}\n`,
    }],
  });
}

/** Configuration of cloud-init for Ubuntu Core 20 and later, data source included. */
export function coreCloudConfig(login: Login): string {
  return stringify({
    datasource_list: ["NoCloud", "None"],
    datasource: {
      NoCloud: {
        "user-data": cloudConfig({ users: [person(login)], ssh_pwauth: true }),
        "meta-data": META_DATA,
      },
    },
  });
}

/** A sudoers file that asks the user for nothing. */
export function sudoers({ user }: Login): string {
  return `${user.replaceAll("@", "\\@")} ${SUDO_RULE}\n`;
}

/** Unit that answers the questions of a desktop's first boot from /preseed.cfg. */
export const OEM_CONFIG_SERVICE: string = oemConfigService;

/** Answers to the questions of a desktop's first boot. */
export function preseed({ user, password }: Login): string {
  const values: Readonly<Record<string, string>> = { "@USER@": user, "@PASSWORD@": password };
  return preseedTemplate.replaceAll(/@[A-Z]+@/g, (mark) => values[mark] ?? mark);
}

function cloudConfig(content: Record<string, unknown>): string {
  return `#cloud-config\n${stringify(content, { lineWidth: 0 })}`;
}

function withUsers(login: Login, users: readonly unknown[]): Record<string, unknown> {
  return {
    users,
    // Also where the user is there already, when cloud-init leaves it as it is.
    chpasswd: { expire: false, list: [`${login.user}:${login.password}`] },
    ssh_pwauth: true,
  };
}

function person(login: Login): Record<string, unknown> {
  return {
    name: login.user,
    shell: "/bin/bash",
    groups: GROUPS,
    sudo: SUDO_RULE,
    lock_passwd: false,
    plain_text_passwd: login.password,
    ...authorized(login),
  };
}

function authorized({ keys }: Login): Record<string, unknown> {
  return keys.length === 0 ? {} : { ssh_authorized_keys: keys };
}
