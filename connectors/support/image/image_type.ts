import type { ConnectorContext } from "../../context.ts";
import { ProvisioningError } from "../errors.ts";
import { controlHost } from "../ssh/remote.ts";
import { quote } from "../ssh/ssh.ts";

/** Kinds of images, which differ in how a user is created. */
export type ImageType =
  | "ce-oem-iot-before-24"
  | "ce-oem-iot-24-and-beyond"
  | "tegra"
  | "pi-desktop"
  | "ubuntu"
  | "core"
  | "core20"
  | "ubuntu-cpc"
  | "unknown";

/** What is found in a mounted image. */
export interface ImageFacts {
  /** Those of the `SIGNS` that are there. */
  readonly signs: ReadonlySet<string>;
  /** Text of `writable/.disk/info`; empty when there is none. */
  readonly stamp: string;
  /** `VERSION_ID` of `writable/etc/os-release`; empty when there is none. */
  readonly version: string;
}

/** Files that give an image away, as patterns of the shell. First match wins. */
const SIGNS: readonly (readonly [pattern: string, type: ImageType])[] = [
  ["writable/lib/firmware/*-tegra*", "tegra"],
  ["writable/usr/bin/firefox", "pi-desktop"],
  ["writable/etc", "ubuntu"],
  ["writable/system-data", "core"],
  ["ubuntu-seed/snaps", "core20"],
  ["cloudimg-rootfs/etc/cloud/cloud.cfg", "ubuntu-cpc"],
];

/** Build stamps of IoT images: `iot-<project>-<series>-classic-server-2404`, `...-core-24`. */
const STAMP = /iot-[a-z]+-[a-z-]*(?:classic-(?:server|desktop)|core)-(\d+)/;

/** A stamp is not longer. */
const STAMP_MAX_BYTES = 4096;

/** Last line of the look: without it something else has answered. */
const END = "end of facts";

/** Looks into the image that is mounted below `root`. */
export async function lookInto(ctx: ConnectorContext, root: string): Promise<ImageFacts> {
  const step = "find out what kind of image it is";
  const output = await controlHost(ctx).must({ step, program: "sh", command: lookCommand(root) });
  const lines = output.trimEnd().split("\n");
  if (lines.at(-1) !== END) {
    throw new ProvisioningError(
      `Cannot ${step}: the control host answered '${output.trim().slice(0, 200)}'`,
    );
  }
  const after = (word: string) =>
    lines.filter((line) => line.startsWith(`${word} `)).map((line) => line.slice(word.length + 1));
  return {
    signs: new Set(after("sign")),
    stamp: after("stamp").join("\n"),
    version: after("version")[0] ?? "",
  };
}

function lookCommand(root: string): string {
  const signs = SIGNS.map(([pattern]) =>
    // A link that leads nowhere is there anyway: it means something in the running image.
    `for f in ${pattern}; do if test -e "$f" || test -L "$f"; then echo sign ${quote(pattern)}; ` +
    `break; fi; done; `
  ).join("");
  return `cd ${quote(root)} || exit; ${signs}` +
    `if test -f writable/.disk/info; then ` +
    `head -c ${STAMP_MAX_BYTES} writable/.disk/info | sed 's/^/stamp /'; echo; fi; ` +
    `if test -f writable/etc/os-release; then ` +
    `sed -n 's/^VERSION_ID="\\{0,1\\}\\([0-9.]*\\).*/version \\1/p' writable/etc/os-release; fi; ` +
    `echo ${quote(END)}`;
}

/** The type of an image, by what was found in it. */
export function imageType({ signs, stamp }: ImageFacts): ImageType {
  const release = STAMP.exec(stamp)?.[1];
  if (release !== undefined) {
    const number = Number(release);
    // Stamps name the release in either form: 2404, or 24.
    const isNew = number >= 2404 || (number <= 2000 && number >= 24);
    return isNew ? "ce-oem-iot-24-and-beyond" : "ce-oem-iot-before-24";
  }
  return SIGNS.find(([pattern]) => signs.has(pattern))?.[1] ?? "unknown";
}
