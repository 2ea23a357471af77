/** What `testflinger-agent doctor` does. */
import { systemClock } from "../../clock.ts";
import { messageOf } from "../../message.ts";
import { readAgentRef, SHARED_FOLDER } from "../agents/agent_ref.ts";
import { agentUser } from "../agents/agent_user.ts";
import { chooseAgents } from "../agents/choose.ts";
import {
  type CommandLine,
  DEFAULT_TOKEN_FILE,
  type Io,
  readFormat,
  USAGE_STATUS,
} from "../command.ts";
import { deviceChecks } from "./device_checks.ts";
import {
  configurationCheck,
  foldersCheck,
  groupsCheck,
  lockCheck,
  markersCheck,
  openFilesCheck,
  spaceCheck,
} from "./host_checks.ts";
import { serverChecks } from "./server_checks.ts";
import { type Check, type CheckResult, type Examined, failed, ok } from "./check_result.ts";

const CHECKS: readonly Check[] = [
  configurationCheck,
  foldersCheck,
  spaceCheck,
  lockCheck,
  openFilesCheck,
  groupsCheck,
  markersCheck,
  serverChecks,
  deviceChecks,
];

/** The configuration cannot be used: nothing else can be looked at. */
const CONFIG_STATUS = 2;

/** Runs every check, and tells of each as soon as it has been made. */
export async function diagnose(
  examined: Examined,
  tell: (checkResult: CheckResult) => void,
): Promise<void> {
  for (const check of CHECKS) {
    try {
      for (const checkResult of await check(examined)) tell(checkResult);
    } catch (error) {
      // One check that fails in a way that nobody thought of must not hide the others.
      const reason = messageOf(error);
      tell(failed("doctor", `a check could not be made: ${reason}`, "please report this"));
    }
  }
}

/** What was found about one agent. */
interface Report {
  agent_id: string;
  failed: number;
  checkResults: CheckResult[];
}

/** Runs the command: for one agent all that is found, for several of each what is not well. */
export async function runDoctor(line: CommandLine, io: Io): Promise<number> {
  const format = readFormat(line, io);
  if (format === undefined) return USAGE_STATUS;
  const chosen = await chooseAgents(line, io, { manyByDefault: false });
  const hint = "'testflinger-agent check FILE' tells all about a configuration\n";
  if (chosen?.isComplete !== true) io.stderr(hint);
  if (chosen === undefined) return CONFIG_STATUS;
  const { agents } = chosen;
  const isColoured = Deno.stdout.isTerminal() && (Deno.env.get("NO_COLOR") ?? "") === "";
  const isOne = agents.length === 1 && (line.lists.config ?? []).length < 2 &&
    !line.switches.has("all") &&
    (line.values["config-dir"] === undefined || line.positionals.length > 0);
  const reports: Report[] = [];
  let unreadable = 0;
  for (const { id: agent_id, file } of agents) {
    const read = await readAgentRef(file);
    if (!read.ok) {
      unreadable++;
      continue;
    }
    const { agent } = read;
    const checkResults: CheckResult[] = [];
    if (format === "text" && !isOne) io.stdout(`${agent_id}\n`);
    await diagnose({
      agent,
      user: await agentUser(agent),
      tokenFile: agent.config.token_file ?? line.values["token-file"] ?? DEFAULT_TOKEN_FILE,
      env: Deno.env.toObject(),
      clock: systemClock,
      sharedFolder: SHARED_FOLDER,
    }, (checkResult) => {
      checkResults.push(checkResult);
      const isShown = isOne || checkResult.result === "failed" || checkResult.result === "warning";
      if (format === "text" && isShown) {
        io.stdout(`${isOne ? "" : "  "}${resultLine(checkResult, isColoured)}`);
      }
    });
    const failed = checkResults.filter(({ result }) => result === "failed").length;
    if (format === "text" && !isOne && checkResults.every(({ result }) => result === "ok")) {
      io.stdout(`  ${resultLine(ok("all", `${checkResults.length} checks`), isColoured)}`);
    }
    reports.push({ agent_id, failed, checkResults });
  }
  if (format === "json") {
    io.stdout(`${JSON.stringify(isOne ? reports[0] : reports, null, 2)}\n`);
  }
  if (unreadable > 0 && chosen.isComplete) io.stderr(hint);
  if (!chosen.isComplete || unreadable > 0) return CONFIG_STATUS;
  return reports.every(({ failed }) => failed === 0) ? 0 : 1;
}

const COLOURS = { ok: 32, warning: 33, failed: 31, skipped: 2 };

/** `ok       server        ... ` with the advice behind an arrow. */
function resultLine({ check, result, message, advice }: CheckResult, isColoured: boolean): string {
  const word = result.padEnd(8);
  const shown = isColoured ? `\x1b[${COLOURS[result]}m${word}\x1b[0m` : word;
  const what = advice === undefined ? message : `${message} -> ${advice}`;
  return `${shown} ${check.padEnd(14)} ${what}\n`;
}
