/** How processes are ended: signals, the time between TERM and KILL, and looking until they are gone. */
import { type Clock, systemClock } from "../clock.ts";

/** What sending a signal came to. */
type Signalled = "sent" | "gone" | "refused";

/**
 * Sends a signal to every process of a group; 0 only asks whether it has any, ended ones that
 * nobody has waited for included.
 */
export function signalGroup(
  group: number,
  signal: Deno.Signal | 0,
): Signalled {
  // kill(2) takes -1 for every process there is, and 0 for the agent's own group.
  if (group <= 1) throw new RangeError(`Cannot signal process group ${group}`);
  return signalProcess(-group, signal);
}

/** Sends a signal to a process. */
export function signalProcess(
  pid: number,
  signal: Deno.Signal | 0,
): Signalled {
  try {
    // Deno takes 0, as kill(2) does; its type does not say so.
    Deno.kill(pid, signal as Deno.Signal);
    return "sent";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "gone";
    if (error instanceof Deno.errors.PermissionDenied) return "refused";
    throw error;
  }
}

/** How processes are ended. */
export interface EndOptions {
  /** Time in milliseconds that they get between TERM and KILL. */
  graceMs: number;
  clock: Clock;
  /** Ends the grace early. */
  forceStop?: AbortSignal | undefined;
}

/** The time between TERM and KILL. Dispose of it when it is no longer waited for. */
export class Grace implements Disposable {
  #over = new AbortController();
  #forceStop: AbortSignal | undefined;
  #stop = () => this.#over.abort();

  constructor({ graceMs, clock, forceStop }: EndOptions) {
    this.#forceStop = forceStop;
    forceStop?.addEventListener("abort", this.#stop, { once: true });
    if (forceStop?.aborted || graceMs <= 0) this.#stop();
    else clock.sleep(graceMs, this.#over.signal).then(this.#stop, this.#stop);
  }

  /** Aborts when the grace is over. */
  get over(): AbortSignal {
    return this.#over.signal;
  }

  [Symbol.dispose](): void {
    this.#forceStop?.removeEventListener("abort", this.#stop);
    this.#stop();
  }
}

/** Most processes are dead within milliseconds of a signal: look often at first. */
const FIRST_PAUSE_MS = 5;
const LAST_PAUSE_MS = 200;
/** Looks that a killed process gets to disappear: 5 s. Longer takes only one that hangs in the kernel. */
export const KILL_LOOKS = 30;

/**
 * Looks again and again until `look` says "done". The kernel tells nobody when processes that are
 * not one's own children have ended, so somebody must look; this is in the host's own time,
 * whatever clock the grace is measured with.
 *
 * @returns false when the time is over, there were `looks` of them, or `look` says "give up".
 */
export async function lookUntil(
  look: () => Promise<"done" | "again" | "give up">,
  { over, looks = Infinity, wake }: {
    over?: AbortSignal;
    looks?: number;
    /** Something that may happen, and makes it worth while to look at once. */
    wake?: () => Promise<unknown> | undefined;
  },
): Promise<boolean> {
  let pause = FIRST_PAUSE_MS;
  for (let looked = 1;; looked++) {
    const found = await look();
    if (found !== "again") return found === "done";
    if (over?.aborted || looked >= looks) return false;
    const next = systemClock.sleep(pause, over).catch(() => {});
    await Promise.race([next, wake?.() ?? next]);
    pause = Math.min(2 * pause, LAST_PAUSE_MS);
  }
}
