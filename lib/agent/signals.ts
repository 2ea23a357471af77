/**
 * The signals of the process. Until a handler is registered SIGUSR1 kills, so this file imports
 * nothing and is called before anything else is loaded; what arrives before somebody listens is kept.
 */

/** What a signal asks for. */
export interface SignalListener {
  /** SIGUSR1: restart when no job runs. */
  restart(): void;
  /** SIGTERM or SIGINT; the second one and those after it with `again`. */
  stop(signal: "SIGTERM" | "SIGINT", again: boolean): void;
}

/** The signals of this process. */
export interface Signals {
  /** From now on `listener` is told, beginning with what has arrived already. */
  listen(listener: SignalListener): void;
}

const EXIT_STATUS = { SIGTERM: 143, SIGINT: 130 };

/** Registers the handlers. As long as nobody listens, SIGTERM and SIGINT end the process. */
export function catchSignals(): Signals {
  let listener: SignalListener | undefined;
  let restartAsked = false;
  let stops = 0;
  Deno.addSignalListener("SIGUSR1", () => {
    if (listener === undefined) restartAsked = true;
    else listener.restart();
  });
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    Deno.addSignalListener(signal, () => {
      if (listener === undefined) Deno.exit(EXIT_STATUS[signal]);
      stops++;
      listener.stop(signal, stops > 1);
    });
  }
  return {
    listen(next) {
      listener = next;
      if (restartAsked) next.restart();
    },
  };
}
