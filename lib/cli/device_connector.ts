/**
 * `testflinger-agent device-connector`, also known as `testflinger-device-connector` and
 * `snappy-device-agent`: runs one stage of a device connector, as the phase commands of agents do.
 */
import { writeAll, writeAllSync } from "../bytes.ts";
import { type Clock, systemClock } from "../clock.ts";
import { type Connector, type Stage, STAGES } from "../../connectors/context.ts";
import { didYouMean } from "../config/mistake.ts";
import { CONNECTOR_NAMES, loadConnector, loadConnectors } from "../../connectors/registry.ts";
import { honourNoProxy } from "../../connectors/support/http/http.ts";
import { runStage } from "../../connectors/run_stage.ts";
import { Stopped } from "../../connectors/support/errors.ts";
import {
  connectorsDocument,
  describeConnector,
  listConnectors,
} from "../../connectors/support/reference.ts";
import { clockFor } from "../../connectors/support/wait/time_scale.ts";
import { ownOutput } from "./process_io.ts";
import { ownScreen, screenProgress } from "./terminal.ts";

/** What the command has of the world. Whatever is left out is the process's own. */
export interface DeviceConnectorIo {
  readonly stdout?: (bytes: Uint8Array) => Promise<void>;
  readonly stderr?: (text: string) => void;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** For pauses and deadlines. @default the clock on the wall */
  readonly clock?: Clock;
  /** For the time limits of programs and requests. @default the clock on the wall */
  readonly limits?: Clock;
  /** Stops the stage; without it the command listens to SIGTERM, SIGINT and SIGHUP. */
  readonly signal?: AbortSignal;
}

const PROGRAM = "testflinger-device-connector";
const USAGE_STATUS = 2;
const NEW_LINE = 0x0a;
const STOP_SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP"] as const;

/** What people in the field call the stage of the phase `test`. */
const STAGE_ALIASES: Readonly<Record<string, Stage>> = { test: "runtest" };

type Command =
  | { readonly kind: "help"; readonly text: string }
  | { readonly kind: "wrong"; readonly message: string; readonly usage: string }
  | {
    readonly kind: "run";
    readonly connector: Connector;
    readonly stage: Stage;
    readonly configFile: string | undefined;
    readonly jobFile: string;
  };

/**
 * Runs the command.
 *
 * @param args what follows the command's name: `<device> <stage> -c FILE JOB`, `list`, or
 *   `describe <type>`.
 * @returns the exit status: the stage's, 1 for a failure, 46 for a device that needs a person, 2
 *   for a wrong command line.
 */
export async function runDeviceConnector(
  args: readonly string[],
  io: DeviceConnectorIo = {},
): Promise<number> {
  const stdout = io.stdout ?? ((bytes: Uint8Array) => writeAll(Deno.stdout, bytes));
  const stderr = io.stderr ?? writeError;
  const command = await parse(args);
  if (command.kind === "help") {
    if (io.stdout === undefined) ownOutput().stdout(command.text);
    else await stdout(new TextEncoder().encode(command.text));
    return 0;
  }
  if (command.kind === "wrong") {
    stderr(`${command.usage}${PROGRAM}: error: ${command.message}\n`);
    return USAGE_STATUS;
  }
  const env = io.env ?? Deno.env.toObject();
  if (io.env === undefined) honourNoProxy();
  const limits = io.limits ?? systemClock;
  using stop = io.signal === undefined ? stopSignals() : given(io.signal);
  const world = {
    cwd: io.cwd ?? Deno.cwd(),
    env,
    clock: io.clock ?? clockFor(env),
    limits,
    signal: stop.signal,
    forceStop: stop.forceStop,
    stdout,
    stderr,
  };
  const screen = ownScreen({ stdout() {}, stderr, clock: limits });
  // In a job nobody watches: then progress goes to the log with everything else.
  if (io.stderr !== undefined || !screen.isLive) return await runStage(command, world);
  try {
    return await runStage(command, {
      ...world,
      stderr: (text) => screen.err(text),
      stdout: (bytes) => {
        screen.makeRoom(bytes.at(-1) === NEW_LINE);
        return stdout(bytes);
      },
      progress: screenProgress(screen, limits),
    });
  } finally {
    screen.clear();
  }
}

async function parse(args: readonly string[]): Promise<Command> {
  const [first, ...rest] = args;
  const usage = programUsage();
  if (first === undefined) {
    return { kind: "wrong", message: `a device type is needed; ${thereAre()}`, usage };
  }
  if (isHelp(first)) return { kind: "help", text: await programHelp() };
  if (first.startsWith("-")) {
    return { kind: "wrong", message: `there is no option '${first}' here`, usage };
  }
  if (first === "list") return await parseList(rest);
  if (first === "describe") return await parseDescribe(rest);
  const found = await findConnector(first);
  if (typeof found === "string") return { kind: "wrong", message: found, usage };
  return parseStage(found, rest);
}

async function parseList(rest: readonly string[]): Promise<Command> {
  const usage = `usage: ${PROGRAM} list [-h]\n`;
  if (rest.some(isHelp)) return { kind: "help", text: `${usage}\nLists the device types.\n` };
  if (rest.length > 0) return { kind: "wrong", message: `unexpected '${rest[0]}'`, usage };
  return { kind: "help", text: listConnectors(await loadConnectors()) };
}

async function parseDescribe(rest: readonly string[]): Promise<Command> {
  const usage = `usage: ${PROGRAM} describe [-h] <device>\n` +
    `       ${PROGRAM} describe --markdown\n`;
  if (rest.some(isHelp)) {
    return {
      kind: "help",
      text:
        `${usage}\nSays what a device type does, and which keys its configuration and its jobs ` +
        `have;\nwith --markdown all of them, as one document.\n`,
    };
  }
  const [name, more] = rest;
  if (name === undefined) {
    return { kind: "wrong", message: `a device type is needed; ${thereAre()}`, usage };
  }
  if (more !== undefined) return { kind: "wrong", message: `unexpected '${more}'`, usage };
  if (name === "--markdown") {
    return { kind: "help", text: connectorsDocument(await loadConnectors()) };
  }
  const found = await findConnector(name);
  if (typeof found === "string") return { kind: "wrong", message: found, usage };
  return { kind: "help", text: describeConnector(found) };
}

/** The connector of that name, or why there is none. */
async function findConnector(name: string): Promise<Connector | string> {
  const connector = await loadConnector(name);
  if (connector !== undefined) return connector;
  return unknown("device type", name, { names: CONNECTOR_NAMES, all: thereAre() });
}

function thereAre(): string {
  return `there are: ${CONNECTOR_NAMES.join(", ")}`;
}

/** That there is nothing of that name, what may have been meant, and (`all`) what there is. */
function unknown(
  what: string,
  name: string,
  { names, all }: { readonly names: readonly string[]; readonly all: string },
): string {
  const meant = didYouMean(name, names);
  return meant === undefined
    ? `there is no ${what} '${name}'; ${all}`
    : `there is no ${what} '${name}', did you mean '${meant}'? ` +
      `${all.charAt(0).toUpperCase()}${all.slice(1)}`;
}

function parseStage(connector: Connector, args: readonly string[]): Command {
  const [name, ...rest] = args;
  const usage = deviceUsage(connector);
  const stages = `the stages are: ${STAGES.join(", ")}`;
  if (name === undefined) return { kind: "wrong", message: `a stage is needed; ${stages}`, usage };
  if (isHelp(name)) return { kind: "help", text: deviceHelp(connector) };
  const stage = STAGE_ALIASES[name] ?? STAGES.find((stage) => stage === name);
  if (stage === undefined) {
    const message = name.startsWith("-")
      ? `a stage must come before '${name}'; ${stages}`
      : unknown("stage", name, { names: STAGES, all: stages });
    return { kind: "wrong", message, usage };
  }
  return parseFiles(connector, stage, rest);
}

function parseFiles(connector: Connector, stage: Stage, args: readonly string[]): Command {
  const option = connector.configOptional ? "[-c CONFIG]" : "-c CONFIG";
  const usage = `usage: ${PROGRAM} ${connector.name} ${stage} [-h] ${option} JOB\n`;
  const wrong = (message: string): Command => ({ kind: "wrong", message, usage });
  let configFile: string | undefined;
  const positional: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? "";
    if (isHelp(arg)) {
      return {
        kind: "help",
        text: `${usage}\n  -c, --config CONFIG  the device configuration (YAML)\n` +
          `  JOB                  the job (JSON), normally testflinger.json\n`,
      };
    } else if (arg === "-c" || arg === "--config") {
      configFile = args[++i];
      if (configFile === undefined) return wrong(`${arg} needs a file`);
    } else if (arg.startsWith("--config=")) {
      configFile = arg.slice("--config=".length);
    } else if (arg === "--") {
      positional.push(...args.slice(i + 1));
      break;
    } else if (arg.startsWith("-c")) {
      configFile = arg.slice("-c".length);
    } else if (arg.startsWith("-") && arg !== "-") {
      return wrong(`there is no option '${arg}'`);
    } else {
      positional.push(arg);
    }
  }
  const [jobFile, more] = positional;
  if (!configFile && !connector.configOptional) {
    return wrong("the device configuration is needed: -c CONFIG");
  }
  if (!jobFile) return wrong("the job file is needed, normally testflinger.json");
  if (more !== undefined) return wrong(`unexpected '${more}'`);
  return { kind: "run", connector, stage, configFile, jobFile };
}

function isHelp(arg: string): boolean {
  return arg === "-h" || arg === "--help";
}

function programUsage(): string {
  return `usage: ${PROGRAM} [-h] <device> <stage> -c CONFIG JOB\n` +
    `       ${PROGRAM} list\n` +
    `       ${PROGRAM} describe <device>\n`;
}

async function programHelp(): Promise<string> {
  return `${programUsage()}\nRuns one stage of a device connector in the current folder.\n\n` +
    `Devices:\n${listConnectors(await loadConnectors())}\nStages: ${STAGES.join(", ")}\n`;
}

function deviceUsage(connector: Connector): string {
  return `usage: ${PROGRAM} ${connector.name} [-h] <stage> -c CONFIG JOB\n`;
}

function deviceHelp(connector: Connector): string {
  return `${deviceUsage(connector)}\n${connector.summary}\n\nStages: ${STAGES.join(", ")}\n`;
}

interface Stop extends Disposable {
  readonly signal: AbortSignal;
  readonly forceStop: AbortSignal;
}

/** The first signal stops the stage, the second makes short work of what is still running. */
function stopSignals(): Stop {
  const stop = new AbortController();
  const forceStop = new AbortController();
  const handlers = STOP_SIGNALS.map((name) => {
    const handler = () => {
      if (stop.signal.aborted) forceStop.abort();
      else stop.abort(new Stopped(name));
    };
    Deno.addSignalListener(name, handler);
    return { name, handler };
  });
  return {
    signal: stop.signal,
    forceStop: forceStop.signal,
    [Symbol.dispose]() {
      for (const { name, handler } of handlers) Deno.removeSignalListener(name, handler);
    },
  };
}

function given(signal: AbortSignal): Stop {
  return { signal, forceStop: new AbortController().signal, [Symbol.dispose]() {} };
}

function writeError(text: string): void {
  try {
    writeAllSync(Deno.stderr, new TextEncoder().encode(text));
  } catch {
    // Nobody reads the log any more; the stage still has to come to its end.
  }
}
