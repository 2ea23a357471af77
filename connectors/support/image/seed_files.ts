/** Contents of the files that create a user at an image's first boot. */
import { parse, stringify } from "yaml";
import anotherUser from "./templates/another-user.yaml" with { type: "text" };
import coreCloud from "./templates/core-cloud.yaml" with { type: "text" };
import coreUser from "./templates/core-user.yaml" with { type: "text" };
import defaultUser from "./templates/default-user.yaml" with { type: "text" };
import desktopUser from "./templates/desktop-user.yaml" with { type: "text" };
import iotUser from "./templates/iot-user.yaml" with { type: "text" };
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

/** cloud-init does its work once for each instance id. */
export const META_DATA = stringify({ "instance-id": "testflinger" });

/** User data for images whose cloud-init creates a default user. */
export function classicUserData(login: Login): string {
  return userData(login.user === DEFAULT_USER ? defaultUser : anotherUser, login);
}

/** User data for IoT images, which have no default user. */
export function iotUserData(login: Login): string {
  return userData(iotUser, login);
}

/** User data for desktops whose first boot is cloud-init's business. */
export function desktopUserData(login: Login): string {
  return userData(desktopUser, login);
}

/** Configuration of cloud-init for Ubuntu Core 20 and later, data source included. */
export function coreCloudConfig(login: Login): string {
  const values = { "@USER_DATA@": userData(coreUser, login), "@META_DATA@": META_DATA };
  return stringify(filled(parse(coreCloud), { ...values, "@KEYS@": [] }));
}

/**
 * Its name below etc/sudoers.d, whatever the user's is: sudo reads no file there that has a dot in its name, or a
 * tilde at its end.
 */
export const SUDOERS_NAME = "ubuntu";

/** A sudoers file that asks the user for nothing. */
export function sudoers({ user }: Login): string {
  return `${user.replaceAll("@", "\\@")} ALL=(ALL) NOPASSWD:ALL\n`;
}

/** Unit that answers the questions of a desktop's first boot from /preseed.cfg. */
export const OEM_CONFIG_SERVICE: string = oemConfigService;

/** Answers to the questions of a desktop's first boot. */
export function preseed({ user, password }: Login): string {
  return withValues(preseedTemplate, { "@USER@": user, "@PASSWORD@": password });
}

/** What stands for a mark in a template. A list of nothing but `@KEYS@` is that list. */
interface Values {
  readonly [mark: string]: string | readonly string[];
  readonly "@KEYS@": readonly string[];
}

/** The values are put into what the template says, not into its text: any of them is just a value. */
function userData(template: string, { user, password, keys }: Login): string {
  const values = { "@USER@": user, "@PASSWORD@": password, "@KEYS@": keys };
  return `#cloud-config\n${stringify(filled(parse(template), values), { lineWidth: 0 })}`;
}

/** A part of a template with its values; a list of keys that there are none of is left out. */
function filled(part: unknown, values: Values): unknown {
  if (typeof part === "string") return withValues(part, values);
  if (Array.isArray(part)) {
    return part.flatMap((each): unknown[] =>
      each === "@KEYS@" ? [...values["@KEYS@"]] : [filled(each, values)]
    );
  }
  if (typeof part !== "object" || part === null) return part;
  const entries = Object.entries(part).map(([key, value]) => [key, filled(value, values)] as const);
  return Object.fromEntries(
    entries.filter(([, value]) => !(Array.isArray(value) && value.length === 0)),
  );
}

function withValues(text: string, values: Readonly<Record<string, unknown>>): string {
  return text.replaceAll(/@[A-Z_]+@/g, (mark) => {
    const value = values[mark];
    return typeof value === "string" ? value : mark;
  });
}
