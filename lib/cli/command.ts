/** What a command of the program is, and what it has of the world. */
import type { HostClock } from "../clock.ts";
import type { Signals } from "../host/signals.ts";
import type { JournalHook } from "../outbox/journal.ts";
import type { ControlGroupsResult } from "../process/cgroup.ts";

/** The world, as a command sees it. */
export interface Io {
  stdout(text: string): void;
  stderr(text: string): void;
  signals: Signals;
  /** Errors that nobody has caught end the process; from now on `handle` is told instead. */
  onUncaught?(handle: (error: unknown) => void): void;
  /** What agents have of their host. @default the real one */
  host?: HostParts;
}

/** The parts of a host that a program of its own can put in the place of the real ones. */
interface HostParts {
  clock?: HostClock;
  /** Changes with each start of the host. */
  bootId?: string | undefined;
  /** Told of what is written into the journals of jobs. */
  onJournal?: JournalHook | undefined;
  /** Makes the control groups of this process ready. */
  openControlGroups?(): Promise<ControlGroupsResult>;
}

/** An option of a command. */
export interface Flag {
  /** Without dashes: `config` for `--config`. */
  name: string;
  /** One letter, without a dash. */
  short?: string;
  /** Other spellings of the long name that exist in the field. */
  aliases?: readonly string[];
  /** What stands for the value in the help; a flag without one is a switch. */
  value?: string;
  /** May be given more than once. */
  repeats?: boolean;
  /** Half a sentence for the help. */
  help: string;
}

/** What stood on the command line, as `parseCommandLine()` read it. */
export interface CommandLine {
  /** The last value of each flag that was given, by its name. */
  values: Readonly<Record<string, string>>;
  /** All values of each flag that was given, in their order. */
  lists: Readonly<Record<string, readonly string[]>>;
  switches: ReadonlySet<string>;
  positionals: readonly string[];
}

/** A command. */
export interface Command {
  name: string;
  /** One line. */
  summary: string;
  /** What stands behind the name on the usage line, flags apart: `JOB.yaml`. */
  operands?: string;
  /** How many positional arguments it takes. */
  positionals: { least: number; most: number };
  flags: readonly Flag[];
  /** Complete command lines, each with what it does. */
  examples: readonly { line: string; does: string }[];
  /** Runs it; resolves with the exit status. */
  run(line: CommandLine, io: Io): Promise<number>;
}

/** Where the configuration is looked for when nobody says so. */
export const DEFAULT_CONFIG = "testflinger-agent.conf";

/** Where the `refresh_token` is, as JSON, when neither configuration nor command line says so. */
export const DEFAULT_TOKEN_FILE = "/var/lib/testflinger-agent/refresh_token";

/** What every command takes. */
export const HELP_FLAG: Flag = { name: "help", short: "h", help: "show this help" };

/** For commands whose output programs read, too. */
export const FORMAT_FLAG: Flag = {
  name: "format",
  value: "text|json",
  help: "form of the output (default: text)",
};

/** The value of `FORMAT_FLAG`; what is wrong with it is told. */
export function readFormat(line: CommandLine, io: Io): "text" | "json" | undefined {
  const { format = "text" } = line.values;
  if (format === "text" || format === "json") return format;
  io.stderr(`--format must be 'text' or 'json': it is '${format}'\n`);
  return undefined;
}

/** The command line is wrong, or names what is not there or cannot be used: nothing was done. */
export const USAGE_STATUS = 2;

/** The name by which people call the program. */
export const PROGRAM = "testflinger-agent";

/** Set by the launcher of a packaged program: the one file that people call. */
const SELF_VARIABLE = "TESTFLINGER_AGENT_PROGRAM";

/**
 * What the program may do, however it is packaged; docs/security.md says why. Of the system it may ask
 * for trusted certificates, whether a debugger is open, free space and its user.
 */
export const PERMISSIONS = [
  ...["env", "net", "read", "run", "write"].map((permission) => `--allow-${permission}`),
  "--allow-sys=ca,inspector,statfs,uid",
];

/** Program and first arguments, to which a command is appended. */
export function selfCommand(): string[] {
  const launcher = Deno.env.get(SELF_VARIABLE);
  if (launcher !== undefined && launcher !== "") return [launcher];
  if (Deno.build.standalone) return [Deno.execPath()];
  return [Deno.execPath(), "run", "--quiet", ...PERMISSIONS, Deno.mainModule];
}
