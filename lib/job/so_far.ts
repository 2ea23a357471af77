/** What earlier processes of the agent have done of a job, for those who look on: its phases, and what it printed. */
import { cutAtStart } from "../bytes.ts";
import type { HostClock } from "../clock.ts";
import type { JobSoFar } from "../observe/events.ts";
import type { LogName } from "../outbox/entries.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { type Phase, PHASES } from "../phases.ts";

/** As much of a log as is shown of it. */
const SHOWN_BYTES = 256 * 1024;

/** What the outbox does not know. */
interface SoFarOptions {
  clock: HostClock;
  reasonToSkip(phase: Phase): string | undefined;
}

/** From the journal and the logs of a job; what cannot be read of the logs is left out. */
export async function jobSoFar(
  outbox: Outbox,
  { clock, reasonToSkip }: SoFarOptions,
): Promise<JobSoFar> {
  const { accepted, phases, skipped, isRebooted, release = "unknown" } = outbox.state;
  const now = clock.now();
  /** Milliseconds since 1970 at the start of the host. */
  const boot = now - await clock.sinceBoot();
  const output = await endOf(outbox, "output");
  return {
    // A journal that was damaged does not know.
    startedAt: accepted?.at || now,
    phases: [
      ...[...skipped].map((phase) => ({ phase, reason: reasonToSkip(phase) ?? "" })),
      ...[...phases].flatMap(([phase, { status, seconds, command, ending }]) =>
        status === undefined ? [] : {
          phase,
          status,
          event: ending?.event ?? "normal_exit",
          release,
          ...(seconds !== undefined && { seconds }),
          // The clock of another start of the host says nothing.
          ...(command !== undefined && !isRebooted && { startedAt: boot + command.at }),
        }
      ),
    ].sort((a, b) => PHASES.indexOf(a.phase) - PHASES.indexOf(b.phase)),
    output: output.bytes,
    begins: outbox.state.logs.output.regions.map(({ phase, from }) => ({
      phase,
      at: Math.max(0, from - output.from),
    })),
    serial: (await endOf(outbox, "serial")).bytes,
  };
}

async function endOf(outbox: Outbox, log: LogName): Promise<{ from: number; bytes: Uint8Array }> {
  const length = outbox.length(log);
  const from = Math.max(0, length - SHOWN_BYTES);
  try {
    const bytes = await outbox.readLog(log, from, length);
    const cut = from === 0 ? 0 : cutAtStart(bytes);
    return { from: from + cut, bytes: bytes.subarray(cut) };
  } catch {
    return { from: length, bytes: new Uint8Array() };
  }
}
