/**
 * The contract of a device connector: seven stages, one for each phase of a job, run as
 * `<connector> <stage> -c CONFIG JOB`. A connector brings `provision`; the others have defaults.
 */
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { ProgressView } from "../lib/progress.ts";
import {
  type CommonConfig,
  commonShape,
  needAll,
  sectionSchema,
  type Shape,
  type ShapeOutput,
} from "./support/config.ts";
import { preProvisionHook } from "./support/control_host/pre_provision_hook.ts";
import { FirmwareUpdateError, ProvisioningError } from "./support/errors.ts";
import type { HttpClient } from "./support/http/http.ts";
import { issuesText, type Job } from "./support/job.ts";
import type { PutBack } from "./support/put_back.ts";
import { COMMON_PROGRAMS, mergePrograms, type ProgramNeed } from "./support/process/programs.ts";
import { reserve } from "./support/stage/reserve.ts";
import type { CommandRunner } from "./support/process/runner.ts";
import { runTest } from "./support/stage/runtest.ts";
import { startSerialLogger } from "./support/serial/serial_logger.ts";

/** The stages of a connector, by their names on the command line. */
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

/** What a stage works with. Nothing in a connector reads globals: it is all here. */
export interface ConnectorContext<Config = CommonConfig> {
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
  /** For pauses and deadlines. */
  readonly clock: Clock;
  /**
   * For the time limits of calls to programs and servers. The same as `clock`, but for tests,
   * whose virtual time must not run out while a real program works.
   */
  readonly limits: Clock;
  readonly log: Log;
  /** Where a person watches; undefined: whoever is interested reads the log. */
  readonly progress?: ProgressView | undefined;
  /** Aborts with a `Stopped` when the process is asked to stop. */
  readonly signal: AbortSignal;
  readonly runner: CommandRunner;
  readonly http: HttpClient;
  /** Writes to standard output, for the job's log. */
  print(text: string | Uint8Array): Promise<void>;
  /** Reads the job file (once). Throws `JobError`. */
  readJob(): Promise<Job>;
  /**
   * Registers something to put back however the stage ends. `action` gets a context of its own,
   * which still works when this one has been stopped.
   */
  putBack(name: string, action: (ctx: ConnectorContext<Config>) => Promise<void>): PutBack;
}

/** What `provision` is given besides its context. */
export interface ProvisionInput<Data> {
  readonly job: Job;
  /** The validated `provision_data`; an absent section is an empty one. */
  readonly data: Data;
  /** The pre-provision hook has just power-cycled the control host. */
  readonly controlHostCycled: boolean;
}

/** The parts that make a connector; see `defineConnector`. */
export interface ConnectorParts<ConfigShape extends Shape, DataShape extends Shape> {
  readonly name: string;
  /** One sentence for `device-connector list`. */
  readonly summary: string;
  /** Configuration keys besides the common ones (or in their place), each with `.describe()`. */
  readonly config: ConfigShape;
  /** Keys of `provision_data`, each with `.describe()`. Unknown ones are kept. */
  readonly provisionData: DataShape;
  /** Configuration keys that `provision` cannot do without: checked before anything is done. */
  readonly needs?: readonly (string & keyof (CommonConfig & ShapeOutput<ConfigShape>))[];
  /** Programs that it calls on this host, besides what all connectors do. @default none */
  readonly programs?: readonly ProgramNeed[];
  /** The pre-provision hook also cuts the device's power. @default false */
  readonly powerManagement?: boolean;
  /** JSON body of the hook's set-up request. @default none */
  readonly setupBody?: unknown;
  /** False: this job needs no provisioning at all, not even the hook. @default always true */
  wanted?(data: ShapeOutput<DataShape>): boolean;
  /** Everything after the hook, with the serial logger running. The exit status; nothing is 0. */
  provision(
    ctx: ConnectorContext<CommonConfig & ShapeOutput<ConfigShape>>,
    input: ProvisionInput<ShapeOutput<DataShape>>,
  ): Promise<number | void>;
  /** In place of the default `setup`, which only reads the job. */
  setup?(
    ctx: ConnectorContext<CommonConfig & ShapeOutput<ConfigShape>>,
  ): Promise<number | void>;
  /** In place of the default `runtest`. */
  runtest?(
    ctx: ConnectorContext<CommonConfig & ShapeOutput<ConfigShape>>,
  ): Promise<number | void>;
  /** In place of the default `cleanup`, which does nothing. */
  cleanup?(
    ctx: ConnectorContext<CommonConfig & ShapeOutput<ConfigShape>>,
  ): Promise<number | void>;
}

/** A connector as the command line uses it. */
export interface Connector {
  readonly name: string;
  readonly summary: string;
  /** All configuration keys, the common ones included. */
  readonly configShape: Shape;
  /** The configuration keys that are this connector's own. */
  readonly ownConfigShape: Shape;
  readonly provisionShape: Shape;
  readonly needs: readonly string[];
  /** All programs that its stages call on this host, but for those that configurations and jobs name. */
  readonly programs: readonly ProgramNeed[];
  /**
   * Runs one stage.
   *
   * @param ctx whose `config` has been validated by `configShape`.
   * @returns the exit status.
   */
  run(ctx: ConnectorContext): Promise<number>;
}

/**
 * The default `setup` stage: that the configuration can be used has been seen before, and now the
 * same of the job. The device is not touched.
 */
async function setUp(ctx: ConnectorContext): Promise<void> {
  await ctx.readJob();
  ctx.log.info("The device configuration and the job can be used");
}

/** Makes a connector of its parts: the frame around `provision`, and defaults for the rest. */
export function defineConnector<ConfigShape extends Shape, DataShape extends Shape>(
  parts: ConnectorParts<ConfigShape, DataShape>,
): Connector {
  type OwnContext = ConnectorContext<CommonConfig & ShapeOutput<ConfigShape>>;
  const dataSchema = sectionSchema(parts.provisionData);

  async function provision(ctx: OwnContext): Promise<number | void> {
    const job = await ctx.readJob();
    const parsed = dataSchema.safeParse(job.provision_data ?? {});
    if (!parsed.success) {
      throw new ProvisioningError(`The job's provision_data is wrong: ${issuesText(parsed.error)}`);
    }
    // The schema was made of this very shape; zod cannot say so for a shape that is a parameter.
    const data = parsed.data as ShapeOutput<DataShape>;
    if (parts.wanted?.(data) === false) {
      ctx.log.info("The job does not want the device to be provisioned");
      return;
    }
    needAll(ctx.config, parts.needs ?? []);
    ctx.log.info("BEGIN provision");
    const controlHostCycled = await preProvisionHook(ctx, {
      powerManagement: parts.powerManagement,
      setupBody: parts.setupBody,
    });
    await using _serial = await startSerialLogger(ctx, "provision-serial.log");
    const status = await parts.provision(ctx, { job, data, controlHostCycled });
    ctx.log.info("END provision");
    return status;
  }

  function stage(ctx: OwnContext): Promise<number | void> {
    switch (ctx.stage) {
      case "setup":
        return parts.setup ? parts.setup(ctx) : setUp(ctx);
      case "provision":
        return provision(ctx);
      case "runtest":
        return parts.runtest ? parts.runtest(ctx) : runTest(ctx);
      case "reserve":
        return reserve(ctx);
      case "cleanup":
        return parts.cleanup?.(ctx) ?? Promise.resolve();
      case "allocate":
        // The agent itself tells the server where the device is: device-info.json is there.
        return Promise.resolve();
      case "firmware_update":
        return Promise.reject(
          new FirmwareUpdateError("Updating firmware is not supported by this version"),
        );
    }
  }

  return {
    name: parts.name,
    summary: parts.summary,
    configShape: { ...commonShape, ...parts.config },
    ownConfigShape: parts.config,
    provisionShape: parts.provisionData,
    needs: parts.needs ?? [],
    programs: mergePrograms([...parts.programs ?? [], ...COMMON_PROGRAMS]),
    // The caller has validated `config` by `configShape`, so it has this connector's keys too.
    run: async (ctx) => await stage(ctx as OwnContext) ?? 0,
  };
}
