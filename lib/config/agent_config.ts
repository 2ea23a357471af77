/** The agent's configuration file: its keys, what they may be, and what they mean. */
import * as z from "zod";
import { isAbsolute, join, normalize } from "../path.ts";
import { didYouMean, quoted } from "./mistake.ts";
import { parseSize } from "./sizes.ts";
import { readYamlFile, type YamlResult } from "./yaml_file.ts";

/** The names of Python's logging levels, as `logging_level` has them. */
const LOGGING_LEVELS = [
  "CRITICAL",
  "FATAL",
  "ERROR",
  "WARN",
  "WARNING",
  "INFO",
  "DEBUG",
  "NOTSET",
] as const;

type LoggingLevel = typeof LOGGING_LEVELS[number];

/** Longer ones make file names that are too long: markers and locks are named after the agent. */
const LONGEST_AGENT_ID = 200;
const POLLING_INTERVAL_S = 10;
const GLOBAL_TIMEOUT_S = 14_400;
const OUTPUT_TIMEOUT_S = 900;
const OUTPUT_BYTES = 10_485_760;
/** What a phase gets between TERM and KILL. */
const CANCEL_GRACE_S = 10;
const ATTACHMENTS_MAX_MEMBERS = 10_000;
/** Text packs 10 to 1; an archive of zeros, which is what a bomb is, 1000 to 1. */
const ATTACHMENTS_MAX_RATIO = 200;
/** With less no shell starts: it would be a slip of the unit. */
const LEAST_JOB_MEMORY = 2 ** 20;
/** The longest name of a file that Linux file systems hold (NAME_MAX). */
const NAME_MAX_BYTES = 255;
/** Nobody else on the network sees it. */
export const DEFAULT_METRICS_HOST = "127.0.0.1";
const HIGHEST_PORT = 65_535;

/** Text; without NUL, since most of it ends in an environment or a file name. */
const text = () => z.string().refine((value) => !value.includes("\0"), "must not contain NUL");
const filledText = () => text().min(1);
/** A folder of the agent; what is below some folders of the system the runtime opens to nobody. */
const folder = () =>
  filledText().refine(
    (path) => !/^\/(dev|proc|sys)(\/|$)/.test(normalized(path)),
    "must not be below /dev, /proc or /sys, which are closed to this program: choose another folder, " +
      "such as one on a tmpfs below /run",
  );
const wholeSeconds = () => z.int().min(1).meta({ type: "integer, seconds" });
const command = (when: string) =>
  text().default("").describe(`Shell command ${when}; empty: the phase is skipped.`);

const agentId = filledText().max(LONGEST_AGENT_ID)
  .refine((id) => !/[/\p{Cc}]/u.test(id), "must not contain '/' or control characters")
  .refine((id) => !id.startsWith("."), "must not begin with '.'");

/** The address of a server, with its scheme. */
export const serverAddress = filledText().transform((address, { issues }) => {
  const url = addressToUrl(address);
  const wrong = whyNoServer(url);
  if (wrong !== undefined) issues.push({ code: "custom", input: address, message: wrong });
  return url;
});

function addressToUrl(address: string): string {
  const withScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(address) ? address : `http://${address}`;
  return withScheme.replace(/\/+$/, "");
}

function whyNoServer(address: string): string | undefined {
  const example = "such as 'https://testflinger.example.com'";
  const url = URL.parse(address);
  if (url === null || /[\s\\]/.test(address)) return `must be the URL of a server, ${example}`;
  if (!["http:", "https:"].includes(url.protocol)) {
    return `must be an http or https URL, ${example}`;
  }
  if (url.username !== "" || url.password !== "") return "must not contain a user or a password";
  if (/[?#]/.test(address)) return "must not contain '?' or '#'";
  return undefined;
}

const queues = z.array(filledText(), {
  error: ({ input }) =>
    typeof input === "string"
      ? `must be a list: write [${quoted(input)}]`
      : "must be a list of queue names",
}).min(1, "must name at least one queue");

/** What the server accepts as the name of an image; it refuses the whole list otherwise. */
const imageName = z.string().min(1, "must not be empty")
  .refine((name) => !name.startsWith("$"), "must not begin with '$'")
  .refine((name) => !/[.\0]/.test(name), "must not contain '.' or NUL");

const queueName = z.string().min(1, "must not be empty");

/** A number of bytes, or text with a unit. */
const bytes = () =>
  z.union([z.int().min(0), z.string()], { error: SIZE_EXPECTED })
    .transform((size, { issues }) => {
      const parsed = typeof size === "number" ? size : parseSize(size);
      if (parsed !== undefined) return parsed;
      issues.push({ code: "custom", input: size, message: SIZE_EXPECTED });
      return z.NEVER;
    }).meta({ type: "size" });
const SIZE_EXPECTED = "must be a number of bytes, or a size such as '500 MB' or '1 GiB'";

/** The keys that the established agent knows. */
const establishedKeys = {
  agent_id: agentId.describe("Unique name of the agent."),
  server_address: serverAddress.describe(
    "URL of the Testflinger server; `http://` is added if there is no scheme.",
  ),
  job_queues: queues.describe("Queues to take jobs from."),
  identifier: text().optional().describe(
    "Cross-reference such as a serial number, sent to the server.",
  ),
  location: text().default("").describe("Where the device is, sent to the server."),
  provision_type: text().default("").describe(
    "How the device is provisioned, sent to the server; also in the environment of every phase.",
  ),
  polling_interval: z.number().gt(0).default(POLLING_INTERVAL_S).meta({ type: "number, seconds" })
    .describe(
      "Pause between two requests for a job if there was none; 10 to 20 % longer. The agents of a host " +
        "ask at different times, a few together.",
    ),
  output_polling_interval: z.number().gt(0).optional().meta({ type: "number, seconds" }).describe(
    "Accepted, as newer versions of the established agent have it, and without effect: output is sent as it comes.",
  ),
  execution_basedir: folder().default("/tmp/testflinger/run").describe(
    "Folder for the working folders, one per job.",
  ),
  logging_basedir: folder().default("/tmp/testflinger/logs").describe(
    "Folder for `testflinger-agent.log`, which is rotated at midnight; 6 old files are kept. Each line has the name of the agent.",
  ),
  results_basedir: folder().default("/tmp/testflinger/results").describe(
    "Folder for the agent's journal and undelivered results.",
  ),
  logging_level: text().transform((name) => levelOf(name) ?? "INFO").default("INFO").describe(
    `Lowest level that is logged: ${LOGGING_LEVELS.join(", ")}; any other name means INFO.`,
  ),
  logging_quiet: z.boolean().default(false).describe("Log to the file only."),
  setup_command: command("of the phase setup"),
  provision_command: command("of the phase provision"),
  firmware_update_command: command("of the phase firmware_update"),
  test_command: command("of the phase test"),
  allocate_command: command("of the phase allocate"),
  reserve_command: command("of the phase reserve"),
  cleanup_command: command("of the phase cleanup, which always runs"),
  global_timeout: wholeSeconds().default(GLOBAL_TIMEOUT_S).describe(
    "Upper limit for the duration of a phase, except reserve, whatever its job requests.",
  ),
  output_timeout: wholeSeconds().default(OUTPUT_TIMEOUT_S).describe(
    "Upper limit for the time that a test may print nothing, whatever its job requests.",
  ),
  output_bytes: z.int().min(0).default(OUTPUT_BYTES).meta({ type: "integer, bytes" }).describe(
    "With legacy servers: how much of the end of each log the final result carries.",
  ),
  advertised_queues: z.record(queueName, text()).optional().describe(
    "Queues to show to users, each with its description.",
  ),
  advertised_images: z.record(queueName, z.record(imageName, text())).optional().describe(
    "Images to offer to users for each queue, each with its provision data.",
  ),
};

/** Which device connector the phases use; scripts see these too. */
const connectorKeys = {
  connector: filledText().optional().describe(
    "Name of the device connector that runs the phases without a command, " +
      "`setup` and `cleanup` included.",
  ),
  connector_config: filledText().optional().describe(
    "Path of the device connector's own configuration file; `fake_connector` needs none.",
  ),
};

/** The keys that only this agent knows. */
const newKeys = {
  cancel_grace: z.number().min(0).default(CANCEL_GRACE_S).meta({ type: "number, seconds" })
    .describe("Time between asking a phase's processes to end and killing them."),
  job_memory_max: bytes().refine((size) => size >= LEAST_JOB_MEMORY, "must be at least 1 MiB")
    .optional().describe(
      "How much memory all processes of a job may use together, except in cleanup; beyond that the " +
        "kernel kills one of them. Needs control groups with the controller `memory`; absent: no limit.",
    ),
  job_pids_max: z.int().min(1).optional().describe(
    "How many processes and threads a job may have at a time, except in cleanup. Needs control groups with the " +
      "controller `pids`; absent: no limit.",
  ),
  min_free_space: bytes().prefault("1 GiB").describe(
    "No job is taken while less disk space than this is free.",
  ),
  max_spool: bytes().prefault("10 GiB").describe(
    "How much disk space undelivered logs and artifacts may take.",
  ),
  hooks_dir: folder().refine(isAbsolute, "must be an absolute path").optional().describe(
    "Folder with programs that run before and after a job and its phases: `pre-job`, `post-job`, " +
      "`pre-<phase>`, `post-<phase>`; see docs/operations.md.",
  ),
  image_cache: text().refine((path) => path === "" || isAbsolute(path), "must be an absolute path")
    .optional().describe(
      "Folder of the image cache, shared by all agents of this host; " +
        'absent: `image-cache` in `results_basedir`; `""`: no cache.',
    ),
  image_cache_max: bytes().optional().describe(
    "Size of the image cache; absent: 20 GiB if the disk has room for ten times that, else " +
      "nothing.",
  ),
  attachments_max_members: z.int().min(1).default(ATTACHMENTS_MAX_MEMBERS).describe(
    "How many files and folders the attachments of a job may have.",
  ),
  attachments_max_size: bytes().prefault("8 GiB").describe(
    "How large the unpacked attachments of a job may be.",
  ),
  attachments_max_ratio: z.number().min(1).default(ATTACHMENTS_MAX_RATIO).describe(
    "How many times larger than their archive attachments may be, unless they are small.",
  ),
  attachments_max_name: z.int().min(1).max(NAME_MAX_BYTES).default(NAME_MAX_BYTES)
    .meta({ type: "integer, bytes" }).describe(
      "How long the name of a single file or folder in the attachments may be, without its path.",
    ),
  attachments_max_download: bytes().prefault("4 GiB").describe(
    "How large the archive of a job's attachments may be.",
  ),
  secret_names_allowed: z.array(filledText(), { error: "must be a list of names of variables" })
    .default([]).describe(
      "Names of variables that a job's secrets may set although they change which programs run " +
        "on the host, such as `PATH` or `LD_PRELOAD`. Anyone who may submit jobs can then run code " +
        "of their own in every phase that has secrets.",
    ),
  metrics_port: z.int().min(1).max(HIGHEST_PORT).optional().describe(
    "Port for the metrics and the status page; absent: they are not served.",
  ),
  metrics_host: filledText().default(DEFAULT_METRICS_HOST).describe(
    "Address on which the metrics and the status page are served.",
  ),
  page_actions: z.boolean().default(false).describe(
    "Whether this agent can be taken offline and online, restarted and handed over from its page, by " +
      "anyone who has the token of `page_token_file`.",
  ),
  page_token_file: filledText().optional().describe(
    "File whose first line is that token: 16 characters or more. It is read at each action.",
  ),
  token_file: filledText().optional().describe(
    "JSON with the `refresh_token` of this agent; absent: the file of `--token-file`.",
  ),
  log_format: z.enum(["text", "json"]).default("text").describe("Form of the agent's log."),
};

/** What an agent's configuration file holds. */
export const AgentConfig = z.strictObject({ ...establishedKeys, ...connectorKeys, ...newKeys });
/** A configuration with defaults filled in. Sizes are in bytes, times in seconds. */
export type AgentConfig = z.infer<typeof AgentConfig>;

/** What a configuration has where its file says nothing. */
export function defaultConfig(): AgentConfig {
  return AgentConfig.parse({
    agent_id: "agent",
    server_address: "localhost",
    job_queues: ["queue"],
  });
}

/** Folder of the images that are kept for an agent; `""` where none are. */
export function imageCacheFolder(
  { image_cache, results_basedir }: Pick<AgentConfig, "image_cache" | "results_basedir">,
): string {
  return image_cache ?? join(results_basedir, "image-cache");
}

/** Reads an agent's configuration file. All that is wrong with it comes at once. */
export async function loadAgentConfig(file: string): Promise<YamlResult<AgentConfig>> {
  return await readYamlFile(file, AgentConfig, {
    review(written, warn) {
      const values = Written.parse(written);
      const { logging_level: level, server_address: address } = values;
      if (typeof level === "string" && levelOf(level) === undefined) {
        warn(["logging_level"], whyNoLevel(level));
      }
      const path = typeof address === "string" ? URL.parse(addressToUrl(address))?.pathname : "/";
      if (path !== undefined && path !== "/") {
        warn(
          ["server_address"],
          `has the path ${quoted(path)}, below which the server is asked: remove it, unless the ` +
            "server really is there",
        );
      }
      for (const key of FOLDER_KEYS) {
        const folder = values[key];
        if (typeof folder !== "string") continue;
        if (!isAbsolute(folder)) {
          warn(
            [key],
            `is ${quoted(folder)}, in the folder that the agent is started in: write the ` +
              "absolute path",
          );
        } else if (key !== "logging_basedir" && SHARED_FOLDERS.includes(normalized(folder))) {
          warn(
            [key],
            `is ${quoted(folder)}, which others use too: give the agents a folder of ` +
              `their own, such as ${
                quoted(join(folder, "testflinger", key.replace("_basedir", "")))
              }`,
          );
        }
      }
    },
  });
}

/** Keys whose values are folders. */
export const FOLDER_KEYS = ["execution_basedir", "logging_basedir", "results_basedir"] as const;

/** Everything on the host puts its files there. */
const SHARED_FOLDERS = ["/", "/tmp", "/var/tmp", "/dev/shm", "/run", "/home", "/var/lib", "/srv"];

/** `/tmp/` is `/tmp`. */
function normalized(folder: string): string {
  return normalize(folder).replace(/(?<=.)\/$/, "");
}

const Written = z.looseObject({
  logging_level: z.unknown(),
  server_address: z.unknown(),
  execution_basedir: z.unknown(),
  logging_basedir: z.unknown(),
  results_basedir: z.unknown(),
}).partial();

function whyNoLevel(level: string): string {
  const meant = didYouMean(level, LOGGING_LEVELS);
  const hint = meant === undefined
    ? `must be one of ${LOGGING_LEVELS.join(", ")}`
    : `did you mean ${quoted(meant)}?`;
  return `is ${quoted(level)}, which is no level and means INFO, ${hint}`;
}

function levelOf(name: string): LoggingLevel | undefined {
  return LOGGING_LEVELS.find((level) => level === name);
}

/**
 * The variables that every phase has in its environment: each key that the established agent
 * knows, and each connector key, whose value is text. Phase scripts rely on them.
 */
export function environmentOf(config: AgentConfig): Record<string, string> {
  const inEnvironment = new Set(Object.keys({ ...establishedKeys, ...connectorKeys }));
  const variables: Record<string, string> = {};
  for (const [key, value] of Object.entries(config)) {
    if (inEnvironment.has(key) && typeof value === "string") variables[key] = value;
  }
  return variables;
}
