import { join } from "../../../lib/path.ts";
import type { ConnectorContext } from "../../context.ts";
import { JobError } from "../errors.ts";
import { writeFile } from "../files.ts";
import { credentials, type JobData } from "../job.ts";
import { deviceTarget } from "../ssh/ssh.ts";
import { copySshKey, importSshKey } from "../ssh/ssh_keys.ts";

const DEFAULT_TIMEOUT_S = 3600;
const KEY_FILE = "key.pub";
const KEY_ENTRY = /^(lp|gh):\S+$/;

/**
 * The default `reserve` stage: gives people access to the device, says how, and waits until the
 * reservation is over.
 *
 * @throws JobError when the timeout is no duration.
 */
export async function reserve(ctx: ConnectorContext): Promise<void> {
  const job = await ctx.readJob();
  const { user } = credentials(job);
  const device = deviceTarget(ctx, { user });
  const seconds = reservationSeconds(job);
  ctx.log.info("BEGIN reservation");
  const installed = await installKeys(ctx, job);
  if (!installed) {
    await ctx.print(
      "*** WARNING: no ssh key could be installed; log in with a password, or cancel the job ***\n",
    );
  }
  const { serial_host: serialHost, serial_port: serialPort } = ctx.config;
  const now = ctx.clock.now();
  // Tools in the field read these lines by their first words, and by their order: nothing may come
  // between them, so they are written at once.
  await ctx.print(
    [
      "*** TESTFLINGER SYSTEM RESERVED ***",
      `You can now connect to ${device.user}@${device.host}`,
      ...(serialHost && serialPort !== undefined
        ? [`Serial access is available via: telnet ${serialHost} ${serialPort}`]
        : []),
      `Current time:           [${isoTime(now)}]`,
      `Reservation expires at: [${isoTime(now + seconds * 1000)}]`,
      `Reservation will automatically timeout in ${seconds} seconds`,
      `To end the reservation sooner use: testflinger-cli cancel ${job.job_id ?? "<job_id>"}`,
      "",
    ].join("\n"),
  );
  await ctx.clock.sleep(seconds * 1000, ctx.signal);
  ctx.log.info("END reservation");
}

function reservationSeconds(job: JobData): number {
  const timeout = job.reserve_data?.timeout ?? DEFAULT_TIMEOUT_S;
  const seconds = parseDuration(timeout);
  if (seconds !== undefined) return seconds;
  throw new JobError(
    `'reserve_data.timeout' is ${JSON.stringify(timeout)}: expected seconds, or a duration such ` +
      `as "90m" or "1d5h"`,
  );
}

/**
 * Gets all the job's keys first and installs them in one go.
 *
 * @returns false when the job has keys, and none of them could be installed.
 */
async function installKeys(ctx: ConnectorContext, job: JobData): Promise<boolean> {
  const entries = job.reserve_data?.ssh_keys ?? [];
  if (!Array.isArray(entries)) {
    ctx.log.warning("'reserve_data.ssh_keys' is not a list: no key is installed");
    return false;
  }
  if (entries.length === 0) return true;
  const keys: string[] = [];
  for (const entry of entries) {
    if (typeof entry !== "string" || !KEY_ENTRY.test(entry)) {
      ctx.log.warning(
        `${JSON.stringify(entry)} in 'reserve_data.ssh_keys' is neither lp:<user> nor gh:<user>`,
      );
      continue;
    }
    const imported = await importSshKey(ctx, { entry, file: KEY_FILE });
    if (imported.ok) keys.push(imported.keys.endsWith("\n") ? imported.keys : `${imported.keys}\n`);
    else ctx.log.warning(`Cannot import ssh key '${entry}': ${imported.why}`);
  }
  if (keys.length === 0) return false;
  const path = join(ctx.cwd, KEY_FILE);
  await Deno.remove(path).catch(() => {});
  await writeFile(path, keys.join(""), { createNew: true });
  const target = deviceTarget(ctx, { user: credentials(job).user });
  const copied = await copySshKey(ctx, target, { keyFile: KEY_FILE, force: true });
  if (!copied.ok) ctx.log.warning(`Cannot install the ssh keys: ${copied.why}`);
  return copied.ok;
}

/** ISO 8601 with an offset, as people know it from here: UTC, to the second. */
function isoTime(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "+00:00");
}

const UNIT_S: Readonly<Record<string, number>> = {
  s: 1,
  sec: 1,
  m: 60,
  min: 60,
  h: 3600,
  hour: 3600,
  d: 86_400,
  day: 86_400,
};

const PART = /(\d+)(sec|s|min|m|hour|h|day|d)/g;
const WHOLE = /^(?:\d+(?:sec|s|min|m|hour|h|day|d))+$/;

/**
 * Seconds from a number, from digits, or from a duration as people write it: `90s`, `30min`,
 * `1d5h30m`.
 *
 * @returns undefined when it is none of them.
 */
export function parseDuration(value: unknown): number | undefined {
  if (typeof value === "number") return value >= 0 && Number.isFinite(value) ? value : undefined;
  if (typeof value !== "string") return undefined;
  const text = value.replaceAll(/\s/g, "").toLowerCase();
  if (/^\d+$/.test(text)) return Number(text);
  if (!WHOLE.test(text)) return undefined;
  let seconds = 0;
  for (const [, count, unit = ""] of text.matchAll(PART)) {
    seconds += Number(count) * (UNIT_S[unit] ?? 0);
  }
  return seconds;
}
