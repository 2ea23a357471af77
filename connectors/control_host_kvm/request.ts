import oemUserData from "./oem_user_data.yaml" with { type: "text" };
import { parse } from "yaml";
import * as z from "zod";
import type { PrepareContext } from "../context.ts";
import { checksumKey, directOnly, script, type ShapeOutput } from "../support/config.ts";
import { controlHostProvisionShape } from "../support/control_host/provision.ts";
import { fullMessageOf, JobError, ProvisioningError } from "../support/errors.ts";
import { type Credentials, credentials, type JobData } from "../support/job.ts";
import { publicKeyFile } from "../support/ssh/ssh_keys.ts";

const forwarded = z.unknown().meta({ type: "any" });

/** The keys of `provision_data`. All others that begin with autoinstall_ are forwarded, too. */
export const kvmProvisionShape = {
  url: z.string().optional().describe(
    "ISO to boot; with an OEM image the ISO of the second step, by way of the recovery partition.",
  ),
  alloem_url: z.string().optional().describe("OEM image that is installed first."),
  robot_tasks: z.array(z.string(), { error: "must be a list of names" })
    .meta({ type: "list of text" }).optional()
    .describe("Robot Framework tasks of the control host; needed where there is no preset."),
  preset: z.string().optional().describe(
    "Name of a preset that the control host knows, such as desktop-jammy-oem.",
  ),
  oem: z.string().optional().describe(
    "hp, dell or lenovo: how the recovery partition of the second step works.",
  ),
  autoinstall_storage_layout: z.string().optional().describe("Storage layout of the installer."),
  autoinstall_base_user_data: z.string().optional()
    .describe("Base64 of the user data for the installer, a YAML mapping."),
  autoinstall_oem: z.boolean().optional().describe(
    "true: user data for OEM images, included in this program.",
  ),
  cmdline_append: forwarded.optional().describe("Forwarded: kernel parameters of the installer."),
  skip_download: forwarded.optional()
    .describe(directOnly("Forwarded: take the image that the control host has.")),
  wait_until_ssh: forwarded.optional().describe("Forwarded: wait until the device answers on ssh."),
  live_image: forwarded.optional().describe("Forwarded: the image is not installed, only booted."),
  ubuntu_sso_email: z.string().optional().describe("Forwarded: account of the first login."),
  robot_retries: forwarded.optional().describe("Forwarded: how often one of the tasks may fail."),
  reboot_script: script.optional()
    .describe(directOnly("Commands that reset the device, instead of the configuration's.")),
  poweron_script: script.optional()
    .describe(directOnly("Commands that turn it on, instead of the configuration's.")),
  sha256: checksumKey("SHA-256 of the second step's ISO."),
  insecure_download: z.boolean().default(false).describe(
    directOnly("The device does not check the server of the second step's ISO."),
  ),
  ...controlHostProvisionShape,
};

/** The job's `provision_data`, validated. */
type KvmData = ShapeOutput<typeof kvmProvisionShape>;

/** What OEM images come up with, whatever the job says. */
export const OEM_LOGIN: Credentials = { user: "ubuntu", password: "u" };

/** The preset that installs an OEM image as the first of two. */
const OEM_PRESET = "desktop-jammy-oem";

/** The layout that the bundled user data have. */
const OEM_LAYOUT = "direct";

/** Forwarded where the job has them. */
const FORWARDED = [
  "cmdline_append",
  "skip_download",
  "wait_until_ssh",
  "live_image",
  "ubuntu_sso_email",
  "robot_retries",
  "reboot_script",
  "poweron_script",
] as const;

/** Of the job's keys, those that a preset has nothing to do with. */
const NOT_FORWARDED = ["attachments", "provisioning_timeout", "secrets", "skip"];

const AUTOINSTALL = "autoinstall_";

/** What passwords cannot be: chpasswd reads lines. */
const CONTROL_CHARACTER = /\p{Cc}/u;

/** Does an OEM image come up, with a user of its own? */
export function bringsOem({ alloem_url: alloem, preset }: KvmData): boolean {
  return alloem !== undefined || preset === OEM_PRESET;
}

/** Is it the OEM image itself that the control host installs, so that its own user is there then? */
function bootsOem({ alloem_url: alloem, preset }: KvmData): boolean {
  return preset === undefined ? alloem !== undefined : preset === OEM_PRESET;
}

/**
 * The arguments of the request, but for what all requests have.
 *
 * @throws ProvisioningError naming what the job lacks; JobError when its user cannot be had.
 */
export async function kvmArguments(
  ctx: PrepareContext,
  { job, data }: { readonly job: JobData; readonly data: KvmData },
): Promise<Record<string, unknown>> {
  const wanted = credentials(job);
  if (bringsOem(data)) checkOemLogin(wanted);
  const login = bootsOem(data) ? OEM_LOGIN : wanted;
  const user = { username: login.user, password: login.password };
  const conf = autoinstallConf(ctx, job, data);
  const keys = { authorized_keys: [await Deno.readTextFile(await publicKeyFile(ctx))] };
  const forwarded = Object.fromEntries(
    FORWARDED.flatMap((key) => data[key] === undefined ? [] : [[key, data[key]]]),
  );
  if (data.preset !== undefined) {
    const all = Object.entries(job.provision_data ?? {}).filter(([key]) =>
      !key.startsWith("autoinstall") && !NOT_FORWARDED.includes(key)
    );
    const { url, alloem_url: alloem, ...rest } = Object.fromEntries(all);
    const image = data.preset === OEM_PRESET
      ? (data.alloem_url === undefined ? {} : { url: data.alloem_url })
      : { ...(url === undefined ? {} : { url }), ...(alloem ? { alloem_url: alloem } : {}) };
    return {
      ...rest,
      ...image,
      ...user,
      ...(conf === null ? {} : { autoinstall_conf: conf }),
      ...keys,
      ...forwarded,
    };
  }
  return {
    url: data.alloem_url ?? wantedKey(data, "url"),
    ...user,
    autoinstall_conf: conf,
    robot_tasks: wantedKey(data, "robot_tasks"),
    ...keys,
    ...forwarded,
  };
}

function wantedKey<K extends "url" | "robot_tasks">(
  data: KvmData,
  key: K,
): NonNullable<KvmData[K]> {
  const value = data[key];
  if (value !== undefined) return value;
  throw new ProvisioningError(
    `The job's provision_data has no '${key}': without a 'preset' the control host needs it`,
  );
}

function checkOemLogin({ user, password }: Credentials): void {
  if (user !== OEM_LOGIN.user) {
    throw new JobError(
      `The job's 'test_username' is '${user}': in an OEM image there is only '${OEM_LOGIN.user}'`,
    );
  }
  if (CONTROL_CHARACTER.test(password)) {
    throw new JobError("The job's 'test_password' has control characters");
  }
}

function autoinstallConf(
  { log }: PrepareContext,
  job: JobData,
  data: KvmData,
): Record<string, unknown> | null {
  const given = Object.entries(job.provision_data ?? {}).filter(([key, value]) =>
    key.startsWith(AUTOINSTALL) && key !== "autoinstall_oem" && value !== null
  ).map(([key, value]) => [key.slice(AUTOINSTALL.length), value] as const);
  if (data.autoinstall_oem) {
    if (given.length > 0) {
      log.warning("With 'autoinstall_oem' the other autoinstall keys of the job do not count");
    }
    return {
      base_user_data: new TextEncoder().encode(oemUserData).toBase64(),
      storage_layout: OEM_LAYOUT,
    };
  }
  if (data.autoinstall_base_user_data !== undefined) {
    checkUserData(data.autoinstall_base_user_data);
  }
  return given.length === 0 ? null : Object.fromEntries(given);
}

/** @throws ProvisioningError unless it is base64 of a YAML mapping. */
function checkUserData(encoded: string): void {
  const fail = (why: string) =>
    new ProvisioningError(`The job's 'autoinstall_base_user_data' ${why}`);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true })
      .decode(Uint8Array.fromBase64(encoded.replaceAll(/\s/g, "")));
  } catch {
    throw fail("is not base64 of a text");
  }
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    throw fail(`is not base64 of YAML: ${fullMessageOf(error).split("\n")[0]}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw fail("is not base64 of YAML: expected a mapping");
  }
}
