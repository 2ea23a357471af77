/** Contents of the files that create a user at an image's first boot. */
import { stringify } from "yaml";

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
export const OEM_CONFIG_SERVICE = `[Unit]
Description=Unattended set-up at the first boot
ConditionFileIsExecutable=/usr/sbin/oem-config-firstboot
ConditionPathExists=/dev/tty1
ConditionKernelCommandLine=!boot=casper
ConditionKernelCommandLine=!boot=live
ConditionKernelCommandLine=!single
ConditionKernelCommandLine=!rescue
ConditionKernelCommandLine=!emergency

[Service]
Type=oneshot
RemainAfterExit=yes
StandardInput=tty
StandardOutput=tty
StandardError=tty
TTYPath=/dev/tty1
TTYReset=yes
ExecStartPre=/bin/sh -c 'until debconf-set-selections /preseed.cfg; do sleep 30; done'
ExecStart=/usr/sbin/oem-config-firstboot --automatic

[Install]
RequiredBy=oem-config.target
WantedBy=oem-config.target
`;

/** Answers to the questions of a desktop's first boot. */
export function preseed({ user, password }: Login): string {
  const answers:
    readonly (readonly [owner: string, question: string, type: string, value: string])[] = [
      ["d-i", "debian-installer/locale", "string", "en_US.UTF-8"],
      ["d-i", "debian-installer/language", "string", "en"],
      ["d-i", "debian-installer/country", "string", "US"],
      ["d-i", "localechooser/supported-locales", "multiselect", "en_US.UTF-8"],
      ["d-i", "console-setup/ask_detect", "boolean", "false"],
      ["d-i", "keyboard-configuration/layoutcode", "string", "us"],
      ["d-i", "keyboard-configuration/xkb-keymap", "select", "us"],
      ["d-i", "netcfg/choose_interface", "select", "auto"],
      ["d-i", "netcfg/get_hostname", "string", "ubuntu"],
      ["d-i", "netcfg/wireless_wep", "string", ""],
      ["d-i", "time/zone", "string", "Etc/UTC"],
      ["d-i", "clock-setup/utc", "boolean", "true"],
      ["d-i", "passwd/user-fullname", "string", user],
      ["d-i", "passwd/username", "string", user],
      ["d-i", "passwd/user-password", "password", password],
      ["d-i", "passwd/user-password-again", "password", password],
      ["d-i", "passwd/auto-login", "boolean", "true"],
      ["d-i", "user-setup/allow-password-weak", "boolean", "true"],
      ["d-i", "user-setup/encrypt-home", "boolean", "false"],
      [
        "ubiquity",
        "ubiquity/success_command",
        "string",
        "apt-get update; apt-get install -y openssh-server; systemctl start NetworkManager",
      ],
      ["ubiquity", "ubiquity/summary", "note", ""],
      ["ubiquity", "ubiquity/reboot", "boolean", "true"],
    ];
  return answers.map((answer) => `${answer.join(" ").trimEnd()}\n`).join("");
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
