/** Phases and jobs in words, for people. */
import { showText } from "./output_text.ts";
import type { AgentStatus, PastJob, PhaseStatus } from "./status_schema.ts";
import { duration } from "./words.ts";

/** How a job ended, in a few words. */
export function resultOf(job: PastJob): { kind: "good" | "bad" | "quiet"; words: string } {
  const { reason, phases, recovery_failed: isLost } = job;
  const lost = isLost ? "; the device could not be recovered" : "";
  const failed = phases.find(({ status = 0 }) => status !== 0);
  if (reason === "normal_exit" && failed === undefined) {
    return { kind: isLost ? "bad" : "good", words: `passed${lost}` };
  }
  if (reason === "cancelled") return { kind: "quiet", words: `cancelled${lost}` };
  const isOfPhase = reason === "normal_exit" || reason === `${failed?.phase}_fail`;
  const why = isOfPhase && failed !== undefined
    ? `${failed.phase.replaceAll("_", " ")} ${phaseWords(failed)}`
    : REASONS.get(reason) ?? show(reason).replaceAll("_", " ");
  return { kind: "bad", words: `${why}${lost}` };
}

/** Reasons that say too little as they are. */
const REASONS = new Map([
  ["global_timeout", "took longer than its time limit"],
  ["output_timeout", "was silent for longer than its limit"],
  ["recovery_fail", "the device could not be recovered"],
  ["stopped", "the agent was stopped"],
]);

/** How far a phase is, or how it ended. */
export function phaseWords(entry: PhaseStatus): string {
  if (entry.state === "skipped") return `skipped: ${show(entry.reason ?? "")}`;
  if (entry.state === "running") return `running for ${duration(entry.seconds ?? 0)}`;
  const took = `after ${duration(entry.seconds ?? 0)}`;
  if (entry.status === 0) return `passed ${took}`;
  // A normal exit needs no reason besides its status.
  const { event = "normal_exit" } = entry;
  const isPlain = event === "normal_exit" || event === `${entry.phase}_fail`;
  return `failed ${took} with status ${entry.status}${isPlain ? "" : ` (${show(event)})`}`;
}

/** What has been asked of an agent and waits, each in a line: `goes offline: new card (asked on this host)`. */
export function requestWords(requests: AgentStatus["requests"] = {}): string[] {
  const words = (what: string, { comment, by }: { comment: string; by: string }) =>
    `${what}${comment === "" ? "" : `: ${show(comment)}`} (asked ${by})`;
  const { offline, restart } = requests;
  return [
    ...(offline === undefined ? [] : [words("goes offline", offline)]),
    ...(restart === undefined ? [] : [words("restarts", restart)]),
  ];
}

/** A name from outside, on one line. */
function show(text: string): string {
  return showText(text).replaceAll("\n", " ");
}
