/** Runs the command of one phase, to its exit status. */
import type { Clock } from "../clock.ts";
import type { Outbox } from "../outbox/outbox.ts";
import type { Phase } from "../phases.ts";
import { statusOf } from "../process/exit.ts";
import type { ProcessIdentity } from "../process/identity.ts";
import type { Secrets } from "../process/redactor.ts";
import { run, type RunResult } from "../process/run.ts";
import type { Observer } from "../observe/observer.ts";
import { isEndReason } from "./end_reason.ts";
import { PhaseLog } from "./log.ts";
import type { PhaseLimits } from "./phase_limits.ts";
import { tailSerial } from "./serial_tail.ts";

/** What ran into trouble inside the agent, rather than in the command. */
export const INTERNAL_ERROR_STATUS = 100;

/** Everything a phase needs to run. */
export interface PhaseRunOptions {
  phase: Phase;
  command: string;
  /** The job's folder. */
  folder: string;
  /** The whole environment of the command. */
  env: Record<string, string>;
  /** From `jobMark()`. */
  mark: number;
  secrets: Secrets;
  outbox: Outbox;
  observer: Observer;
  clock: Clock;
  limits: PhaseLimits;
  graceMs: number;
  /** The serial log waits while more than this is on its way to the server, in bytes. */
  mostUndelivered: number;
  /** Ends the phase; its reason is an `EndReason`. */
  signal: AbortSignal;
  /** Ends it without grace. */
  forceStop: AbortSignal;
  /** Said before the command starts, for instance that the phase is run again. */
  note?: string;
}

/** What the log of a phase says that a cancellation has ended, or has kept from beginning. */
export const CANCELLED_LINE = "Job cancellation was requested, exiting.";

/** How a phase ended. */
export interface PhaseEnd {
  status: number;
  /** The event that says why it ended. */
  event: "normal_exit" | "cancelled" | "global_timeout" | "output_timeout" | "stopped" | "error";
  /** One line for the event. */
  detail: string;
}

/** Runs the phase. Whatever happens is in the result. */
export async function runPhase(options: PhaseRunOptions): Promise<PhaseEnd> {
  const { phase, outbox, clock, limits, command } = options;
  await using log = await PhaseLog.open(options);
  if (options.note !== undefined) await log.say(options.note);

  const serialOver = new AbortController();
  const serial = tailSerial(options, serialOver.signal);
  let result: RunResult;
  try {
    result = await run(["/bin/sh", "-c", command], {
      cwd: options.folder,
      env: options.env,
      mark: options.mark,
      limits: {
        ...(limits.global !== undefined && { totalMs: limits.global * 1000 }),
        ...(limits.output !== undefined && { silenceMs: limits.output * 1000 }),
      },
      signal: options.signal,
      forceStop: options.forceStop,
      graceMs: options.graceMs,
      clock,
      onStarted: (identity: ProcessIdentity) => outbox.append({ t: "group", phase, identity }),
      onOutput: (bytes: Uint8Array) => log.write(bytes),
    });
  } finally {
    serialOver.abort();
    await serial;
  }
  const end = phaseEnd(result, options);
  if (end.event !== "normal_exit") await log.say(end.detail);
  return end;
}

function phaseEnd(result: RunResult, options: PhaseRunOptions): PhaseEnd {
  const { limits } = options;
  switch (result.ended) {
    case "exited":
      return { status: statusOf(result.exit), event: "normal_exit", detail: "" };
    case "limit": {
      const status = failing(statusOf(result.exit));
      return result.limit === "total"
        ? {
          status,
          event: "global_timeout",
          detail: `ERROR: Global timeout reached! (${limits.global}s)`,
        }
        : {
          status,
          event: "output_timeout",
          detail: `ERROR: Output timeout reached! (${limits.output}s)`,
        };
    }
    case "aborted": {
      const status = failing(statusOf(result.exit));
      const isStop = isEndReason(result.reason) && result.reason.kind === "stopped";
      return isStop
        ? { status, event: "stopped", detail: "The agent was stopped, ending the phase." }
        : { status, event: "cancelled", detail: CANCELLED_LINE };
    }
    case "not_started":
      return {
        status: INTERNAL_ERROR_STATUS,
        event: "error",
        detail: `ERROR: The agent cannot start the ${options.phase} command: ${result.message}`,
      };
    case "sink_failed":
      return {
        status: INTERNAL_ERROR_STATUS,
        event: "error",
        detail: "ERROR: The agent cannot store the output, so the phase was ended: " +
          (result.error instanceof Error ? result.error.message : String(result.error)),
      };
  }
}

/** A command that handles SIGTERM may end with 0; a phase that was ended has not passed all the same. */
function failing(status: number): number {
  return status === 0 ? INTERNAL_ERROR_STATUS : status;
}
