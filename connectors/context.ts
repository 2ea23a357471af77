/**
 * What a device connector sees and what it is, as types. Nothing here does anything, and nothing
 * that is imported here imports this file: so no two files of connectors need each other.
 */
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { ProgressView } from "../lib/progress.ts";
import type { CommonConfig, Shape } from "./support/config.ts";
import type { HttpClient } from "./support/http/http.ts";
import type { JobData } from "./support/job.ts";
import type { ProgramNeed } from "./support/process/programs.ts";
import type { CommandRunner } from "./support/process/runner.ts";
import type { PutBack } from "./support/put_back.ts";
import type { SshConnections } from "./support/ssh/connections.ts";

/** The stages of a connector, by their names on the command line: one for each phase of a job. */
export const STAGES = [
  "setup",
  "provision",
  "firmware_update",
  "runtest",
  "allocate",
  "reserve",
  "cleanup",
] as const;

/** One stage of a connector. */
export type Stage = typeof STAGES[number];

/**
 * What `prepare` works with: the configuration, the job's folder, and a log. No programs, no
 * requests, no pauses, so that it cannot touch a device.
 */
export interface PrepareContext<Config = CommonConfig> {
  /** Name of the connector on the command line. */
  readonly connector: string;
  readonly stage: Stage;
  /** The validated device configuration. */
  readonly config: Config;
  /** The same with every key that the file has, unknown ones included. */
  readonly configValues: Readonly<Record<string, unknown>>;
  /** Absolute path of the folder that everything is relative to: the job's. */
  readonly cwd: string;
  /** The environment that the connector was started with. */
  readonly env: Readonly<Record<string, string>>;
  readonly log: Log;
}

/** What a stage works with. Nothing in a connector reads globals: it is all here. */
export interface ConnectorContext<Config = CommonConfig> extends PrepareContext<Config> {
  /** For pauses and deadlines. */
  readonly clock: Clock;
  /**
   * For the time limits of calls to programs and servers. The same as `clock`, but for tests,
   * whose virtual time must not run out while a real program works.
   */
  readonly limits: Clock;
  /** Where a person watches; undefined: progress goes to the log. */
  readonly progress?: ProgressView | undefined;
  /** Aborts with a `Stopped` when the process is asked to stop. */
  readonly signal: AbortSignal;
  readonly runner: CommandRunner;
  /** The stage's shared ssh connections; see `remote`. */
  readonly connections: SshConnections;
  readonly http: HttpClient;
  /** Writes to standard output, for the job's log. */
  print(text: string | Uint8Array): Promise<void>;
  /** Reads the job file (once). Throws `JobError`. */
  readJob(): Promise<JobData>;
  /**
   * Registers something to put back however the stage ends. `action` gets a context of its own,
   * which still works when this one has been stopped.
   */
  putBack(name: string, action: (ctx: ConnectorContext<Config>) => Promise<void>): PutBack;
}

/** A connector as the command line uses it; `defineConnector` makes one. */
export interface Connector {
  readonly name: string;
  readonly summary: string;
  /** All configuration keys, the common ones included. */
  readonly configShape: Shape;
  /** The configuration keys that are this connector's own. */
  readonly ownConfigShape: Shape;
  readonly provisionShape: Shape;
  /** Configuration keys without which it cannot provision. */
  readonly needs: readonly string[];
  /** The same for most jobs: by key, for which jobs. */
  readonly mostlyNeeds: Readonly<Record<string, string>>;
  /** Whether it runs without a configuration file. */
  readonly configOptional: boolean;
  /** All programs that its stages call on this host, but for those that configurations and jobs name. */
  readonly programs: readonly ProgramNeed[];
  /** The same of a control host that it runs commands on, besides those that every system has. */
  readonly controlHostPrograms: readonly ProgramNeed[];
  /** What its tests run it against, as the end of "is tested against". */
  readonly testedAgainst: string;
  /**
   * Runs one stage.
   *
   * @param ctx whose `config` has been validated by `configShape`.
   * @returns the exit status.
   */
  run(ctx: ConnectorContext): Promise<number>;
}
