/** What an agent is doing, and its last jobs, in lines for a person. */
import { showText } from "../../observe/output_text.ts";
import type { AgentStatus, CurrentJob, PastJob } from "../../observe/status_schema.ts";
import { backlog, duration, requestWords, size, whenAsked } from "../../observe/words.ts";
import { progressWords } from "../../progress.ts";
import type { AgentRef } from "./agent_ref.ts";
import type { AgentAnswer } from "./ask_agent.ts";

/** Everything about one agent. */
export function statusLines({ id, file }: AgentRef, answer: AgentAnswer): string {
  const heading = `${text(id)}  `;
  if (answer.kind === "stopped") {
    const why = answer.why === undefined ? "" : row("Because", text(answer.why));
    const asked = requestWords(answer.requests).map((words, n) =>
      row(n > 0 ? "" : "Once started", words)
    );
    return `${heading}does not run\n${why}${asked.join("")}${row("Configuration", file)}`;
  }
  if (answer.kind === "silent") {
    const process = answer.pid === undefined ? "" : `process ${answer.pid}: `;
    return `${heading}does not say: ${process}${answer.why}\n${row("Configuration", file)}`;
  }
  const { status } = answer;
  const { mode, job, server, undelivered, trouble, recovering } = status;
  const ago = (iso: string) => duration(secondsBetween(iso, status.now));
  const lines = [
    `${heading}${stateOf(status)}` +
    (recovering !== undefined
      ? ` for ${duration(recovering.seconds)}`
      : mode === undefined
      ? ""
      : ` for ${ago(mode.since)}`) +
    "\n",
    recovering === undefined ? "" : row(
      "Recovering",
      `job ${text(recovering.job_id)}: an earlier process left it, and it is ended first`,
    ),
    mode === undefined || mode.comment === "" ? "" : row("Because", text(mode.comment)),
    trouble === undefined ? "" : row("Trouble", `it seems to hang: ${text(trouble)}`),
    ...job === undefined ? [] : jobLines(job),
    ...(status.transfers ?? []).map((transfer) => row("On its way", transferWords(transfer, job))),
    ...requestWords(status.requests).map((words, n) => row(n > 0 ? "" : whenAsked(status), words)),
    row(
      "Server",
      `${text(server.address)}, ` +
        (server.last_success_at === undefined
          ? "no answer yet"
          : `last answer ${ago(server.last_success_at)} ago`),
    ),
    server.reachable !== false ? "" : row("", `not reachable: ${text(server.last_failure ?? "")}`),
    server.turned_away === undefined
      ? ""
      : row("", `turns the agent away: ${text(server.turned_away)}`),
    row(
      "Undelivered",
      undelivered.bytes === 0 && undelivered.jobs === 0 ? "nothing" : backlog(undelivered),
    ),
    row("Version", `${status.version}, running for ${ago(status.started_at)}`),
    row("Configuration", file),
    ...brokenLines(status),
  ];
  return lines.join("");
}

/** What has become of the file that the agent was started with. */
function brokenLines({ broken_configuration: broken, now }: AgentStatus): string[] {
  if (broken === undefined) return [];
  const { since, mistakes } = broken;
  const ago = duration(secondsBetween(since, now));
  return [
    row("", `cannot be used as it is now, noticed ${ago} ago (${absolute(since)}):`),
    ...mistakes.map((mistake) => row("", `  ${text(mistake)}`)),
    row("", "the agent keeps running with the previous configuration"),
  ];
}

/** `2026-11-29 12:00:00 UTC`. */
function absolute(iso: string): string {
  return `${iso.slice(0, 19).replace("T", " ")} UTC`;
}

function jobLines(job: CurrentJob): string[] {
  const phase = job.phases.findLast(({ state }) => state === "running");
  const { limits } = job;
  const left = [
    ...limits?.total_left_seconds === undefined
      ? []
      : [`at most ${duration(limits.total_left_seconds)} more`],
    ...limits?.silence_left_seconds === undefined
      ? []
      : [`at most ${duration(limits.silence_left_seconds)} more without output`],
  ];
  const name = job.name === undefined ? "" : ` (${text(job.name)})`;
  return [
    row("Job", `${text(job.job_id)}${name}, queue ${text(job.queue)}`),
    phase === undefined
      ? ""
      : row("Phase", [`${phase.phase} for ${duration(phase.seconds ?? 0)}`, ...left].join(", ")),
  ];
}

function transferWords(
  transfer: NonNullable<AgentStatus["transfers"]>[number],
  job: CurrentJob | undefined,
): string {
  const { what, job_id, bytes, total_bytes: total, seconds } = transfer;
  const words = progressWords({ what, total }, bytes, seconds * 1000);
  return text(job_id === job?.job_id ? words : `${words} (job ${job_id})`);
}

/** One line for each of several agents. */
export function statusTable(entries: readonly { agent: AgentRef; answer: AgentAnswer }[]): string {
  const rows = entries.map((
    { agent, answer },
  ) => [text(agent.id), ...summary(answer)]);
  const all = [
    ["AGENT", "STATE", "FOR", "JOB", "SERVER", "UNDELIVERED", "VERSION", "COMMENT"],
    ...rows,
  ];
  const widths =
    all[0]?.map((_, column) => Math.max(...all.map((cells) => cells[column]?.length ?? 0))) ?? [];
  return all.map((cells) =>
    `${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd()}\n`
  ).join("");
}

function serverInOneWord({ reachable, turned_away }: AgentStatus["server"]): string {
  if (reachable === undefined) return "-";
  if (!reachable) return "not reachable";
  return turned_away === undefined ? "ok" : "turns it away";
}

function summary(answer: AgentAnswer): string[] {
  if (answer.kind === "stopped") {
    const asked = requestWords(answer.requests).map((words) => `once started ${words}`);
    const comment = [...answer.why === undefined ? [] : [text(answer.why)], ...asked].join("; ");
    return ["stopped", "", "", "", "", "", comment];
  }
  if (answer.kind === "silent") return ["silent", "", "", "", "", "", answer.why];
  const { mode, job, server, undelivered, trouble, now, recovering } = answer.status;
  const [broken] = answer.status.broken_configuration?.mistakes ?? [];
  return [
    stateOf(answer.status),
    recovering !== undefined
      ? duration(recovering.seconds)
      : mode === undefined
      ? ""
      : duration(secondsBetween(mode.since, now)),
    text(job?.job_id ?? recovering?.job_id ?? "-"),
    serverInOneWord(server),
    undelivered.bytes === 0 && undelivered.jobs === 0 ? "-" : size(undelivered.bytes),
    answer.status.version,
    [
      trouble === undefined ? text(mode?.comment ?? "") : `seems to hang: ${text(trouble)}`,
      broken === undefined ? "" : `runs with its previous configuration: ${text(broken)}`,
    ].filter((part) => part !== "").join("; "),
  ];
}

/** In one word. */
function stateOf({ mode, recovering }: AgentStatus): string {
  return recovering !== undefined ? "recovering" : text(mode?.state ?? "starting");
}

/** What a job is at, in half a sentence; undefined when none runs. */
export function jobInWords({ job, recovering }: AgentStatus): string | undefined {
  if (recovering !== undefined) {
    return `job ${text(recovering.job_id)} of an earlier process, which is ended`;
  }
  if (job === undefined) return undefined;
  const phase = job.phases.findLast(({ state }) => state === "running");
  const where = phase === undefined
    ? ""
    : `, in phase ${phase.phase} for ${duration(phase.seconds ?? 0)}`;
  return `job ${text(job.job_id)}${where}`;
}

const COLUMN = 15;

function row(name: string, value: string): string {
  return `  ${name.padEnd(COLUMN)}${value}\n`;
}

/** Names and comments come from outside. */
function text(outside: string): string {
  return showText(outside).replaceAll("\n", " ");
}

function secondsBetween(earlier: string, later: string): number {
  return (Date.parse(later) - Date.parse(earlier)) / 1000;
}

/** The last jobs, newest first, whether the agent runs or not; undefined where they cannot be read, which is told. */
export async function recentJobs(
  { folder }: AgentRef,
  complain: (text: string) => void,
): Promise<readonly PastJob[] | undefined> {
  const { readRecentJobs } = await import("../../observe/recent_jobs.ts");
  const read = await readRecentJobs(folder);
  if (read.ok) return read.jobs;
  const why = read.isForbidden ? "permission denied: try again as root" : read.reason;
  complain(`The list of recent jobs ${read.path} cannot be read: ${text(why)}`);
  return undefined;
}

/** One line for each job: when it began, how it ended, what its phases took. */
export function jobsTable(jobs: readonly PastJob[]): string {
  const rows = jobs.map((job) => [
    job.started_at.slice(0, 19).replace("T", " "),
    text(job.job_id),
    text(job.queue),
    duration(job.seconds),
    jobResult(job),
    job.phases.filter(({ state }) => state !== "skipped").map(({ phase, state, seconds = 0 }) =>
      state === "running" ? `${phase} did not end` : `${phase} ${duration(seconds)}`
    ).join(", "),
    text(job.name ?? ""),
  ]);
  const all = [["STARTED (UTC)", "JOB", "QUEUE", "TOOK", "RESULT", "PHASES", "NAME"], ...rows];
  const widths =
    all[0]?.map((_, column) => Math.max(...all.map((cells) => cells[column]?.length ?? 0))) ?? [];
  return all.map((cells) =>
    `${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd()}\n`
  ).join("");
}

/** In a few words: `passed`, `test failed (3)`, `cancelled`. */
function jobResult({ reason, phases, recovery_failed: isLost }: PastJob): string {
  const lost = isLost ? ", device not recovered" : "";
  const failed = phases.find(({ status = 0 }) => status !== 0);
  if (reason !== "normal_exit") return `${text(reason).replaceAll("_", " ")}${lost}`;
  return failed === undefined
    ? `passed${lost}`
    : `${failed.phase} failed (${failed.status})${lost}`;
}
