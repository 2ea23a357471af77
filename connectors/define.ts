/**
 * The frame of a connector: seven stages, run as `<connector> <stage> -c CONFIG JOB`. A connector
 * gives `provision`, and mostly `prepare`; the other stages have defaults.
 */
import { didYouMean } from "../lib/config/mistake.ts";
import type { Connector, ConnectorContext, PrepareContext, Stage } from "./context.ts";
import {
  type CommonConfig,
  commonShape,
  mappingSchema,
  missingKeys,
  missingText,
  needAll,
  type Shape,
  type ShapeOutput,
} from "./support/config.ts";
import { preProvisionHook } from "./support/control_host/pre_provision_hook.ts";
import { ProvisioningError } from "./support/errors.ts";
import { issuesText, type JobData } from "./support/job.ts";
import { COMMON_PROGRAMS, mergePrograms, type ProgramNeed } from "./support/process/programs.ts";
import { startSerialLogger } from "./support/serial/serial_logger.ts";
import { updateFirmware } from "./support/stage/firmware_update.ts";
import { reserve } from "./support/stage/reserve.ts";
import { runTest } from "./support/stage/runtest.ts";

/** What `prepare` is given besides its context. */
export interface PrepareInput<Data> {
  readonly job: JobData;
  /** The validated `provision_data`; an absent section is an empty one. */
  readonly data: Data;
}

/** What `provision` is given besides its context. */
export interface ProvisionInput<Data, Plan> extends PrepareInput<Data> {
  /** What `prepare` returned. */
  readonly plan: Plan;
  /** The pre-provision hook has just power-cycled the control host. */
  readonly controlHostCycled: boolean;
}

/** Does the work of a stage, and returns the exit status; nothing is 0. */
type StageWork<Context> = (ctx: Context) => Promise<number | void>;

/** Every stage but `provision` has a default, which a connector may replace by its own. */
type OtherStages<Context> = Partial<Record<Exclude<Stage, "provision">, StageWork<Context>>>;

/** The parts that make a connector; see `defineConnector`. */
export interface ConnectorParts<ConfigShape extends Shape, DataShape extends Shape, Plan>
  extends OtherStages<ConnectorContext<CommonConfig & ShapeOutput<ConfigShape>>> {
  readonly name: string;
  /** One sentence for `device-connector list`. */
  readonly summary: string;
  /** Configuration keys besides the common ones (or in their place), each with `.describe()`. */
  readonly config: ConfigShape;
  /** Keys of `provision_data`, each with `.describe()`. Unknown ones are kept. */
  readonly provisionData: DataShape;
  /** Configuration keys that `provision` cannot do without: checked before anything is done. */
  readonly needs?: readonly (string & keyof (CommonConfig & ShapeOutput<ConfigShape>))[];
  /** Keys that some jobs can do without: by key, which jobs need it, as "jobs that ...". @default none */
  readonly mostlyNeeds?: Readonly<
    Partial<Record<string & keyof (CommonConfig & ShapeOutput<ConfigShape>), string>>
  >;
  /** It runs without a configuration file, too. @default false */
  readonly configOptional?: boolean;
  /** Programs that it calls on this host, besides what all connectors do. @default none */
  readonly programs?: readonly ProgramNeed[];
  /** Programs that it runs on the control host, besides those that every system has. @default none */
  readonly controlHostPrograms?: readonly ProgramNeed[];
  /** What is real of what tests run it against. @default nothing is */
  readonly testedAgainst?: string;
  /** The pre-provision hook also cuts the device's power. @default false */
  readonly powerManagement?: boolean;
  /** JSON body of the hook's set-up request. @default none */
  readonly setupBody?: unknown;
  /** False: this job needs no provisioning at all, not even the hook. @default always true */
  wanted?(data: ShapeOutput<DataShape>): boolean;
  /**
   * Validates and resolves everything that the job and the configuration say, before anything is
   * done to a device or its control host: what is wrong is an exception. It may read local files,
   * such as attachments. The stage `setup` calls it too.
   *
   * @returns what `provision` gets as its plan.
   */
  prepare?(
    ctx: PrepareContext<CommonConfig & ShapeOutput<ConfigShape>>,
    input: PrepareInput<ShapeOutput<DataShape>>,
  ): Plan | Promise<Plan>;
  /** Everything after the hook; the serial log goes on. The exit status; nothing is 0. */
  provision(
    ctx: ConnectorContext<CommonConfig & ShapeOutput<ConfigShape>>,
    input: ProvisionInput<ShapeOutput<DataShape>, Plan>,
  ): Promise<number | void>;
}

/** The default stages but `setup` and `provision`. */
const DEFAULTS: Record<Exclude<Stage, "setup" | "provision">, StageWork<ConnectorContext>> = {
  firmware_update: updateFirmware,
  runtest: (ctx) => runTest(ctx),
  // The agent itself tells the server where the device is: device-info.json is there.
  allocate: () => Promise.resolve(),
  reserve,
  cleanup: () => Promise.resolve(),
};

/** Keys that no connector knows may be meant for the server, or for nobody. */
function warnOfMisspelt({ log }: PrepareContext, written: readonly string[], shape: Shape): void {
  for (const key of written) {
    const meant = Object.hasOwn(shape, key) ? undefined : didYouMean(key, Object.keys(shape));
    if (meant === undefined || written.includes(meant)) continue;
    log.warning(`The job's provision_data has the key '${key}': did you mean '${meant}'?`);
  }
}

/** Makes a connector of its parts: the frame around `provision`, and defaults for the rest. */
export function defineConnector<
  ConfigShape extends Shape,
  DataShape extends Shape,
  Plan = undefined,
>(parts: ConnectorParts<ConfigShape, DataShape, Plan>): Connector {
  type OwnContext = ConnectorContext<CommonConfig & ShapeOutput<ConfigShape>>;
  type OwnInput = PrepareInput<ShapeOutput<DataShape>> & { readonly plan: Plan };
  const dataSchema = mappingSchema(parts.provisionData);

  /** What provisioning is to do; undefined where the job wants none. */
  async function prepared(ctx: OwnContext): Promise<OwnInput | undefined> {
    const job = await ctx.readJob();
    const parsed = dataSchema.safeParse(job.provision_data ?? {});
    if (!parsed.success) {
      throw new ProvisioningError(`The job's provision_data is wrong: ${issuesText(parsed.error)}`);
    }
    // The schema was made of this very shape; zod cannot say so for a shape that is a parameter.
    const data = parsed.data as ShapeOutput<DataShape>;
    if (parts.wanted?.(data) === false) return undefined;
    warnOfMisspelt(ctx, Object.keys(job.provision_data ?? {}), parts.provisionData);
    needAll(ctx.config, parts.needs ?? []);
    // Without a prepare, Plan is undefined: there is nothing that it could be inferred from.
    const plan = parts.prepare ? await parts.prepare(ctx, { job, data }) : undefined as Plan;
    return { job, data, plan };
  }

  /** The default `setup`: sees what `provision` would refuse, and does nothing to the device. */
  async function setUp(ctx: OwnContext): Promise<void> {
    const { provision_data: section } = await ctx.readJob();
    // The agent provisions only for a section that says something.
    const provisions = section != null && Object.keys(section).length > 0 && !section.skip;
    if (provisions) {
      await prepared(ctx);
      ctx.log.info("The device configuration and the job can be used");
      return;
    }
    // Nothing of it is needed for this job.
    const missing = missingKeys(ctx.config, parts.needs ?? []);
    ctx.log.info(
      missing.length === 0
        ? "The job can be used; it is not provisioned"
        : `The job can be used, as it is not provisioned: for that, ${missingText(missing)}`,
    );
  }

  async function provision(ctx: OwnContext): Promise<number | void> {
    const input = await prepared(ctx);
    if (input === undefined) {
      ctx.log.info("The job does not want the device to be provisioned");
      return;
    }
    ctx.log.info("BEGIN provision");
    // Before the hook: what the device says while its power is cut and comes back is worth having.
    await using _serial = await startSerialLogger(ctx, "provision-serial.log");
    const controlHostCycled = await preProvisionHook(ctx, {
      powerManagement: parts.powerManagement,
      setupBody: parts.setupBody,
    });
    const status = await parts.provision(ctx, { ...input, controlHostCycled });
    ctx.log.info("END provision");
    return status;
  }

  function workOf(stage: Stage): StageWork<OwnContext> {
    if (stage === "provision") return provision;
    return parts[stage] ?? (stage === "setup" ? setUp : DEFAULTS[stage]);
  }

  return {
    name: parts.name,
    summary: parts.summary,
    configShape: { ...commonShape, ...parts.config },
    ownConfigShape: parts.config,
    provisionShape: parts.provisionData,
    needs: parts.needs ?? [],
    mostlyNeeds: Object.fromEntries(
      Object.entries(parts.mostlyNeeds ?? {}).map(([key, jobs]) => [key, String(jobs)]),
    ),
    configOptional: parts.configOptional ?? false,
    testedAgainst: parts.testedAgainst ?? "stand-ins for every program, server and device",
    controlHostPrograms: parts.controlHostPrograms ?? [],
    programs: mergePrograms([...parts.programs ?? [], ...COMMON_PROGRAMS]),
    // The caller has validated `config` by `configShape`, so it has this connector's keys too.
    run: async (ctx) => await workOf(ctx.stage)(ctx as OwnContext) ?? 0,
  };
}
