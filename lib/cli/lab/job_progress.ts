/** A job on a server: what it has printed, and how it ended. */
import { PHASES } from "../../phases.ts";
import type { LabServer } from "./lab_server.ts";

/** Keys of a result by name; what this version does not know is left alone. */
export type Result = Readonly<Record<string, unknown>>;

/** The result of a job as the server has it; `undefined`: it knows of none yet. */
export async function resultOf(
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
export function isOver({ job_state }: Result): boolean {
  return ["complete", "completed", "cancelled"].includes(String(job_state));
}

/** Whether a phase has run, and each that has ended with status 0. */
export function hasPassed(result: Result): boolean {
  const statuses = PHASES.map((phase) => result[`${phase}_status`])
    .filter((status) => status !== undefined);
  return result.job_state !== "cancelled" && statuses.length > 0 &&
    statuses.every((status) => status === 0);
}

/** All that the phases have printed, in their order. */
export function outputOf(result: Result): string {
  return PHASES.map((phase) => result[`${phase}_output`])
    .filter((text) => typeof text === "string").join("");
}

/** A line for each phase that has ended, and the job's state. */
export function resultTable(result: Result): string {
  const rows = PHASES.flatMap((phase) => {
    const status = result[`${phase}_status`];
    if (typeof status !== "number") return [];
    return [`${phase.padEnd(16)} ${status === 0 ? "passed" : "failed"}   status ${status}\n`];
  });
  return `${rows.join("")}${"job".padEnd(16)} ${String(result.job_state ?? "unknown")}\n`;
}

/** What is new of a text that grows, from one look to the next. */
export class GrowingText {
  #shown = "";

  /** The rest of `text`; all of it again where it is another one. */
  next(text: string): string {
    const isMore = text.startsWith(this.#shown);
    const rest = isMore ? text.slice(this.#shown.length) : text;
    this.#shown = text;
    return rest;
  }
}
