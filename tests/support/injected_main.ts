/**
 * The program, with a host whose clock, boot and fate a test decides: `injected_main.ts HOST ARG...`,
 * where HOST is a `TestHost` as JSON.
 */
import { catchSignals } from "../../lib/host/signals.ts";
import { scaledClock } from "../../lib/clock.ts";
import { ControlGroups } from "../../lib/process/cgroup.ts";
import type { JournalHook } from "../../lib/outbox/journal.ts";

/** What a test can decide of the host of an agent that is a process of its own. */
export interface TestHost {
  /** How many times faster than the wall's its clock runs. @default {1} */
  clockFactor?: number;
  /** Another one than the kernel's: the host was started anew since. */
  bootId?: string;
  /** It has no control groups, or others of their controllers are wanted than those of use. */
  controlGroups?: "none" | string[];
  /** The process kills itself right before or after it writes into a journal for this time. */
  crashAt?: { moment: "before" | "after"; append: number };
}

const signals = catchSignals();

function crash({ moment: wanted, append }: NonNullable<TestHost["crashAt"]>): JournalHook {
  let count = 0;
  return (moment) => {
    if (moment === "before") count++;
    if (moment === wanted && count === append) Deno.kill(Deno.pid, "SIGKILL");
  };
}

if (import.meta.main) {
  const [host = "{}", ...args] = Deno.args;
  const { clockFactor = 1, bootId, controlGroups, crashAt }: TestHost = JSON.parse(host);
  const { endOnError, ownOutput } = await import("../../lib/cli/process_io.ts");
  const output = ownOutput();
  const uncaught = endOnError(output);
  const io = {
    ...output,
    signals,
    onUncaught: uncaught.handOver,
    host: {
      clock: scaledClock(clockFactor),
      bootId,
      onJournal: crashAt && crash(crashAt),
      ...(controlGroups !== undefined && {
        openControlGroups: () =>
          controlGroups === "none"
            ? Promise.resolve({ ok: false as const, reason: "a test wants none" })
            : ControlGroups.open(controlGroups),
      }),
    },
  };
  try {
    const { main } = await import("../../lib/cli/main.ts");
    Deno.exit(await main(args, io));
  } catch (error) {
    uncaught.end(error);
  }
}
