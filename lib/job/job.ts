/**
 * A job as the server handed it out. Only `job_id` and `job_queue` are certain to be there; fields
 * come and go between versions of the server, and none of them is a reason to refuse a job.
 */
import type { Phase } from "../phases.ts";
import { isJobId } from "../server/answers.ts";

/** How long a phase may take when neither job nor configuration says, in seconds. */
const DEFAULT_GLOBAL_TIMEOUT_S = 14400;
/** How long a test may be silent when neither job nor configuration says, in seconds. */
const DEFAULT_OUTPUT_TIMEOUT_S = 900;

/** The phases for which a job must bring `{phase}_data` if they are to run. */
const PHASES_WITH_DATA: readonly Phase[] = [
  "provision",
  "firmware_update",
  "test",
  "allocate",
  "reserve",
];

/** The phases that attachments can belong to. */
const PHASES_WITH_ATTACHMENTS = ["provision", "firmware_update", "test"] as const;

type JsonObject = Record<string, unknown>;

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

/** A number of seconds; numeric strings count, anything else is as good as absent. */
function secondsOf(value: unknown): number | undefined {
  const seconds = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  return typeof seconds === "number" && Number.isFinite(seconds) && seconds >= 0
    ? seconds
    : undefined;
}

/** What the established agent, being Python, takes for empty. */
function isEmpty(value: unknown): boolean {
  if (Array.isArray(value)) return value.length === 0;
  if (isObject(value)) return Object.keys(value).length === 0;
  return !value;
}

/** One job. */
export class Job {
  /** As the server writes it: it knows the job by no other form. */
  readonly jobId: string;
  readonly queue: string;
  readonly name: string | undefined;
  readonly parentJobId: string | undefined;
  readonly webhook: string | undefined;
  readonly hasAttachments: boolean;
  /** As it was received, whole. */
  readonly received: JsonObject;
  /** The same as text, in which a number may have more digits than one of ours can. */
  readonly text: string;
  /** Like `received`, less what has been dealt with. It shares its parts: nothing in them is changed. */
  readonly #data: JsonObject;

  /**
   * @param received a job whose `job_id` is a UUID.
   * @param text what it was parsed from. @default made of `received`
   * @throws {TypeError} if it is not.
   */
  constructor(received: JsonObject, text: string = JSON.stringify(received)) {
    if (!isJobId(received.job_id)) {
      throw new TypeError(
        `Cannot take a job whose 'job_id' is not a UUID: ${JSON.stringify(received.job_id)}`,
      );
    }
    this.received = received;
    this.text = text;
    this.#data = { ...received };
    this.jobId = received.job_id;
    this.queue = textOf(received.job_queue) ?? "";
    this.name = textOf(received.name);
    this.parentJobId = isJobId(received.parent_job_id) ? received.parent_job_id : undefined;
    this.webhook = textOf(received.job_status_webhook);
    this.hasAttachments = received.attachments_status === "complete";
  }

  /** Upper limit for each phase but reserve, in seconds. */
  globalTimeout(configured: number | undefined): number {
    return Math.min(
      secondsOf(this.received.global_timeout) ?? DEFAULT_GLOBAL_TIMEOUT_S,
      configured ?? DEFAULT_GLOBAL_TIMEOUT_S,
    );
  }

  /** Upper limit for the silence of a test, in seconds. */
  outputTimeout(configured: number | undefined): number {
    return Math.min(
      secondsOf(this.received.output_timeout) ?? DEFAULT_OUTPUT_TIMEOUT_S,
      configured ?? DEFAULT_OUTPUT_TIMEOUT_S,
    );
  }

  /** How long its device may be lent to its parent, in seconds; undefined when the job does not say. */
  get allocationTimeout(): number | undefined {
    return secondsOf(this.received.allocation_timeout);
  }

  /** Why the job itself does not want `phase` to run; undefined when it does. */
  reasonToSkip(phase: Phase): string | undefined {
    if (!PHASES_WITH_DATA.includes(phase)) return undefined;
    const data = this.#data[`${phase}_data`];
    if (isEmpty(data)) return `the job has no ${phase}_data`;
    if (isObject(data) && !isEmpty(data.skip)) return "the job asks for it";
    return undefined;
  }

  /** The secrets of `phase`, by name. Values that are not text are given as JSON. */
  secrets(phase: Phase): Record<string, string> {
    const data = this.#data[`${phase}_data`];
    const secrets = isObject(data) && isObject(data.secrets) ? data.secrets : {};
    return Object.fromEntries(
      Object.entries(secrets)
        .filter(([, value]) => value !== null)
        .map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]),
    );
  }

  /** The user name with which the device is reached. */
  get testUsername(): string {
    const data = this.#data.test_data;
    return (isObject(data) ? textOf(data.test_username) : undefined) ?? "ubuntu";
  }

  /** The attachments are in place: a phase that had nothing else has nothing to do. */
  dropAttachments(): void {
    for (const phase of PHASES_WITH_ATTACHMENTS) {
      const key = `${phase}_data`;
      const data = this.#data[key];
      if (!isObject(data)) continue;
      const { attachments: _, ...rest } = data;
      if (isEmpty(rest)) delete this.#data[key];
      else this.#data[key] = rest;
    }
  }
}
