/**
 * The signals of the process. Until a handler is registered SIGUSR1 kills, so this file imports next
 * to nothing and is called before anything else is loaded; what arrives before somebody listens is
 * kept.
 */
import { onRestartSignal } from "./debugger_guard.ts";

/** The signals that end the process in order. */
type StopSignal = "SIGTERM" | "SIGINT" | "SIGHUP";

/** What a signal asks for. */
export interface SignalListener {
  /** SIGUSR1: restart when no job runs. */
  restart(): void;
  /** SIGTERM or SIGINT, and SIGHUP without `hangUp`; the second one and those after it with `again`. */
  stop(signal: StopSignal, again: boolean): void;
  /** SIGHUP: the program or its configurations are to be taken up as they are now. */
  hangUp?(): void;
}

/** The signals of this process. */
export interface Signals {
  /** From now on `listener` is told, beginning with what has arrived already. */
  listen(listener: SignalListener): void;
}

/** Registers the handlers. As long as nobody listens, the others do what they do by default. */
export function catchSignals(): Signals {
  let listener: SignalListener | undefined;
  let restartAsked = false;
  let stops = 0;
  onRestartSignal(() => {
    if (listener === undefined) restartAsked = true;
    else listener.restart();
  });
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    const onStop = () => {
      if (signal === "SIGHUP" && listener?.hangUp !== undefined) return listener.hangUp();
      if (listener !== undefined) return listener.stop(signal, ++stops > 1);
      // Nothing has begun that could be handed over: any supervisor should start the agent again.
      if (signal === "SIGHUP") Deno.exit(1);
      // The parent should see that a signal ended the process.
      Deno.removeSignalListener(signal, onStop);
      Deno.kill(Deno.pid, signal);
    };
    Deno.addSignalListener(signal, onStop);
  }
  return {
    listen(next) {
      listener = next;
      if (restartAsked) next.restart();
    },
  };
}
