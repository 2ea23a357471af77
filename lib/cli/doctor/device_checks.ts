/** What device connectors need: programs, a key, the device, its control host. */
import { systemClock } from "../../clock.ts";
import { within } from "../../wait.ts";
import { loadConnector } from "../../../connectors/registry.ts";
import { mergePrograms } from "../../../connectors/support/process/programs.ts";
import type { Connector } from "../../../connectors/context.ts";
import type { CommonConfig } from "../../../connectors/support/config.ts";
import { restService } from "../../../connectors/support/control_host/rest.ts";
import {
  controlHostTarget,
  destination,
  sshInvocation,
} from "../../../connectors/support/ssh/ssh.ts";
import { messageOf } from "../../message.ts";
import { showText } from "../../observe/output_text.ts";
import { join } from "../../path.ts";
import { connectorCalls, isFixed } from "../check/phase_commands.ts";
import { type DeviceConfig, readDeviceConfig } from "../check/device_file.ts";
import { findProgram } from "../agents/agent_user.ts";
import {
  type Check,
  type CheckResult,
  type Examined,
  failed,
  ok,
  skipped,
  warning,
} from "./check_result.ts";

const CONNECT_LIMIT_MS = 5_000;
const HEALTH_LIMIT_MS = 5_000;
const VERSION_LIMIT_MS = 5_000;
/** ssh gives up connecting after 10 s. */
const SSH_LIMIT_MS = 20_000;
/** Last line of what the control host says: without it something else has answered. */
const LOOKED = "looked";
const MOST_VERSION_CHARS = 60;

/** Connectors that reach no device of their own. */
const WITHOUT_DEVICE = new Set(["fake_connector", "multi"]);

const KEY_NAMES = ["id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"];

/** One device configuration, and the connectors that are called with it. */
interface Device {
  file: string;
  config: DeviceConfig;
  connectors: Connector[];
}

/** Everything about the devices that the agent's phases are for. */
export const deviceChecks: Check = async (examined) => {
  const devices = await devicesOf(examined);
  const checkResults = await programResults(examined);
  if (devices.length === 0) {
    return [...checkResults, ok("device", "no phase calls a connector that has one")];
  }
  for (const device of devices) {
    checkResults.push(
      await keyResult(examined, device),
      await deviceResult(device),
      ...await controlHostResult(examined, device),
      ...await controlHostPrograms(examined, device),
    );
  }
  return [
    ...new Map(checkResults.map((checkResult) => [JSON.stringify(checkResult), checkResult]))
      .values(),
  ];
};

async function devicesOf({ agent: { config, file } }: Examined): Promise<Device[]> {
  const devices = new Map<string, Device>();
  for (const { connector, configFile } of connectorCalls(config, file)) {
    if (configFile === undefined || !isFixed(configFile) || WITHOUT_DEVICE.has(connector)) continue;
    // What is wrong with the file has been told with the configuration.
    const loaded = await loadConnector(connector);
    const result = await readDeviceConfig(configFile, loaded);
    if (!result.ok) continue;
    const connectors = devices.get(configFile)?.connectors ?? [];
    if (loaded !== undefined && !connectors.includes(loaded)) connectors.push(loaded);
    devices.set(configFile, { file: configFile, config: result.value, connectors });
  }
  return [...devices.values()];
}

/** Whether the programs are there that the connectors call, of all connectors that phases call. */
async function programResults(
  { env, user, agent: { config, file } }: Examined,
): Promise<CheckResult[]> {
  const calls = connectorCalls(config, file);
  const names = new Set(calls.map(({ connector }) => connector));
  const keys = await keysOf(calls);
  const loaded = await Promise.all([...names].map(loadConnector));
  const connectors = loaded.filter((connector) => connector !== undefined);
  const checkResults: CheckResult[] = [];
  const found: string[] = [];
  const needs = connectors.flatMap(({ programs }) => programs).filter(({ onlyWithKeys }) =>
    keys === undefined || onlyWithKeys === undefined || onlyWithKeys.some((key) => keys.has(key))
  );
  for (const { name, version, install, onlyFor } of mergePrograms(needs)) {
    const path = await findProgram(name, { user, path: user.path ?? env.PATH });
    if (path !== undefined) {
      const said = version === undefined ? undefined : await versionOf(path, version);
      found.push(said === undefined ? name : `${name} (${said})`);
      continue;
    }
    const whom = connectors.filter(({ programs }) => programs.some((need) => need.name === name))
      .map((connector) => connector.name).join(" and ");
    checkResults.push(
      onlyFor === undefined
        ? failed("programs", `there is no ${name}, which ${whom} cannot do without`, install)
        : warning("programs", `there is no ${name}, which ${whom} needs for ${onlyFor}`, install),
    );
  }
  return found.length === 0 ? checkResults : [...checkResults, ok("programs", found.join("; "))];
}

/** The keys of all device configurations together; undefined where one of them is not known. */
async function keysOf(
  calls: ReturnType<typeof connectorCalls>,
): Promise<ReadonlySet<string> | undefined> {
  const keys = new Set<string>();
  for (const { connector, configFile } of calls) {
    if (configFile === undefined) continue;
    if (!isFixed(configFile)) return undefined;
    const result = await readDeviceConfig(configFile, await loadConnector(connector));
    if (!result.ok) return undefined;
    for (const [key, value] of Object.entries(result.value)) if (value !== undefined) keys.add(key);
  }
  return keys;
}

/** First line of what the program says of itself. */
async function versionOf(path: string, args: readonly string[]): Promise<string | undefined> {
  try {
    const { success, stdout, stderr } = await new Deno.Command(path, {
      args: [...args],
      stdin: "null",
      signal: AbortSignal.timeout(VERSION_LIMIT_MS),
    }).output();
    const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    return success
      ? showText(text.trim().split("\n")[0] ?? "").slice(0, MOST_VERSION_CHARS)
      : undefined;
  } catch {
    return undefined;
  }
}

async function keyResult({ env, user }: Examined, { config }: Device): Promise<CheckResult> {
  const own = textOf(config.ssh_public_key);
  const home = user.uid === Deno.uid() ? env.HOME : user.home;
  const folder = join(home ?? "/", ".ssh");
  const candidates = own === undefined ? KEY_NAMES.map((name) => join(folder, name)) : [own];
  for (const file of candidates) {
    const isFile = await Deno.stat(file).then((info) => info.isFile, () => false);
    if (!isFile) continue;
    const secret = file.replace(/\.pub$/, "");
    const mode = await Deno.stat(secret).then((info) => info.mode ?? 0, () => undefined);
    if (mode !== undefined && (mode & 0o077) !== 0) {
      return failed(
        "ssh key",
        `${secret} may be read by others, so ssh does not use it`,
        `chmod 0600 ${secret}`,
      );
    }
    return ok("ssh key", file);
  }
  return failed(
    "ssh key",
    `there is none: looked for ${candidates.join(", ")}`,
    `as ${user.name}: ssh-keygen -t ed25519 -N ''; or set ssh_public_key in the device configuration`,
  );
}

async function deviceResult({ file, config }: Device): Promise<CheckResult> {
  const host = textOf(config.device_ip);
  if (host === undefined) return ok("device", `${file} names no device_ip`);
  const port = numberOf(config.ssh_port, 22);
  const why = await whyNotReached(host, port);
  if (why === undefined) return ok("device", `${host} answers on port ${port}`);
  return failed(
    "device",
    `${host} does not answer on port ${port}: ${why}`,
    "is it switched on and booted, and is device_ip right? A job would reset it by reboot_script",
  );
}

async function whyNotReached(hostname: string, port: number): Promise<string | undefined> {
  const connecting = Deno.connect({ hostname, port });
  try {
    const connection = await within(connecting, { clock: systemClock, ms: CONNECT_LIMIT_MS });
    if (connection !== undefined) {
      connection.close();
      return undefined;
    }
    connecting.then((late) => late.close(), () => {});
    return `nothing within ${CONNECT_LIMIT_MS / 1000} s`;
  } catch (error) {
    return messageOf(error);
  }
}

/** Asks the control host's REST service for its health, in the way that connectors talk to it. */
async function controlHostResult({ clock }: Examined, { config }: Device): Promise<CheckResult[]> {
  const host = textOf(config.control_host);
  if (host === undefined) return [];
  const check = "control host";
  const results: CheckResult[] = [];
  const log = {
    debug() {},
    info() {},
    warning: (message: string) => results.push(warning(check, message, "set control_host_ca")),
    error() {},
  };
  try {
    // The configuration has been read by a shape that has all the common keys.
    const service = await restService({ config: config as CommonConfig, log });
    const advice = `restart its service, or the control host; try: curl -v ${service.url}/health`;
    const ctx = { limits: clock, signal: new AbortController().signal };
    const answer = await service.call(ctx, "/health", { timeoutMs: HEALTH_LIMIT_MS });
    if (answer.ok) return [...results, ok(check, `${host} is healthy`)];
    const trouble = answer.status === undefined
      ? `does not answer: ${answer.why}`
      : `says that it is not healthy: ${answer.status}`;
    return [...results, failed(check, `${host} ${trouble}`, advice)];
  } catch (error) {
    return [failed(check, messageOf(error), "see control_host_ca in the device configuration")];
  }
}

/** Whether the control host has the programs that connectors run there, asked by ssh. */
async function controlHostPrograms(
  { env, user }: Examined,
  { config, connectors }: Device,
): Promise<CheckResult[]> {
  const needs = mergePrograms(connectors.flatMap((one) => one.controlHostPrograms));
  const host = textOf(config.control_host);
  if (host === undefined || needs.length === 0) return [];
  const check = "control host programs";
  if (user.uid !== Deno.uid()) {
    return [skipped(check, `${host} lets in the agent's user only: run doctor as ${user.name}`)];
  }
  // The configuration has been read by a shape that has all the common keys.
  const target = controlHostTarget({ config: config as CommonConfig });
  const names = needs.map(({ name }) => name);
  const command = `PATH="$PATH:/usr/sbin:/sbin"; for p in ${names.join(" ")}; do ` +
    `command -v "$p" >/dev/null 2>&1 || echo "$p"; done; echo ${LOOKED}`;
  const said = await outputOf(sshInvocation(target, command).argv, env);
  const lines = said.stdout.trim().split("\n");
  if (lines.at(-1) !== LOOKED) {
    const why = showText(said.stderr.trim().split("\n").at(-1) ?? "");
    return [
      failed(
        check,
        `${destination(target)} cannot be asked by ssh${why === "" ? "" : `: ${why}`}`,
        `as the agent's user: ssh-copy-id ${destination(target)}`,
      ),
    ];
  }
  const missing = needs.filter(({ name }) => lines.includes(name));
  const found = names.filter((name) => !lines.includes(name));
  const whom = connectors.map(({ name }) => name).join(" and ");
  return [
    ...missing.map(({ name, install, onlyFor }) =>
      onlyFor === undefined
        ? failed(check, `${host} has no ${name}, which ${whom} cannot do without`, install)
        : warning(check, `${host} has no ${name}, which ${whom} needs for ${onlyFor}`, install)
    ),
    ...found.length === 0 ? [] : [ok(check, `${host} has ${found.join(", ")}`)],
  ];
}

/** What a program prints; why it could not be started, in place of its standard error. */
async function outputOf(
  [program = "", ...args]: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<{ stdout: string; stderr: string }> {
  try {
    const { stdout, stderr } = await new Deno.Command(program, {
      args,
      env: { ...env },
      clearEnv: true,
      stdin: "null",
      signal: AbortSignal.timeout(SSH_LIMIT_MS),
    }).output();
    const decoder = new TextDecoder();
    return { stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
  } catch (error) {
    return { stdout: "", stderr: messageOf(error) };
  }
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

function numberOf(value: unknown, otherwise: number): number {
  return typeof value === "number" ? value : otherwise;
}
