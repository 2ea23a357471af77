import * as z from "zod";
import { readYamlFile, type YamlResult } from "../../lib/config/yaml_file.ts";
import { ProvisioningError } from "./errors.ts";
import { firmwareShape } from "./firmware/config.ts";

/** One name or address that can never be taken for an option of a program. */
const HOST = /^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9.])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)$/;

/** The port of the control host's REST service, where `control_host_port` says nothing else. */
const CONTROL_HOST_PORT = 8000;

const SSH_PORT = 22;

/** A list of commands; one string is taken as a list of one. */
export const script = z.union([z.string(), z.array(z.string())], {
  error: "must be a list of commands (strings)",
}).transform((value) => typeof value === "string" ? [value] : value).meta({ type: "list of text" });

/** An IP address or a host name. */
const host = z.string({ error: "must be an address or a host name, in quotes" })
  .regex(HOST, "must be an IP address or a host name");

/** A TCP port; numbers written as text are accepted. */
export const port = z.union([
  z.number(),
  z.string().regex(/^\d+$/, "must be a port number, 1 to 65535"),
], {
  error: "must be a port number, 1 to 65535",
}).transform(Number).pipe(
  z.int("must be a port number, 1 to 65535").min(1, "must be a port number, 1 to 65535")
    .max(65535, "must be a port number, 1 to 65535"),
).meta({ type: "port" });

/** A number; one that is written as text is accepted. */
const number = z.union([
  z.number(),
  z.string().regex(/^\d+(\.\d+)?$/, "must be a number").transform(Number),
], { error: "must be a number" });

/** A number more than 0. */
export const positiveNumber = number.pipe(z.number().positive()).meta({ type: "number" });

/** A number, 0 or more. */
export const amount = number.pipe(z.number().nonnegative()).meta({ type: "number" });

/** A whole number, 0 or more. */
export const wholeNumber = number.pipe(z.int("must be a whole number").nonnegative())
  .meta({ type: "integer" });

/** What the field writes where there is no serial server. */
const serialPort = z.preprocess(
  (value) => value === 0 || value === "0" ? undefined : value,
  port.optional(),
).meta({ type: "port" });

/** Values for environment variables; numbers and booleans become their text, null is dropped. */
const environment = z.record(
  z.string().regex(/^[^=\0]+$/, "must not be empty and have no '='"),
  z.union([z.string(), z.number(), z.boolean(), z.null()], {
    error: "must be text, a number or a boolean",
  }).transform((value) => value === null ? null : String(value)).meta({ type: "text" }),
  { error: "must be a mapping of variable names to values" },
).transform((values) =>
  Object.fromEntries(
    Object.entries(values).flatMap(([name, value]) => value === null ? [] : [[name, value]]),
  )
);

/** Keys of the device configuration that every connector knows. */
export const commonShape = {
  agent_name: z.string({ error: "must be a short name without spaces, in quotes" }).optional()
    .describe("Name of the agent, without spaces: in log lines, in device-info.json, in paths."),
  device_ip: host.optional()
    .describe("Address of the device, for ssh and for device-info.json."),
  ssh_port: port.default(SSH_PORT).describe("Port of the device's ssh server."),
  ssh_public_key: z.string().optional().describe(
    "Public key to install on devices; otherwise the first of id_ed25519.pub, id_ecdsa.pub, " +
      "id_rsa.pub in ~/.ssh.",
  ),
  reboot_script: script.optional()
    .describe("Commands that hard-reset the device, each run by /bin/sh -c."),
  poweroff_script: script.optional()
    .describe("Commands that cut the device's power while its control host is power-cycled."),
  poweron_script: script.optional()
    .describe("Commands that restore the power; used only together with poweroff_script."),
  serial_host: host.optional().describe("Host of a raw TCP serial server (ser2net)."),
  serial_port: serialPort.optional().describe("Port of the serial server."),
  serial_protocol: z.enum(["raw", "telnet"]).default("raw")
    .describe("telnet: strip the telnet negotiation from the serial log."),
  env: environment.default({}).describe("Environment variables for the test commands."),
  test_cmds_list_status: z.enum(["first", "last"]).default("first").describe(
    "Exit status of a list of test_cmds: that of the first command that failed, or of the last one.",
  ),
  control_host: host.optional().describe("Helper computer next to the device."),
  control_host_port: port.default(CONTROL_HOST_PORT)
    .describe("Port of the control host's REST service."),
  control_host_scheme: z.enum(["http", "https"], { error: "must be http or https" }).default("http")
    .describe("https: talk to the control host's REST service encrypted."),
  control_host_ca: z.string().optional().describe(
    "File with the CA certificates (PEM) to verify the control host's certificate; unset: those " +
      "included in this program.",
  ),
  control_host_verify_tls: z.boolean().default(true).describe(
    "false: do not check the control host's certificate. Each provision logs a warning.",
  ),
  control_host_token: z.string()
    .regex(/^[\x21-\x7e]+$/, "must be printable ASCII without blanks").optional()
    .describe("Token for the control host's REST service, sent as 'Authorization: Bearer'."),
  control_user: z.string().default("ubuntu").describe("User for ssh to the control host."),
  control_host_ssh_port: port.default(SSH_PORT).describe("Port of the control host's ssh server."),
  control_host_known_hosts: z.string().optional()
    .describe("known_hosts file to check the control host's key against; unset: not checked."),
  control_host_reboot_script: script.optional()
    .describe("Commands that power-cycle the control host before each provision."),
  control_host_unready_is_recovery_error: z.boolean().default(false).describe(
    "A control host that does not come back after its power cycle takes the agent offline.",
  ),
  allow_file_urls: z.boolean().default(false)
    .describe("Also take images from file: URLs, which read this host's files."),
  verify_images: z.boolean().default(false)
    .describe("Check downloads against the SHA256SUMS file next to them."),
  ...firmwareShape,
};

/** The validated configuration that every connector has at least. */
export type CommonConfig = z.output<z.ZodObject<typeof commonShape>>;

/** A schema's keys with their schemas. */
export type Shape = Readonly<Record<string, z.ZodType>>;

/** What a shape's values are after validation. */
export type ShapeOutput<S extends Shape> = z.output<z.ZodObject<S>>;

/**
 * The description of a key of `provision_data` that the official server does not know: it refuses
 * the whole job.
 *
 * @param instead what works by way of that server.
 */
export function directOnly(
  meaning: string,
  instead = "it is for runs without that server",
): string {
  return `${meaning} The official server refuses jobs with this key: ${instead}.`;
}

/** The key `sha256` of a section that has a `url`: the official server does not know it. */
export function checksumKey(meaning: string): z.ZodOptional<z.ZodString> {
  return z.string().optional().describe(directOnly(meaning, "let 'url' end with #sha256=<hex>"));
}

/**
 * The schema of a device configuration or of a section of a job: known keys are validated, unknown
 * ones kept, and a known key that is null or an empty text counts as absent.
 */
export function mappingSchema(shape: Shape): z.ZodType<Record<string, unknown>> {
  const isEmpty = (value: unknown) => value === null || value === "";
  return z.preprocess((value) => {
    if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
    return Object.fromEntries(
      Object.entries(value).filter(([key, inner]) => !isEmpty(inner) || !Object.hasOwn(shape, key)),
    );
  }, z.looseObject(shape));
}

/**
 * Reads a device configuration, as stages do and as `check` does.
 *
 * @param review sees what the file says, known and unknown keys as they are written there.
 */
export function readConfigFile(
  file: string,
  shape: Shape,
  review?: (written: unknown) => void,
): Promise<YamlResult<Record<string, unknown>>> {
  return readYamlFile(file, mappingSchema(shape), {
    // `env: {VERSION: 1.10}` means the text 1.10.
    numbersAsText: (path) => path[0] === "env",
    ...(review === undefined ? {} : { review }),
  });
}

/**
 * The value of a configuration key that this step cannot do without.
 *
 * @throws ProvisioningError naming the key, when it is absent.
 */
export function need<C, K extends keyof C & string>(config: C, key: K): NonNullable<C[K]> {
  needAll(config, [key]);
  // Otherwise there would have been an exception.
  return config[key] as NonNullable<C[K]>;
}

/**
 * Makes sure that the configuration has all these keys.
 *
 * @throws ProvisioningError naming every one that is absent.
 */
export function needAll<C>(config: C, keys: readonly (keyof C & string)[]): void {
  const missing = missingKeys(config, keys);
  if (missing.length > 0) throw new ProvisioningError(missingText(missing));
}

/** Those of the keys that the configuration does not have. */
export function missingKeys<C>(config: C, keys: readonly (keyof C & string)[]): string[] {
  return keys.filter((key) => config[key] === undefined);
}

/** What is to be done about keys that the configuration does not have. */
export function missingText(keys: readonly string[]): string {
  const [are, them] = keys.length === 1 ? ["is", "it"] : ["are", "them"];
  const names = keys.map((key) => `'${key}'`).join(", ");
  return `${names} ${are} missing in the device configuration: set ${them}`;
}
