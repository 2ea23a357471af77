/** What is asked of a device's control host before provisioning and before tests. */
import type { ConnectorContext } from "../../context.ts";
import { fullMessageOf, ProvisioningError, RecoveryError } from "../errors.ts";
import { runScript } from "../script/script.ts";
import { pollUntil } from "../wait/poll.ts";
import { tcpAnswers } from "../wait/tcp.ts";
import { type RestService, restService } from "./rest.ts";

const REQUEST_TIMEOUT_MS = 10_000;
const SCRIPT_TIMEOUT_MS = 60_000;
const HEALTH_TIMEOUT_MS = 3_000;
const PROBE_TIMEOUT_MS = 3_000;
const PROBE_PAUSE_MS = 2_000;
const PING_TIMEOUT_MS = 5_000;

/** How long a control host that was asked to shut down may still answer pings. */
const OFFLINE_LIMIT_MS = 30_000;
/** After it stopped answering, its disks still need a moment before the power may go. */
const SHUTDOWN_PAUSE_MS = 10_000;
const READY_LIMIT_MS = 300_000;

/** Any value but the empty one turns the power cycle off, for people who work on a device. */
const DISABLE_VARIABLE = "DISABLE_CONTROL_HOST_POWERCYCLE";

/** How the hook differs between connectors. */
export interface PreProvisionOptions {
  /** Also cut the device's power, with `poweroff_script` and `poweron_script`. */
  readonly powerManagement?: boolean | undefined;
  /** JSON body of the set-up request. */
  readonly setupBody?: unknown;
}

/**
 * Power-cycles the control host where that is configured, and tells it to get ready for
 * provisioning. Does nothing without a `control_host`.
 *
 * @returns whether the control host has been power-cycled.
 * @throws ProvisioningError when it does not come back (or RecoveryError, where the configuration
 *   says so).
 */
export async function preProvisionHook(
  ctx: ConnectorContext,
  options: PreProvisionOptions,
): Promise<boolean> {
  if (!ctx.config.control_host) return false;
  const rest = await restService(ctx);
  const cycled = await powerCycle(ctx, rest, options);
  await tell(ctx, rest, { what: "setup/provisioning", json: options.setupBody });
  return cycled;
}

/**
 * Tells the control host that tests begin. Does nothing without a `control_host`. Best effort: tests
 * may run in a container that has none of the files which the configuration names.
 */
export async function preTestHook(ctx: ConnectorContext): Promise<void> {
  if (!ctx.config.control_host) return;
  let rest: RestService;
  try {
    rest = await restService(ctx);
  } catch (error) {
    ctx.log.warning(
      `The control host is not told that tests begin: ${fullMessageOf(error)}; going on without`,
    );
    return;
  }
  await tell(ctx, rest, { what: "setup/test" });
}

async function powerCycle(
  ctx: ConnectorContext,
  rest: RestService,
  { powerManagement }: PreProvisionOptions,
): Promise<boolean> {
  const { config, env, log } = ctx;
  if (env[DISABLE_VARIABLE]) {
    log.info(`The control host is not power-cycled: ${DISABLE_VARIABLE} is set`);
    return false;
  }
  const reboot = config.control_host_reboot_script;
  if (reboot === undefined || reboot.length === 0) {
    log.warning("The control host is not power-cycled: 'control_host_reboot_script' is not set");
    return false;
  }
  const power = powerManagement ? powerScripts(ctx) : undefined;
  // Registered before the power goes: whatever happens next, the device gets it back.
  await using powerOn = ctx.putBack("the device's power", async (ctx) => {
    if (power) await runHookScript(ctx, "poweron_script", power.on);
  });
  if (power) await runHookScript(ctx, "poweroff_script", power.off);

  const poweroff = await rest.call(ctx, "/api/v1/system/poweroff", {
    method: "POST",
    timeoutMs: REQUEST_TIMEOUT_MS,
  });
  let cycled = true;
  if (poweroff.ok) {
    await waitUntilOffline(ctx);
    const failures = await runHookScript(ctx, "control_host_reboot_script", reboot);
    await waitUntilReady(ctx, rest, failures);
  } else {
    cycled = await sshFallback(ctx, reboot);
  }
  await powerOn.run();
  return cycled;
}

/** The hook is best effort: a command that fails is logged, and the next one runs. */
function runHookScript(
  ctx: ConnectorContext,
  key: string,
  commands: readonly string[],
): Promise<string[]> {
  return runScript(ctx, { key, commands, timeoutMs: SCRIPT_TIMEOUT_MS, failure: "log" });
}

function powerScripts(ctx: ConnectorContext): { off: string[]; on: string[] } | undefined {
  const { poweroff_script: off, poweron_script: on } = ctx.config;
  if (off !== undefined && on !== undefined) return { off, on };
  ctx.log.warning(
    "The device keeps its power while the control host is power-cycled: 'poweroff_script' and " +
      "'poweron_script' are not both set",
  );
  return undefined;
}

async function waitUntilOffline(ctx: ConnectorContext): Promise<void> {
  const online = await pollUntil(ctx, {
    waitingFor: "the control host to shut down",
    limitMs: OFFLINE_LIMIT_MS,
    pauseMs: PROBE_PAUSE_MS,
    lookFirst: true,
    look: async () => await isOnline(ctx) ? "it still answers" : undefined,
  });
  if (online === undefined) await ctx.clock.sleep(SHUTDOWN_PAUSE_MS, ctx.signal);
}

async function isOnline(ctx: ConnectorContext): Promise<boolean> {
  const { config, runner } = ctx;
  const host = config.control_host ?? "";
  const ping = await runner.run(["ping", "-c", "1", "-W", "3", host], {
    timeoutMs: PING_TIMEOUT_MS,
  });
  if (ping.ended !== "not_started") return ping.ended === "exited" && ping.status === 0;
  // No ping on this host: something that listens is as good a sign.
  const answers = await Promise.all(
    [config.control_host_ssh_port, config.control_host_port].map((port) =>
      tcpAnswers(ctx, { host, port, timeoutMs: PROBE_TIMEOUT_MS })
    ),
  );
  return answers.includes(true);
}

async function waitUntilReady(
  ctx: ConnectorContext,
  rest: RestService,
  rebootFailures: string[],
): Promise<void> {
  const { config } = ctx;
  const missing = await pollUntil(ctx, {
    waitingFor: "the control host to be ready",
    limitMs: READY_LIMIT_MS,
    pauseMs: PROBE_PAUSE_MS,
    lookFirst: true,
    async look() {
      const health = await rest.call(ctx, "/health", { timeoutMs: HEALTH_TIMEOUT_MS });
      return health.ok ? undefined : `${rest.url}/health: ${health.why}`;
    },
  });
  if (missing === undefined) return;
  const ErrorClass = config.control_host_unready_is_recovery_error
    ? RecoveryError
    : ProvisioningError;
  throw new ErrorClass(
    `The control host ${config.control_host} was not ready ${READY_LIMIT_MS / 1000} s after its ` +
      `power cycle: ${missing}` +
      (rebootFailures.length > 0 ? `; its reboot failed: ${rebootFailures.join("; ")}` : ""),
  );
}

/** The control host has no REST service that would power it off: reboot it only if it is dead. */
async function sshFallback(ctx: ConnectorContext, reboot: readonly string[]): Promise<boolean> {
  const { config, log } = ctx;
  const host = config.control_host ?? "";
  const probe = { host, port: config.control_host_ssh_port, timeoutMs: PROBE_TIMEOUT_MS };
  if (await tcpAnswers(ctx, probe)) return false;
  await runHookScript(ctx, "control_host_reboot_script", reboot);
  const missing = await pollUntil(ctx, {
    waitingFor: "the control host to come back",
    limitMs: READY_LIMIT_MS,
    pauseMs: PROBE_PAUSE_MS,
    lookFirst: true,
    look: async () => await tcpAnswers(ctx, probe) ? undefined : "its ssh port does not answer",
  });
  if (missing === undefined) return true;
  log.warning(`The control host ${host} does not answer on port ${probe.port}; going on without`);
  return true;
}

/** Best effort: not every control host has this service. */
async function tell(
  ctx: ConnectorContext,
  rest: RestService,
  { what, json }: { readonly what: string; readonly json?: unknown },
): Promise<void> {
  const told = await rest.call(ctx, `/api/v1/system/${what}`, {
    method: "POST",
    timeoutMs: REQUEST_TIMEOUT_MS,
    ...(json === undefined ? {} : { json }),
  });
  if (told.ok) return;
  ctx.log.warning(
    `The control host did not take the request '${what}': ${told.why}; going on without`,
  );
}
