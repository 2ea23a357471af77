/**
 * The signals of the process. Until a handler is registered SIGUSR1 kills, so this file imports next
 * to nothing and is called before anything else is loaded; what arrives before there is a listener is
 * kept.
 */

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

// SIGUSR1 asks the agent for a restart. To the runtime's command-line tool (`deno run`, from 2.9.2
// on) it means something else as well: open a debugger on 127.0.0.1:9229, where every local account
// could run code as the agent. No flag, variable or permission switches that off; a signal ignored
// from the start does not stay ignored, because the runtime installs a handler of its own half a
// second later; and a blocked one would be blocked in the phases' commands, too.
//
// So the program's handler takes the port, the debugger fails to open, and the port is given back
// some turns of the event loop later. In a few cases of a hundred the runtime is first: then the
// handler closes the debugger at once (a client that hammered the port during 450 signals never got in).
//
// Programs made by `deno compile` have no such debugger; there the guard does no harm.

/** Where the runtime opens its debugger: fixed in the runtime, not configurable. */
const DEBUGGER_ADDRESS = { hostname: "127.0.0.1", port: 9229 } as const;

/** After so long a start has asked for a job; loading what closes a debugger takes 8 ms. */
const LOAD_AFTER_MS = 1_000;

/** How often the guard looks again after a signal, and how often in all: 50 ms on an idle loop. */
const LOOK_INTERVAL_MS = 5;

/**
 * Counted in turns, not in time: a loop that was blocked runs late timers before the runtime has
 * come to its own handler, and must not give back the port so early.
 */
const LOOKS = 10;

/** The part of `node:inspector` that is used here. */
interface Inspector {
  url(): string | undefined;
  close(): void;
}

/**
 * Calls `onRequest` at each SIGUSR1, and keeps the runtime from opening a debugger at that signal.
 *
 * Call it before anything else is done in the program: until then the signal kills the process.
 *
 * @param onRequest told of each signal, at once; must not block
 * @returns the way to stop listening (then SIGUSR1 opens the debugger again)
 */
export function onRestartSignal(onRequest: () => void): Disposable {
  let inspector: Inspector | undefined;
  let port: Deno.Listener | undefined;
  let timer: ReturnType<typeof setInterval> | undefined;
  let looksLeft = 0;

  const load = async () => {
    inspector = (await import("node:inspector")).default;
  };
  // A start does not wait for it. A signal that comes earlier does not either.
  const loading = setTimeout(load, LOAD_AFTER_MS);
  Deno.unrefTimer(loading);

  const look = () => {
    port ??= takePort();
    // The runtime was first, or another process gave the port back at the wrong moment.
    if (inspector?.url() !== undefined) inspector.close();
  };

  const release = () => {
    clearInterval(timer);
    timer = undefined;
    port?.close();
    port = undefined;
  };

  const handler = () => {
    if (inspector === undefined) void load();
    look();
    looksLeft = LOOKS;
    timer ??= setInterval(() => {
      look();
      if (--looksLeft <= 0) release();
    }, LOOK_INTERVAL_MS);
    onRequest();
  };

  Deno.addSignalListener("SIGUSR1", handler);
  return {
    [Symbol.dispose]() {
      Deno.removeSignalListener("SIGUSR1", handler);
      clearTimeout(loading);
      release();
    },
  };
}

/** The port, or nothing when another process has it: then the debugger cannot have it either. */
function takePort(): Deno.Listener | undefined {
  try {
    return Deno.listen(DEBUGGER_ADDRESS);
  } catch {
    return undefined;
  }
}
