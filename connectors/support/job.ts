import * as z from "zod";
import { readFailure } from "../../lib/config/source_text.ts";
import { join, resolve } from "../../lib/path.ts";
import { fullMessageOf, JobError, ProvisioningError } from "./errors.ts";

/** Local user names, and the addresses that single sign-on accounts have. Never an option. */
const USER_NAME = /^[A-Za-z_][A-Za-z0-9_.@-]*[$]?$/;

const section = z.record(z.string(), z.unknown(), { error: "expected an object" });

/** `null` is the same as absent throughout. */
const jobSchema = z.looseObject({
  job_id: z.union([z.string(), z.number()]).transform(String).nullish(),
  debug: z.unknown().optional().transform(Boolean),
  allocation_timeout: z.union([z.number(), z.string().regex(/^\d+$/).transform(Number)]).nullish(),
  provision_data: section.nullish(),
  firmware_update_data: section.nullish(),
  reserve_data: section.nullish(),
  test_data: z.looseObject({
    // Checked by the stage that needs it, which has its own words for what is wrong.
    test_cmds: z.unknown().optional(),
    secrets: z.record(z.string(), z.unknown()).nullish(),
    test_username: z.string().nullish(),
    test_password: z.union([z.string(), z.number()]).transform(String).nullish(),
  }).nullish(),
}, { error: "expected an object" });

/** What connectors read of a job. A section that is missing or null is undefined. */
export type JobData = z.output<typeof jobSchema>;

/**
 * Reads a job file.
 *
 * @param file path relative to `folder`; messages name it like that.
 * @throws JobError naming the file and what is wrong with it.
 */
export async function readJobData(file: string, folder: string): Promise<JobData> {
  let text: string;
  try {
    text = await Deno.readTextFile(resolve(folder, file));
  } catch (error) {
    throw new JobError(`Cannot read the job file '${file}': ${readFailure(error)}`, {
      cause: error,
    });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    // The runtime quotes the text there, which may be a secret, over several lines.
    const why = fullMessageOf(error).replace(/, (?:\.\.\.)?".*is not valid JSON$/s, "");
    throw new JobError(`The job file '${file}' is not JSON: ${why}`);
  }
  const job = jobSchema.safeParse(value);
  if (job.success) return job.data;
  throw new JobError(`The job file '${file}' cannot be used: ${issuesText(job.error)}`);
}

/** All that zod found wrong, in one line: `path: message; path: message`. */
export function issuesText(error: z.ZodError): string {
  return error.issues.map((issue) => {
    const path = issue.path.map(String).join(".");
    return path === "" ? issue.message : `${path}: ${issue.message}`;
  }).join("; ");
}

/** Who logs in on the device. */
export interface Credentials {
  readonly user: string;
  readonly password: string;
}

/**
 * The user and password of `test_data`, else `defaults`.
 *
 * @throws JobError when the user name is none: it could be taken for an option of ssh.
 */
export function credentials(
  job: JobData,
  defaults: Credentials = { user: "ubuntu", password: "ubuntu" },
): Credentials {
  const user = job.test_data?.test_username ?? defaults.user;
  checkUserName(user);
  return { user, password: job.test_data?.test_password ?? defaults.password };
}

/** @throws JobError when `user` is not a user name. */
export function checkUserName(user: string): void {
  if (!USER_NAME.test(user)) {
    throw new JobError(
      `'${user}' is not a user name: expected letters, digits, '_', '-', '.', '@', ` +
        `beginning with a letter`,
    );
  }
}

/**
 * Absolute path of an attachment that a job names, below `attachments/<phase>/`.
 *
 * @param attachment `key` is the job's key that names it, for messages.
 * @throws ProvisioningError when there is none of that name, when it is no file, or when it lies
 *   elsewhere, be it by `..` or by a link: the result is copied to where the job's owner can read it.
 */
export async function attachmentPath(
  { cwd }: { readonly cwd: string },
  attachment: { readonly phase: "provision" | "test"; readonly name: string; readonly key: string },
): Promise<string> {
  const { phase, name, key } = attachment;
  const folder = join(cwd, "attachments", phase);
  const fail = (why: string) =>
    new ProvisioningError(`Cannot use the attachment '${name}' of '${key}': ${why}`);
  if (name === "" || name.includes("\0")) throw fail("that is no file name");
  let root: string;
  let path: string;
  try {
    root = await Deno.realPath(folder);
    path = await Deno.realPath(join(folder, name));
  } catch {
    throw fail(`there is no such file in attachments/${phase}`);
  }
  if (!path.startsWith(`${root}/`)) throw fail(`it is not inside of attachments/${phase}`);
  if (!(await Deno.stat(path)).isFile) throw fail("it is not a file");
  return path;
}
