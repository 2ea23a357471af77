/** What `submit`, `results`, `artifacts` and `cancel` do. */
import * as z from "zod";
import { systemClock } from "../../clock.ts";
import { formatMistake, sourceLines } from "../../config/mistake.ts";
import { showText } from "../../observe/output_text.ts";
import { count } from "../../observe/words.ts";
import { PHASES } from "../../phases.ts";
import { describeNoAnswer } from "../../server/exchange.ts";
import { type CommandLine, type Io, readFormat, USAGE_STATUS } from "../command.ts";
import { TerminalText } from "../terminal.ts";
import { type JobFile, readJobFile, writeArtifacts } from "../try/job_file.ts";
import { type LabServer, readServer } from "./lab_server.ts";

const FAILED_STATUS = 1;
/** The job file is wrong: nothing was submitted. */
const INPUT_STATUS = 2;

/** How often a job is looked at that is waited for. */
const LOOK_MS = 1_000;
/** So many looks may fail, one after the other, before it is given up. */
const MOST_FAILURES = 30;
/**
 * So many looks, one after the other, may find that the server knows nothing of the job: it may have no result
 * of a new job yet. A server that was restarted with an empty database will never have one.
 */
const MOST_UNKNOWN = 10;

const Submitted = z.object({ job_id: z.string() });

/** Submits a job; with `--wait` shows its log and ends as the job does. */
export async function submit(line: CommandLine, io: Io): Promise<number> {
  const server = readServer(line, io);
  if (typeof server === "number") return server;
  const read = await readJobFile(line.positionals[0] ?? "");
  if (!read.ok) {
    for (const one of read.mistakes) io.stderr(`${formatMistake(one)}\n${sourceLines(one)}`);
    return INPUT_STATUS;
  }
  for (const one of read.value.warnings) {
    io.stderr(`warning: ${formatMistake(one)}\n${sourceLines(one)}`);
  }
  const { job } = read.value;
  const queue = line.values.queue ?? job.job_queue;
  if (typeof queue !== "string" || queue === "") {
    io.stderr("The job names no queue: give it a job_queue, or add --queue NAME\n");
    return INPUT_STATUS;
  }
  const sent = await send(server, { ...read.value, job: { ...job, job_queue: queue } });
  if (!sent.ok) {
    io.stderr(`${sent.message}\n`);
    return FAILED_STATUS;
  }
  if (!line.switches.has("wait")) {
    io.stdout(`${sent.jobId}\n`);
    return 0;
  }
  io.stderr(`Job ${sent.jobId} is submitted to queue '${queue}' of ${server.address}\n`);
  return await follow(server, sent.jobId, io);
}

type Sent = { ok: true; jobId: string } | { ok: false; message: string };

async function send(server: LabServer, { job, attachments }: JobFile): Promise<Sent> {
  const answer = await server.call("/v1/job", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(job),
  });
  if (!answer.ok) return answer;
  const submitted = Submitted.safeParse(await answer.response.json().catch(() => undefined));
  if (!submitted.success) {
    return {
      ok: false,
      message: `${server.address} gives the job no id: is it a Testflinger server?`,
    };
  }
  const { job_id: jobId } = submitted.data;
  if (attachments === undefined) return { ok: true, jobId };
  const form = new FormData();
  form.append(
    "file",
    new Blob([new Uint8Array(attachments)], { type: "application/x-gzip" }),
    "file",
  );
  const uploaded = await server.call(`/v1/job/${jobId}/attachments`, {
    method: "POST",
    body: form,
  });
  if (uploaded.ok) {
    await uploaded.response.body?.cancel();
    return { ok: true, jobId };
  }
  // It would wait for its attachments, and so would its submitter.
  await cancelJob(server, jobId);
  return { ok: false, message: `${uploaded.message}; job ${jobId} is cancelled` };
}

/** Shows the log of a job until it is over. */
async function follow(server: LabServer, jobId: string, io: Io): Promise<number> {
  const clock = io.host?.clock ?? systemClock;
  const interrupted = new AbortController();
  io.signals.listen({ restart() {}, stop: () => interrupted.abort() });
  const shown = new GrowingText();
  const text = new TerminalText();
  let state = "";
  let failures = 0;
  let unknown = 0;
  while (!interrupted.signal.aborted) {
    const answer = await resultOf(server, jobId);
    if (answer.ok) {
      if (failures > 0) io.stderr("The server is back\n");
      failures = 0;
      unknown = answer.result === undefined ? unknown + 1 : 0;
    } else {
      failures++;
      if (failures >= MOST_FAILURES) {
        io.stderr(`${answer.message}; the job goes on\n`);
        return FAILED_STATUS;
      }
      if (failures === 1) io.stderr(`${answer.message}; trying again\n`);
    }
    const result = answer.ok ? answer.result : undefined;
    if (result !== undefined) {
      io.stdout(text.push(shown.next(outputOf(result))));
      if (String(result.job_state) !== state) {
        state = String(result.job_state);
        io.stderr(`[${showText(state)}]\n`);
      }
      if (isOver(result)) {
        io.stdout(`${text.flush()}\n${resultTable(result)}`);
        return hasPassed(result) ? 0 : FAILED_STATUS;
      }
    } else if (unknown >= MOST_UNKNOWN) {
      io.stderr(unknownJob(server, jobId));
      return FAILED_STATUS;
    }
    await clock.sleep(LOOK_MS, interrupted.signal).catch(() => {});
  }
  io.stderr(`\nThe job goes on; to end it: testflinger-agent cancel ${jobId}\n`);
  return FAILED_STATUS;
}

/** Shows what has become of a job; ends as `submit --wait` does when it is over. */
export async function results(line: CommandLine, io: Io): Promise<number> {
  const format = readFormat(line, io);
  if (format === undefined) return USAGE_STATUS;
  const server = readServer(line, io);
  if (typeof server === "number") return server;
  const [jobId = ""] = line.positionals;
  const answer = await resultOf(server, jobId);
  if (!answer.ok || answer.result === undefined) {
    io.stderr(answer.ok ? unknownJob(server, jobId) : `${answer.message}\n`);
    return FAILED_STATUS;
  }
  const { result } = answer;
  if (format === "json") io.stdout(`${JSON.stringify(result, null, 2)}\n`);
  else {
    const screen = new TerminalText();
    const log = line.switches.has("log") ? screen.push(outputOf(result)) + screen.flush() : "";
    io.stdout(`${log}${resultTable(result)}`);
  }
  return isOver(result) && !hasPassed(result) ? FAILED_STATUS : 0;
}

/** Fetches the artifacts of a job into `./artifacts-JOB_ID/`. */
export async function artifacts(line: CommandLine, io: Io): Promise<number> {
  const server = readServer(line, io);
  if (typeof server === "number") return server;
  const [jobId = ""] = line.positionals;
  const folder = `artifacts-${jobId.replaceAll(/[^\w-]/g, "_")}`;
  if (await Deno.lstat(folder).then(() => true, () => false)) {
    io.stderr(`There is a ./${folder} already: move it away\n`);
    return FAILED_STATUS;
  }
  const answer = await server.call(`/v1/result/${encodeURIComponent(jobId)}/artifact`);
  if (!answer.ok || answer.response.status === 204) {
    io.stderr(
      `${answer.ok ? `Job ${jobId} has no artifacts on ${server.address}` : answer.message}\n`,
    );
    return FAILED_STATUS;
  }
  let archive;
  try {
    archive = new Uint8Array(await answer.response.arrayBuffer());
  } catch (error) {
    const reason = describeNoAnswer(error, "--server");
    io.stderr(`The artifacts of job ${jobId} did not arrive whole: ${reason}; try again\n`);
    return FAILED_STATUS;
  }
  const files = await writeArtifacts(archive, folder);
  io.stdout(`${count(files, "artifact")} in ./${folder}/\n`);
  return 0;
}

/** Cancels a job. */
export async function cancel(line: CommandLine, io: Io): Promise<number> {
  const server = readServer(line, io);
  if (typeof server === "number") return server;
  const [jobId = ""] = line.positionals;
  const answer = await cancelJob(server, jobId);
  if (!answer.ok) {
    io.stderr(`${answer.message}\n`);
    return FAILED_STATUS;
  }
  await answer.response.body?.cancel();
  io.stdout(`Job ${jobId} is cancelled\n`);
  return 0;
}

/** A line for a server that has no result of a job. */
function unknownJob({ address }: LabServer, jobId: string): string {
  return `${address} knows no job ${jobId}\n`;
}

function cancelJob(server: LabServer, jobId: string) {
  return server.call(`/v1/job/${encodeURIComponent(jobId)}/action`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ action: "cancel" }),
  });
}

/** Keys of a result by name; what this version does not know is left alone. */
type Result = Readonly<Record<string, unknown>>;

/** The result of a job as the server has it; `undefined`: it knows of none yet. */
async function resultOf(
  server: LabServer,
  jobId: string,
): Promise<{ ok: true; result: Result | undefined } | { ok: false; message: string }> {
  const answer = await server.call(`/v1/result/${encodeURIComponent(jobId)}`);
  if (!answer.ok) return answer;
  if (answer.response.status === 204) return { ok: true, result: undefined };
  const value: unknown = await answer.response.json().catch(() => undefined);
  return typeof value === "object" && value !== null
    ? { ok: true, result: { ...value } }
    : { ok: false, message: `${server.address} answers no result: is it a Testflinger server?` };
}

/** Whether nothing more comes. */
function isOver({ job_state }: Result): boolean {
  return ["complete", "completed", "cancelled"].includes(String(job_state));
}

/** Whether a phase has run, and each that has ended with status 0. */
function hasPassed(result: Result): boolean {
  const statuses = PHASES.map((phase) => result[`${phase}_status`])
    .filter((status) => status !== undefined);
  return result.job_state !== "cancelled" && statuses.length > 0 &&
    statuses.every((status) => status === 0);
}

/** All that the phases have printed, in their order. */
function outputOf(result: Result): string {
  return PHASES.map((phase) => result[`${phase}_output`])
    .filter((text) => typeof text === "string").join("");
}

/** A line for each phase that has ended, and the job's state. */
function resultTable(result: Result): string {
  const rows = PHASES.flatMap((phase) => {
    const status = result[`${phase}_status`];
    if (typeof status !== "number") return [];
    return [`${phase.padEnd(16)} ${status === 0 ? "passed" : "failed"}   status ${status}\n`];
  });
  return `${rows.join("")}${"job".padEnd(16)} ${String(result.job_state ?? "unknown")}\n`;
}

/** What is new of a text that grows, from one look to the next. */
class GrowingText {
  #shown = "";

  /** The rest of `text`; all of it again where it is another one. */
  next(text: string): string {
    const isMore = text.startsWith(this.#shown);
    const rest = isMore ? text.slice(this.#shown.length) : text;
    this.#shown = text;
    return rest;
  }
}
