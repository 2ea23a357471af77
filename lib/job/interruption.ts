/** The line in a job's log that says where the agent was interrupted. */
import type { Outbox } from "../outbox/outbox.ts";
import type { Phase } from "../phases.ts";

/** What a log ends with when an earlier process has said already that it was interrupted. */
const INTERRUPTED = /(^|\n)The agent was interrupted (during \w+|between phases)\n$/;
/** More than such a line has. */
const REMARK_BYTES = 100;

/** What is said of it. */
export function interruption(phase: Phase | undefined): string {
  return phase === undefined
    ? "The agent was interrupted between phases"
    : `The agent was interrupted during ${phase}`;
}

/** Says it unless the log ends like that: the process before this one may have died right after. */
export async function sayOnce(outbox: Outbox, phase: Phase, line: string): Promise<void> {
  const length = outbox.length("output");
  const end = await outbox.readLog("output", Math.max(0, length - REMARK_BYTES), length);
  const text = new TextDecoder().decode(end);
  if (INTERRUPTED.test(text)) return;
  const isMidLine = text !== "" && !text.endsWith("\n");
  const bytes = new TextEncoder().encode(`${isMidLine ? "\n" : ""}${line}\n`);
  await outbox.appendLog("output", phase, bytes).catch(() => {});
}
