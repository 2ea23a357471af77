/**
 * The command of one phase: started, or found where an earlier process has left it; attended to until
 * it ends, is ended, or is left to the next process.
 */
import { basename, exists, join } from "../path.ts";
import type { HostClock } from "../clock.ts";
import { messageOf } from "../message.ts";
import type { Emit } from "../observe/events.ts";
import type { Outbox } from "../outbox/outbox.ts";
import type { PhaseState } from "../outbox/job_state.ts";
import type { Phase } from "../phases.ts";
import { type GroupUsage, statusOf } from "../process/exit.ts";
import { attend, findKept, type KeptCommand } from "../process/keeper.ts";
import {
  type KeepOptions,
  makeReady,
  type ReadyCommand,
  startKept,
} from "../process/keeper_start.ts";
import { OUTPUT_START } from "../process/kept_output.ts";
import type { Secrets } from "../process/redactor.ts";
import type { Cause, SuperviseResult } from "../process/run.ts";
import { isEndReason } from "./job_context.ts";
import type { PhaseLimits } from "./phase_limits.ts";
import { PhaseLog } from "./phase_log.ts";
import { tailSerial } from "./serial_tail.ts";

/** What ran into trouble inside the agent, rather than in the command. */
export const INTERNAL_ERROR_STATUS = 100;

/** How the command of a phase is started. */
export interface CommandStart {
  command: string;
  /** The job's folder. */
  folder: string;
  /** The whole environment of the command. */
  env: Record<string, string>;
  /** From `jobMark()`. */
  mark: number;
  /** The folder of its control group. */
  cgroup: string | undefined;
  /** Whose it is, for `ps`. */
  label: string;
}

/** Everything a phase needs to run. */
export interface PhaseCommandOptions extends CommandStart {
  phase: Phase;
  secrets: Secrets;
  outbox: Outbox;
  emit: Emit;
  clock: HostClock;
  /** For a command that is started now. */
  limits: PhaseLimits;
  graceMs: number;
  /** The serial log waits while more than this is on its way to the server, in bytes. */
  mostUndelivered: number;
  /** Ends the phase; its reason is an `EndReason`. */
  signal: AbortSignal;
  /** Ends it without grace. */
  forceStop: AbortSignal;
  /** Leaves the command to the next process. */
  leave: AbortSignal;
  /** Called when it has been left, and has not ended by then. */
  onLeft(): Promise<void>;
  /** Said before the command starts. */
  notes: readonly string[];
  /** The command is started though it was before: a reboot has cut it short. @default false */
  again?: boolean;
  /** The command, made ready for this phase. */
  ready?: ReadyCommand | undefined;
  /** Called when the command has begun, unless it was found. */
  onBegun?: () => void;
}

/**
 * How far a command's output has been read is written down at least as often, also when the server takes
 * none of it: a process that is killed has got on with the job, and the next one need not begin with hours
 * of output.
 */
const NOTE_EVERY_MS = 1_000;

/** What the log of a phase says that a cancellation has ended, or has kept from beginning. */
export const CANCELLED_LINE = "Job cancellation was requested, exiting.";

/** The same of a stop of the agent. */
export const STOPPED_LINE = "The agent was stopped, ending the phase.";

/** How a phase ended. */
export interface PhaseEnd {
  status: number;
  /** The event that says why it ended. */
  event: "normal_exit" | "cancelled" | "global_timeout" | "output_timeout" | "stopped" | "error";
  /** One line, for the log and the event; empty when it ended by itself. */
  detail: string;
  /** What its command has used, where that is known. */
  usage?: GroupUsage;
}

/** How running the command of a phase ended. */
export type PhaseCommandResult =
  | PhaseEnd
  /** It goes on, and is the next process's. */
  | "left running"
  /** It is gone, and nobody knows how it ended: a reboot, or all of it was killed. */
  | "lost";

/** Runs the command of a phase, from where it is. Whatever happens is in the result. */
export async function runCommand(options: PhaseCommandOptions): Promise<PhaseCommandResult> {
  const { outbox, phase } = options;
  const found = options.again ? undefined : findCommand(options);
  const log = await PhaseLog.open({ ...options, isTakenUp: found !== undefined });
  try {
    const started = found ?? await startCommand(options, log);
    if (!(isKept(started))) return started;
    const { identity } = started;
    const { pid, startTime } = identity;
    const isKnown = outbox.state.groups.some((group) =>
      group.identity.pid === pid && group.identity.startTime === startTime
    );
    if (!isKnown) outbox.append({ t: "group", phase, identity });
    if (found === undefined) options.onBegun?.();
    const result = await attendTo(started, log, { ...options, isFound: found !== undefined });
    // What is held back now, the next process reads again.
    if (result === "left running") {
      await log.leave();
      if (!started.hasEnded) await options.onLeft();
    }
    return result;
  } finally {
    await log[Symbol.asyncDispose]();
  }
}

function isKept(started: KeptCommand | PhaseEnd): started is KeptCommand {
  return "identity" in started;
}

/** The command that an earlier process has started. */
function findCommand({ outbox, phase }: PhaseCommandOptions): KeptCommand | undefined {
  const command = outbox.state.phases.get(phase)?.command;
  if (command === undefined) return undefined;
  const { source } = outbox.state.logs.output;
  return findKept(join(outbox.folder, command.name), source ?? OUTPUT_START);
}

/** A folder for the next command of a job. */
function newCommandFolder({ folder, state }: Outbox): string {
  let number = 1 + [...state.phases.values()].reduce((sum, { commands }) => sum + commands, 0);
  // One that was made ready and never began; and a damaged journal may have lost a command, but not its folder.
  while (exists(join(folder, `command-${number}`))) number++;
  return join(folder, `command-${number}`);
}

async function startCommand(
  options: PhaseCommandOptions,
  log: PhaseLog,
): Promise<KeptCommand | PhaseEnd> {
  const { outbox, phase, clock, limits, notes, ready } = options;
  /** The next process is to know of it, whenever this one ends. */
  const noteCommand = async (folder: string) => {
    const entry = {
      t: "command" as const,
      phase,
      name: basename(folder),
      at: await clock.sinceBoot(),
      ...(limits.global !== undefined && { totalMs: limits.global * 1000 }),
      ...(limits.output !== undefined && { silenceMs: limits.output * 1000 }),
    };
    // An earlier process may have said them, and died before it came to starting the command.
    const isFirst = (outbox.state.phases.get(phase)?.commands ?? 0) === 0 || options.again;
    if (isFirst && notes.length > 0) await log.say(notes.join("\n"), [entry]);
    else outbox.append(entry);
  };
  if (ready !== undefined) {
    await noteCommand(ready.options.folder);
    const begun = await ready.begin();
    // Whatever has kept it from beginning, one that is started now may do.
    const command = begun.started ? begun.command : findKept(ready.options.folder, OUTPUT_START);
    if (command !== undefined) return command;
  }
  const place = newCommandFolder(outbox);
  await noteCommand(place);
  const started = await startKept(...keptStart(options, place));
  if (started.started) return started.command;
  return {
    status: INTERNAL_ERROR_STATUS,
    event: "error",
    detail: `ERROR: The agent cannot start the ${phase} command: ${started.message}`,
  };
}

/** Makes the command of a phase ready to begin, in a folder for its keeper; undefined when it cannot be. */
export async function makeCommandReady(
  start: CommandStart,
  outbox: Outbox,
): Promise<ReadyCommand | undefined> {
  const made = await makeReady(...keptStart(start, newCommandFolder(outbox)));
  return made.ready ? made.command : undefined;
}

function keptStart(
  { command, folder: cwd, env, mark, cgroup, label }: CommandStart,
  folder: string,
): [string[], KeepOptions] {
  return [["/bin/sh", "-c", command], { folder, cwd, env, mark, cgroup, label }];
}

async function attendTo(
  command: KeptCommand,
  log: PhaseLog,
  options: PhaseCommandOptions & { isFound: boolean },
): Promise<PhaseCommandResult> {
  const { outbox, phase, clock, leave } = options;
  const state = outbox.state.phases.get(phase)!;
  const { at = 0, totalMs, silenceMs } = state.command ?? {};
  const now = await clock.sinceBoot();
  const printedAt = command.printedAt;
  const serialOver = new AbortController();
  const serial = tailSerial(options, serialOver.signal);
  let piece = command.place().piece;
  let notedAt = -Infinity;
  try {
    const result = await attend(command, {
      ...options,
      limits: { silenceMs, ...(totalMs !== undefined && { totalMs: at + totalMs - now }) },
      silentForMs: options.isFound && printedAt !== undefined ? clock.since(printedAt) : 0,
      // An earlier process was about to end it.
      signal: state.ending === undefined ? options.signal : AbortSignal.abort(),
      leave,
      onEnding: (cause) => {
        if (state.ending === undefined) {
          outbox.append({ t: "ending", ...endingOf(cause, state) });
        }
      },
      onOutput: async (bytes) => {
        await log.write(bytes, (back) => command.place(back));
        const isNewPiece = command.place().piece !== piece;
        if (!isNewPiece && clock.monotonic() < notedAt + NOTE_EVERY_MS) return;
        // The journal knows then that what is before is in the log.
        outbox.append();
        notedAt = clock.monotonic();
        const { source } = outbox.state.logs.output;
        if (!isNewPiece || source === undefined) return;
        piece = command.place().piece;
        command.release(source);
      },
      onLoss: () => {
        log.say("WARNING: Some of the output is lost here: what writes it to the disk was killed.");
      },
    });
    const end = phaseEnd(result, state);
    return typeof end === "string" ? end : { ...end, usage: command.usage };
  } finally {
    serialOver.abort();
    await serial;
  }
}

function phaseEnd(result: SuperviseResult, { ending, command }: PhaseState): PhaseCommandResult {
  switch (result.ended) {
    case "left running":
      return "left running";
    case "exited":
      if (result.exit.kind === "lost") return "lost";
      return { status: statusOf(result.exit), event: "normal_exit", detail: "" };
    default: {
      const { event, detail } = ending ?? endingOf(result, { command });
      // What is wrong with the agent is not told as the signal that ended the command.
      const isInternal = event === "error";
      const status = isInternal ? INTERNAL_ERROR_STATUS : failing(statusOf(result.exit));
      return { status, event, detail };
    }
  }
}

/** What ends a command that would go on, and what its log says of it. */
function endingOf(
  cause: Cause,
  { command }: Pick<PhaseState, "command"> | { command: undefined },
): { event: Exclude<PhaseEnd["event"], "normal_exit">; detail: string } {
  const seconds = (ms = 0) => ms / 1000;
  switch (cause.ended) {
    case "limit":
      return cause.limit === "total"
        ? {
          event: "global_timeout",
          detail: `ERROR: Global timeout reached! (${seconds(command?.totalMs)}s)`,
        }
        : {
          event: "output_timeout",
          detail: `ERROR: Output timeout reached! (${seconds(command?.silenceMs)}s)`,
        };
    case "aborted":
      return isEndReason(cause.reason) && cause.reason.kind === "stopped"
        ? { event: "stopped", detail: STOPPED_LINE }
        : { event: "cancelled", detail: CANCELLED_LINE };
    case "sink_failed":
      return {
        event: "error",
        detail: "ERROR: The agent cannot store the output, so the phase was ended: " +
          messageOf(cause.error),
      };
  }
}

/** A command that handles SIGTERM may end with 0; a phase that was ended has not passed anyway. */
function failing(status: number): number {
  return status === 0 ? INTERNAL_ERROR_STATUS : status;
}
