/**
 * Whatever hangs, a process that is told to stop ends: the next one takes up from the journals what
 * this one leaves, and nobody has to wait for the SIGKILL of a supervisor.
 */
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { type Sink, sinkOf } from "../observe/events.ts";
import type { SignalListener, Signals } from "./signals.ts";

/** An agent that stops in order takes half of it. */
const LIMIT_MS = 60_000;
/** A job that is being ended takes longer, for its cleanup; systemd kills after 90 s. */
const LIMIT_IN_JOB_MS = 85_000;

/** Handing over takes 2 s at most: nobody polls meanwhile. */
const LEAVE_LIMIT_MS = 1_900;

/** What a last resort needs. */
export interface LastResortOptions {
  signals: Signals;
  clock: Clock;
  log: Log;
  /** Ends the process at once. */
  exit: (status: number) => void;
}

/** The last resort. */
export interface LastResort {
  /** The signals of the process, with an end behind each. */
  signals: Signals;
  /** Has to be told of the jobs. */
  sink: Sink;
  /** Ends the process with this status within 2 s: it hands over. */
  leave(status: number): void;
  /** Nothing is left that could hang. */
  over(): void;
}

/** Ends the process some time after the first signal that stops it, unless it has ended by then. */
export function withLastResort({ signals, clock, log, exit }: LastResortOptions): LastResort {
  const over = new AbortController();
  let isStopping = false;
  /** Agents whose job is not at its end. */
  const inJob = new Set<string>();

  const endWhateverHangs = async () => {
    await clock.sleep(LIMIT_MS, over.signal);
    if (inJob.size > 0) await clock.sleep(LIMIT_IN_JOB_MS - LIMIT_MS, over.signal);
    try {
      log.error(
        "The agent was told to stop and has not ended in time: something hangs, please report this. " +
          "The process ends now; what is not delivered is delivered at the next start",
      );
    } finally {
      exit(1);
    }
  };

  const watched = (listener: SignalListener): SignalListener => ({
    restart: () => listener.restart(),
    stop(signal, again) {
      if (!isStopping) {
        isStopping = true;
        endWhateverHangs().catch(() => {});
      }
      listener.stop(signal, again);
    },
    ...(listener.hangUp !== undefined && { hangUp: () => listener.hangUp?.() }),
  });
  return {
    signals: { listen: (listener) => signals.listen(watched(listener)) },
    sink: sinkOf({
      job_began: ({ agent }) => void inJob.add(agent),
      recovery_began: ({ agent }) => void inJob.add(agent),
      recovery_ended: ({ agent }) => void inJob.delete(agent),
      job_ended: ({ agent }) => void inJob.delete(agent),
    }),
    leave(status) {
      clock.sleep(LEAVE_LIMIT_MS, over.signal).then(() => exit(status), () => {});
    },
    over: () => over.abort(),
  };
}
