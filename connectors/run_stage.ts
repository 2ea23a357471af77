import * as z from "zod";
import type { Clock } from "../lib/clock.ts";
import { isAbsolute, join } from "../lib/path.ts";
import type { ProgressView } from "../lib/progress.ts";
import { formatMistake, type Mistake } from "../lib/config/mistake.ts";
import type { Connector, Stage } from "./context.ts";
import { type CommonConfig, readConfigFile } from "./support/config.ts";
import { makeContext } from "./make_context.ts";
import { recordFailure, writeDeviceInfo } from "./support/agent_files.ts";
import {
  ConfigurationError,
  fullMessageOf,
  RECOVERY_STATUS,
  RecoveryError,
  Stopped,
} from "./support/errors.ts";
import { connectorLog } from "./support/log.ts";

/** One run of a connector. */
export interface StageRun {
  readonly connector: Connector;
  readonly stage: Stage;
  /** Path of the device configuration, relative to `cwd`; undefined: the connector needs none. */
  readonly configFile: string | undefined;
  /** Path of the job, relative to `cwd`. */
  readonly jobFile: string;
}

/** What a run has of the world. */
export interface StageWorld {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly clock: Clock;
  readonly limits: Clock;
  readonly signal: AbortSignal;
  readonly forceStop: AbortSignal;
  readonly stdout: (bytes: Uint8Array) => Promise<void>;
  readonly stderr: (text: string) => void;
  /** Where a person watches how far long things have come. */
  readonly progress?: ProgressView | undefined;
}

const FAILED_STATUS = 1;
/** What shells add to a signal's number. */
const SIGNAL_STATUS = 128;
const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 };

/**
 * Runs one stage from reading the configuration to its end. Whatever goes wrong is logged, and
 * left for the agent in `device-connector-error.json`.
 *
 * @returns the exit status.
 */
export async function runStage(run: StageRun, world: StageWorld): Promise<number> {
  const { stage } = run;
  const { cwd, clock } = world;
  let log = connectorLog({ write: world.stderr, clock, agentName: "" });
  try {
    const { config, configValues, warnings } = await readConfig(run, world);
    log = connectorLog({ write: world.stderr, clock, agentName: config.agent_name ?? "" });
    for (const warning of warnings) log.warning(warning);
    const { ctx, putBack } = makeContext({
      ...world,
      connector: run.connector.name,
      stage,
      config,
      configValues,
      jobFile: run.jobFile,
      log,
      print: world.stdout,
    });
    try {
      await writeDeviceInfo(ctx);
      return await run.connector.run(ctx);
    } finally {
      await putBack.runAll();
    }
  } catch (error) {
    if (world.signal.aborted && world.signal.reason instanceof Stopped) {
      log.warning(`The ${stage} stage was ${world.signal.reason.message}`);
      // A reservation has no other end before its time.
      return stage === "reserve" ? 0 : SIGNAL_STATUS + SIGNALS[world.signal.reason.signal];
    }
    log.error(`${error instanceof Error ? `${error.name}: ` : ""}${fullMessageOf(error)}`);
    await recordFailure({ cwd, log }, { stage, error });
    return error instanceof RecoveryError ? RECOVERY_STATUS : FAILED_STATUS;
  }
}

interface ConfigRead {
  readonly config: CommonConfig;
  readonly configValues: Readonly<Record<string, unknown>>;
  readonly warnings: readonly string[];
}

async function readConfig(
  { connector, configFile }: StageRun,
  { cwd, env }: StageWorld,
): Promise<ConfigRead> {
  if (configFile === undefined) {
    // Phases have the agent's name in their environment.
    const values = { agent_name: env.agent_id ?? connector.name };
    // Each connector's shape has the common keys in it.
    const config = z.looseObject(connector.configShape).parse(values);
    return { config: config as CommonConfig, configValues: values, warnings: [] };
  }
  const file = isAbsolute(configFile) ? configFile : join(cwd, configFile);
  let written: Record<string, unknown> = {};
  // The file is named as the command line named it.
  const shown = (mistake: Mistake) => formatMistake({ ...mistake, file: configFile });
  const result = await readConfigFile(file, connector.configShape, (value) => {
    if (typeof value === "object" && value !== null) written = { ...value };
  });
  if (!result.ok) {
    const mistakes = result.mistakes.map(shown);
    const separator = mistakes.length > 1 ? "\n" : " ";
    throw new ConfigurationError(
      `The device configuration cannot be used:${separator}${mistakes.join("\n")}`,
    );
  }
  return {
    // The connector's shape has all the common keys in it, by construction.
    config: result.value as CommonConfig,
    configValues: written,
    warnings: result.warnings.map(shown),
  };
}
