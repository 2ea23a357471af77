/** What has to be done to an image so that a user can log in. */
import type { ImageType } from "./image_type.ts";
import {
  classicUserData,
  coreCloudConfig,
  desktopUserData,
  iotUserData,
  type Login,
  META_DATA,
  OEM_CONFIG_SERVICE,
  preseed,
  sudoers,
  SUDOERS_NAME,
} from "./seed_files.ts";

/** From this release on, desktops for the Pi are set up by cloud-init. */
const FIRST_CLOUD_DESKTOP = 25;

const SECRET_MODE = 0o600;
const PUBLIC_MODE = 0o644;
const SUDOERS_MODE = 0o440;

/** One change to an image. */
export type Change =
  | {
    readonly kind: "write";
    /** Label of the partition. */
    readonly partition: string;
    /** Within the partition; made where it is missing. */
    readonly folder: string;
    readonly name: string;
    readonly text: string;
    readonly mode: number;
  }
  | {
    readonly kind: "run";
    readonly partition: string;
    /** Within the partition; where it is missing, nothing is done. */
    readonly folder: string;
    /** What it is for, as the object of "Cannot". */
    readonly step: string;
    readonly program: string;
    /** The command, which has the folder in `$d`. */
    readonly command: string;
  };

/** What has to be done to an image, in order. */
export function changesFor(
  type: ImageType,
  { version, login }: { readonly version: string; readonly login: Login },
): Change[] {
  const classic = (partition: string, folder = SEED_NET) =>
    seed(partition, folder, classicUserData(login));
  switch (type) {
    case "ce-oem-iot-before-24":
      return [
        secret("system-boot", "", "user-data", iotUserData(login)),
        sudoRule(login),
        ...classic("writable"),
      ];
    case "ce-oem-iot-24-and-beyond":
      return [
        secret("writable", SEED, "user-data", iotUserData(login)),
        sudoRule(login),
        ...classic("writable"),
      ];
    case "tegra":
      return [
        secret("writable", SEED, "user-data", classicUserData(login)),
        ...withoutBootMenu,
        sudoRule(login),
      ];
    case "pi-desktop":
      return [
        ...(Number.parseInt(version) >= FIRST_CLOUD_DESKTOP
          ? [...seed("writable", SEED_NET, desktopUserData(login)), noFakeCloud]
          : [
            publicFile("writable", "etc/systemd/system", "oem-config.service", OEM_CONFIG_SERVICE),
            secret("writable", "", "preseed.cfg", preseed(login)),
          ]),
        networkAtFirstBoot,
        sudoRule(login),
      ];
    case "core20":
      return [
        secret(
          "ubuntu-seed",
          "data/etc/cloud/cloud.cfg.d",
          "99_nocloud.cfg",
          coreCloudConfig(login),
        ),
      ];
    case "core":
      return classic("writable", `system-data/${SEED_NET}`);
    case "ubuntu-cpc":
      return classic("cloudimg-rootfs");
    case "ubuntu":
      return [...classic("writable"), noFakeCloud];
    case "unknown":
      return classic("writable");
  }
}

const SEED = "var/lib/cloud/seed/nocloud";
const SEED_NET = "var/lib/cloud/seed/nocloud-net";

function secret(partition: string, folder: string, name: string, text: string): Change {
  return { kind: "write", partition, folder, name, text, mode: SECRET_MODE };
}

function publicFile(partition: string, folder: string, name: string, text: string): Change {
  return { kind: "write", partition, folder, name, text, mode: PUBLIC_MODE };
}

function seed(partition: string, folder: string, userData: string): Change[] {
  return [
    publicFile(partition, folder, "meta-data", META_DATA),
    secret(partition, folder, "user-data", userData),
  ];
}

function sudoRule(login: Login): Change {
  const text = sudoers(login);
  return {
    kind: "write",
    partition: "writable",
    folder: "etc/sudoers.d",
    name: SUDOERS_NAME,
    text,
    mode: SUDOERS_MODE,
  };
}

/** Some images say that they run in no cloud at all, and cloud-init would not look for its files. */
const noFakeCloud: Change = {
  kind: "run",
  partition: "writable",
  folder: "etc/cloud/cloud.cfg.d",
  step: "remove the configuration of a fake cloud",
  program: "rm",
  command: 'sudo rm -f "$d"/99-fake?cloud.cfg',
};

/** A stray byte on the serial line would stop the boot at a menu that waits. */
const withoutBootMenu: readonly Change[] = [
  {
    kind: "run",
    partition: "writable",
    folder: "boot/grub",
    step: "turn off the boot menu",
    program: "sed",
    command: `sudo find "$d" -maxdepth 1 -name grub.cfg -type f ` +
      `-exec sed -i -E 's/timeout=-?[0-9]+/timeout=0/g' {} +`,
  },
  {
    kind: "run",
    partition: "writable",
    folder: "etc/default",
    step: "turn off the boot menu",
    program: "sed",
    command:
      `sudo find "$d" -type f -exec sed -i -E 's/GRUB_TIMEOUT="?-?[0-9]+"?/GRUB_TIMEOUT=0/g' {} +`,
  },
];

/** The set-up at the first boot needs the network, which otherwise comes only afterwards. */
const networkAtFirstBoot: Change = {
  kind: "run",
  partition: "writable",
  folder: "etc/systemd/system",
  step: "start NetworkManager at the first boot",
  program: "cp",
  command: `if test -L "$d/multi-user.target.wants/NetworkManager.service" && ` +
    `! test -L "$d/multi-user.target.wants" && ! test -L "$d/oem-config.target.wants"; then ` +
    `sudo mkdir -p "$d/oem-config.target.wants" && ` +
    `sudo cp -P --remove-destination "$d/multi-user.target.wants/NetworkManager.service" ` +
    `"$d/oem-config.target.wants/"; fi`,
};
