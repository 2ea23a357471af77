/**
 * What a person may submit as a job, as strictly as the real server takes it; except for
 * `provision_data`, which each lab's device connectors define, and `test_cmds`, which may also be
 * a list.
 */
import * as z from "zod";

const SECONDS_PER_UNIT = { s: 1, m: 60, h: 3600, d: 86_400 };
const DURATION = /^(?:\d+\s*(?:secs?|mins?|hours?|days?|[smhd])\s*)+$/;
const DURATION_PART = /(\d+)\s*([smhd])/g;

/** Seconds of `3600`, `"3600"`, `"90m"`, `"2h30m"`, `"1 day"`; undefined when it is none of these. */
function parseDuration(value: string | number): number | undefined {
  const text = String(value).trim().toLowerCase();
  if (/^\d+$/.test(text)) return Number(text);
  if (!DURATION.test(text)) return undefined;
  let seconds = 0;
  for (const [, count, unit] of text.matchAll(DURATION_PART)) {
    // The pattern lets nothing else through as a unit.
    seconds += Number(count) * SECONDS_PER_UNIT[unit as keyof typeof SECONDS_PER_UNIT];
  }
  return seconds;
}

/** A whole number, also as text: the real server reads both. */
const integer = z.union([z.int(), z.string().regex(/^\s*[-+]?\d+\s*$/, "Not a valid integer.")])
  .transform(Number);

const duration = z.union([z.string(), z.int()]).transform((value, context) => {
  const seconds = parseDuration(value);
  if (seconds === undefined) {
    context.addIssue({ code: "custom", message: `Invalid duration format: '${value}'` });
    return z.NEVER;
  }
  return seconds;
});

const attachment = z.strictObject({ agent: z.string(), device: z.string().optional() });
const anything = z.record(z.string(), z.unknown());

/** `POST /v1/job`. */
export const JobSubmission = z.strictObject({
  job_id: z.string().optional(),
  parent_job_id: z.string().optional(),
  name: z.string().optional(),
  tags: z.array(z.string()).optional(),
  job_queue: z.string().min(1, "Shorter than minimum length 1."),
  global_timeout: integer.optional(),
  output_timeout: integer.optional(),
  allocation_timeout: integer.optional(),
  provision_data: anything.nullish(),
  firmware_update_data: anything.optional(),
  test_data: z.strictObject({
    test_cmds: z.union([z.string(), z.array(z.string())]).optional(),
    attachments: z.array(attachment).optional(),
    test_username: z.string().optional(),
    test_password: z.string().optional(),
    // The real server takes paths into its store here and hands out what is there. There is no
    // store in the sandbox: the value itself is given, and handed out.
    secrets: z.record(
      z.string().regex(/^[a-zA-Z_][a-zA-Z0-9_]*$/, "String does not match expected pattern."),
      z.string(),
    ).optional(),
  }).optional(),
  allocate_data: anything.optional(),
  reserve_data: z.strictObject({
    ssh_keys: z.array(
      z.string().regex(/^(lp|gh):(\S+)$/, "String does not match expected pattern."),
    ).optional(),
    timeout: duration.nullish(),
  }).optional(),
  job_status_webhook: z.string().optional(),
  job_priority: integer.optional(),
  exclude_agents: z.array(z.string()).default([]),
  debug: z.boolean().optional(),
});

/** States that `GET /v1/job/search` knows; `active` stands for all that are not over. */
const SEARCHABLE_STATES = [
  "setup",
  "provision",
  "firmware_update",
  "test",
  "allocate",
  "allocated",
  "reserve",
  "cleanup",
  "cancelled",
  "completed",
  "active",
] as const;

/** The query of `GET /v1/job/search`. */
export const JobSearch = z.strictObject({
  tags: z.array(z.string()).optional(),
  match: z.enum(["any", "all"]).optional(),
  state: z.array(z.enum(SEARCHABLE_STATES)).optional(),
});

/** `POST /v1/job/{id}/action`. */
export const JobAction = z.strictObject({ action: z.enum(["cancel"]) });
