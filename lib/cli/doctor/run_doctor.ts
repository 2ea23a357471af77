/** What `testflinger-agent doctor` does. */
import { systemClock } from "../../clock.ts";
import { readAgentRef, SHARED_FOLDER } from "../agents/agent_ref.ts";
import { type CommandLine, DEFAULT_CONFIG, type Io, readFormat, USAGE_STATUS } from "../command.ts";
import { DEFAULT_TOKEN_FILE } from "../defaults.ts";
import { deviceChecks } from "./device_checks.ts";
import {
  configurationCheck,
  foldersCheck,
  lockCheck,
  markersCheck,
  openFilesCheck,
  spaceCheck,
} from "./host_checks.ts";
import { serverChecks } from "./server_checks.ts";
import { type Check, failed, type Patient, type Verdict } from "./verdict.ts";

const CHECKS: readonly Check[] = [
  configurationCheck,
  foldersCheck,
  spaceCheck,
  lockCheck,
  openFilesCheck,
  markersCheck,
  serverChecks,
  deviceChecks,
];

/** The configuration cannot be used: nothing else can be looked at. */
const CONFIG_STATUS = 2;

/** Runs every check, and tells of each as soon as it has been made. */
export async function diagnose(patient: Patient, tell: (verdict: Verdict) => void): Promise<void> {
  for (const check of CHECKS) {
    try {
      for (const verdict of await check(patient)) tell(verdict);
    } catch (error) {
      // One check that fails in a way that nobody thought of must not hide the others.
      const reason = error instanceof Error ? error.message : String(error);
      tell(failed("doctor", `a check could not be made: ${reason}`, "please report this"));
    }
  }
}

/** Runs the command. */
export async function runDoctor(line: CommandLine, io: Io): Promise<number> {
  const format = readFormat(line, io);
  if (format === undefined) return USAGE_STATUS;
  const read = await readAgentRef(line.values.config ?? DEFAULT_CONFIG);
  if (!read.ok) {
    io.stderr(`${read.message}; 'testflinger-agent check' tells all about it\n`);
    return CONFIG_STATUS;
  }
  const verdicts: Verdict[] = [];
  const isColoured = Deno.stdout.isTerminal() && (Deno.env.get("NO_COLOR") ?? "") === "";
  await diagnose({
    agent: read.agent,
    tokenFile: line.values["token-file"] ?? DEFAULT_TOKEN_FILE,
    env: Deno.env.toObject(),
    clock: systemClock,
    sharedFolder: SHARED_FOLDER,
  }, (verdict) => {
    verdicts.push(verdict);
    if (format === "text") io.stdout(verdictLine(verdict, isColoured));
  });
  const count = (result: Verdict["result"]) =>
    verdicts.filter((verdict) => verdict.result === result).length;
  if (format === "json") {
    const { agent_id } = read.agent.config;
    io.stdout(`${JSON.stringify({ agent_id, failed: count("failed"), verdicts }, null, 2)}\n`);
  }
  return count("failed") === 0 ? 0 : 1;
}

const COLOURS = { ok: 32, warning: 33, failed: 31, skipped: 2 };

/** `ok       server        ... ` with the advice behind an arrow. */
function verdictLine({ check, result, message, advice }: Verdict, isColoured: boolean): string {
  const word = result.padEnd(8);
  const shown = isColoured ? `\x1b[${COLOURS[result]}m${word}\x1b[0m` : word;
  const what = advice === undefined ? message : `${message} -> ${advice}`;
  return `${shown} ${check.padEnd(14)} ${what}\n`;
}
