/** What sending a signal came to. */
export type Signalled = "sent" | "gone" | "refused";

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
