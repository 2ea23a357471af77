import { join } from "../../../lib/path.ts";
import type { ConnectorContext } from "../../context.ts";
import { preTestHook } from "../control_host/pre_provision_hook.ts";
import { JobError, RECOVERY_STATUS } from "../errors.ts";
import { writeFile } from "../files.ts";
import type { JobData } from "../job.ts";
import { startSerialLogger } from "../serial/serial_logger.ts";
import { fillTemplate } from "../templates.ts";

const SCRIPT_NAME = "tf_cmd_script";
const DEFAULT_INTERPRETER = "#!/bin/bash\n";

/** How another connector's `runtest` differs from the default one. */
export interface RunTestOptions {
  /** More variables; the job's secrets still win over them. */
  readonly env?: Readonly<Record<string, string>>;
  /** False: do not tell the control host. @default true */
  readonly hook?: boolean;
}

/**
 * The default `runtest` stage: runs the job's `test_cmds` on this host, their output going to
 * standard output byte by byte as it comes.
 *
 * @returns the exit status: of the script, or of the first command of a list that failed.
 * @throws JobError when the job has no `test_data`.
 */
export async function runTest(
  ctx: ConnectorContext,
  options: RunTestOptions = {},
): Promise<number> {
  const job = await ctx.readJob();
  if (!job.test_data) throw new JobError("The job has no 'test_data', so there is nothing to run");
  if (options.hook !== false) await preTestHook(ctx);
  const commands = job.test_data.test_cmds;
  if (!isCommands(commands)) {
    ctx.log.error(whyNoCommands(job.test_data));
    return 1;
  }
  await using _serial = await startSerialLogger(ctx, "test-serial.log");
  ctx.log.info("BEGIN testrun");
  const env = testEnvironment(ctx, job, options.env ?? {});
  const status = typeof commands === "string"
    ? await runScript(ctx, commands, env)
    : await runList(ctx, commands, env);
  ctx.log.info("END testrun");
  return ownStatus(ctx, status);
}

/** Which key was looked for, and which ones are there in its place. */
function whyNoCommands(section: Readonly<Record<string, unknown>>): string {
  if (section.test_cmds !== undefined && section.test_cmds !== null) {
    return "The job's 'test_data.test_cmds' must be a text or a list of texts";
  }
  const names = Object.keys(section).map((name) => `'${name}'`);
  return "The job's 'test_data' has no key 'test_cmds', so there is nothing to run" +
    (names.length === 0 ? "" : `; it has ${names.join(", ")}`);
}

function isCommands(value: unknown): value is string | string[] {
  return typeof value === "string" ||
    (Array.isArray(value) && value.every((item) => typeof item === "string"));
}

/** A test must not be able to take the agent offline. */
function ownStatus(ctx: ConnectorContext, status: number): number {
  if (status !== RECOVERY_STATUS) return status;
  ctx.log.warning(
    `The test ended with exit status ${RECOVERY_STATUS}, which means something else to the agent: ` +
      `it counts as 1`,
  );
  return 1;
}

/** Later ones win: the connector's own, the configuration's, the connector's, the job's secrets. */
function testEnvironment(
  { config, env }: ConnectorContext,
  job: JobData,
  more: Readonly<Record<string, string>>,
): Record<string, string> {
  const result: Record<string, string> = {
    ...env,
    ...config.env,
    AGENT_NAME: config.agent_name ?? "",
    REBOOT_SCRIPT: (config.reboot_script ?? []).join(";"),
    ...more,
  };
  for (const name of ["AGENT_NAME", "REBOOT_SCRIPT"]) if (result[name] === "") delete result[name];
  for (const [name, value] of Object.entries(job.test_data?.secrets ?? {})) {
    if (value !== null && value !== undefined) {
      result[name] = typeof value === "string" ? value : JSON.stringify(value);
    }
  }
  return result;
}

async function runList(
  ctx: ConnectorContext,
  commands: readonly string[],
  env: Record<string, string>,
): Promise<number> {
  if (commands.length === 0) ctx.log.warning("The job's list of test commands is empty");
  let first = 0;
  let last = 0;
  for (const command of commands) {
    const filled = fillIn(ctx, command);
    ctx.log.info(`Running: ${filled}`);
    last = await ctx.runner.runForeground(["/bin/sh", "-c", filled], {
      env,
      onOutput: (bytes) => ctx.print(bytes),
    });
    if (first === 0) first = last;
  }
  return ctx.config.test_cmds_list_status === "last" ? last : first;
}

async function runScript(
  ctx: ConnectorContext,
  commands: string,
  env: Record<string, string>,
): Promise<number> {
  const script = commands.startsWith("#!") ? commands : DEFAULT_INTERPRETER + commands;
  const path = join(ctx.cwd, SCRIPT_NAME);
  await Deno.remove(path).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
  // createNew never follows a link that was put there meanwhile.
  await writeFile(path, fillIn(ctx, script), { createNew: true, mode: 0o700 });
  return await ctx.runner.runForeground([`./${SCRIPT_NAME}`], {
    env,
    onOutput: (bytes) => ctx.print(bytes),
  });
}

function fillIn({ configValues, log }: ConnectorContext, text: string): string {
  // The lab's own, which is no business of a job.
  const { control_host_token: _, ...values } = configValues;
  const filled = fillTemplate(text, values);
  if (!filled.triggered) return text;
  log.warning(
    "Test commands with '{{' are read as templates, which is deprecated: use environment " +
      "variables instead",
  );
  if (filled.used.length > 0) {
    log.info(`Filled in from the configuration: ${filled.used.join(", ")}`);
  }
  if (filled.refused.length > 0) {
    log.warning(`Left as it is, being no template: ${[...new Set(filled.refused)].join(" ")}`);
  }
  return filled.text;
}
