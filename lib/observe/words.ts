/** Amounts, phases and jobs in words, for people. */
import { showText } from "./output_text.ts";
import type { AgentStatus, PastJob, PhaseStatus } from "./status_schema.ts";

/** `2 h 5 min`, `5 min 3 s`, `3 s`. */
export function duration(seconds: number): string {
  const whole = Math.floor(Math.max(0, seconds));
  const [h, min, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (h > 0) return `${h} h ${min} min`;
  return min > 0 ? `${min} min ${s} s` : `${s} s`;
}

/** `512 bytes`, `1.5 MiB`. */
export function size(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  const power = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  const amount = bytes / 1024 ** power;
  return `${power === 0 ? amount : amount.toFixed(1)} ${units[power]}`;
}

/** `1 job`, `2 jobs`. */
export function count(amount: number, noun: string): string {
  return `${amount} ${noun}${amount === 1 ? "" : "s"}`;
}

/** `1.5 MiB of 2 jobs`: what the server does not have yet. A job that runs is not counted. */
export function backlog({ bytes, jobs }: { bytes: number; jobs: number }): string {
  return `${size(bytes)} of ${jobs === 0 ? "the running job" : count(jobs, "job")}`;
}

const MINUTE_S = 60;
const HOUR_S = 3600;
const DAY_S = 86_400;

/** The same in at most two units, for a table: `45 s`, `12 min`, `3 h 12 min`, `5 d 3 h`. */
export function briefly(seconds: number): string {
  const whole = Math.floor(Math.max(0, seconds));
  if (whole < MINUTE_S) return `${whole} s`;
  if (whole < HOUR_S) return `${Math.floor(whole / MINUTE_S)} min`;
  if (whole < DAY_S) {
    return `${Math.floor(whole / HOUR_S)} h ${Math.floor(whole / MINUTE_S) % 60} min`;
  }
  return `${Math.floor(whole / DAY_S)} d ${Math.floor(whole / HOUR_S) % 24} h`;
}

/** How the comment of an agent begins that takes no job since its device's own file is wrong. */
export const DEVICE_UNUSABLE = "The device configuration cannot be used";

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

/** When that is carried out. */
export function whenAsked({ job, mode }: Pick<AgentStatus, "job" | "mode">): string {
  if (job !== undefined) return "After its job";
  return mode?.state === "offline" || mode?.state === "maintenance" ? "Once online" : "Soon";
}

/** A name from outside, on one line. */
function show(text: string): string {
  return showText(text).replaceAll("\n", " ");
}
