/** The outcome as a legacy server takes it: flat keys, logs included. */
import { PHASES } from "../phases.ts";
import type { ResultUpdate } from "../server/schema.ts";
import { LOG_NAMES } from "./entries.ts";
import type { Outbox } from "./outbox.ts";
import { statusesOf } from "./job_state.ts";

/**
 * The outcome of the job in `outbox`, with at most the last `outputBytes` bytes of each phase's logs.
 */
export async function legacyOutcome(outbox: Outbox, outputBytes: number): Promise<ResultUpdate> {
  const outcome: ResultUpdate = { job_state: "complete" };
  const statuses = statusesOf(outbox.state);
  for (const phase of PHASES) {
    const status = statuses[phase];
    if (status !== undefined) outcome[`${phase}_status`] = status;
  }
  for (const log of LOG_NAMES) {
    const { regions } = outbox.state.logs[log];
    for (const [index, { phase, from }] of regions.entries()) {
      const end = regions[index + 1]?.from ?? outbox.length(log);
      const start = Math.max(from, end - outputBytes);
      if (start >= end) continue;
      const bytes = await outbox.readLog(log, start, end);
      const text = new TextDecoder().decode(bytes.subarray(firstCharacter(bytes)));
      const key = `${phase}_${log}` as const;
      outcome[key] = `${outcome[key] ?? ""}${text}`;
    }
  }
  return outcome;
}

/** Where the first whole character begins in text that was cut anywhere. */
function firstCharacter(bytes: Uint8Array): number {
  let start = 0;
  while (start < 3 && ((bytes[start] ?? 0) & 0xc0) === 0x80) start++;
  return start;
}
