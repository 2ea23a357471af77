/** What holds after every run, whatever went wrong in it. */
import { join } from "node:path";
import type { Sandbox } from "../../lib/sandbox/sandbox.ts";
import { compileSecrets } from "../../lib/process/redactor.ts";
import { expectedOutput, LEFT_OUT, SECRET } from "./chaos_jobs.ts";
import { MOST_CRASHES } from "../../lib/job/job_run.ts";
import type { Phase } from "../../lib/phases.ts";
import { processesOf } from "./processes.ts";
import type { Submitted } from "./seed.ts";

/** What there is to look at. */
export interface Scene {
  sandbox: Sandbox;
  generation: "current" | "legacy";
  submitted: readonly Submitted[];
  folder: string;
  truth: string;
  agentIds: readonly string[];
  kills: Record<string, number>;
}

/** The three lines that open a phase's log. */
const BANNER = /^\*+\n\* Starting testflinger \w+ phase on \S+ \*\n\*+\n/;
/** What the agent itself may add when a phase did not end by itself. */
const AGENT_LINES =
  /^\n?(The agent was interrupted (during \w+|between phases)\n|Job cancellation was requested, exiting\.\n|The agent was stopped, ending the phase\.\n)+$/;

/** Whether nothing has happened to a job that may end it, or a phase of it. */
function isUndisturbed(scene: Scene, submitted: Submitted): boolean {
  const { cancelled, cutOff, damaged, forgotten } = submitted;
  return !cancelled && !cutOff && !damaged && !forgotten && scene.kills.SIGTERM === 0 &&
    scene.kills.reboot === 0 && !isGivenUp(scene, submitted);
}

/** Agents that were killed that often in succession end the job, and say so in its log. */
function isGivenUp({ kills, sandbox }: Scene, { jobId }: Submitted): boolean {
  return (kills.SIGKILL ?? 0) >= MOST_CRASHES &&
    /The agent was interrupted (during \w+|between phases)/.test(sandbox.log(jobId, "output"));
}

/** Everything that does not hold, one line each. */
export async function violations(scene: Scene): Promise<string[]> {
  const found: string[] = [];
  for (const submitted of scene.submitted) {
    const { jobId } = submitted;
    const wrong = (text: string) => found.push(`job ${jobId}: ${text}`);
    if (submitted.forgotten) continue;
    const state = scene.sandbox.state(jobId);
    if (state !== "complete") {
      wrong(`is ${state}, not complete`);
      continue;
    }
    if (submitted.damaged) {
      checkDamaged(scene, submitted, wrong);
      continue;
    }
    if (submitted.runs > 1) {
      checkRepeated(scene, submitted, wrong);
      continue;
    }
    checkOutput(scene, submitted, wrong);
    for (const [phase, printed] of OTHER_OUTPUT) {
      checkRuns(scene, jobId, { phase, printed }, wrong);
    }
    if (scene.generation === "current") checkFragments(scene, jobId, wrong);
    else checkLiveOutput(scene, jobId, wrong);
    if (scene.generation === "current") checkSerial(scene, submitted, wrong);
    await checkArtifact(scene, submitted, wrong);
    checkCleanup(scene, submitted, wrong);
  }
  checkSecret(scene, found);
  checkAgents(scene, found);
  await checkLeftovers(scene, found);
  return found;
}

/** A job of which the agent has lost something: what there is of its log is in order, and there once. */
function checkDamaged(scene: Scene, submitted: Submitted, wrong: Wrong): void {
  checkCleanup(scene, submitted, wrong);
  if (scene.generation === "legacy" || submitted.runs > 1) return;
  const numbers = [...scene.sandbox.log(submitted.jobId, "output").matchAll(/^line (\d+) of/gm)]
    .map((found) => Number(found[1]));
  const odd = numbers.findIndex((number, index) =>
    index > 0 && number <= (numbers[index - 1] ?? 0)
  );
  if (odd !== -1) wrong(`its log has line ${numbers[odd]} behind line ${numbers[odd - 1]}`);
}

/** A job that was handed out again after it was delivered: the runs are in its log one behind the other. */
function checkRepeated(scene: Scene, submitted: Submitted, wrong: Wrong): void {
  const { jobId, job } = submitted;
  checkCleanup(scene, submitted, wrong);
  const numbers = scene.sandbox.fragments(jobId, "output").map((each) => each.fragment_number);
  if (new Set(numbers).size < numbers.length) wrong(`its fragments are numbered ${numbers}`);
  const expected = expectedOutput(job, compileSecrets([SECRET]).redactText(SECRET));
  const runs = scene.sandbox.log(jobId, "output", "test").split(RUN_START).slice(1)
    .map((run) => run.replace(REMARKS, ""));
  const odd = runs.find((run) => !expected.startsWith(run) && !expected.startsWith(run.trimEnd()));
  if (odd !== undefined) {
    wrong(`a run of its test printed ${odd.length} characters that are not a beginning`);
  }
  const whole = runs.filter((run) => run === expected).length;
  if (isUndisturbed(scene, submitted) && whole !== submitted.runs) {
    wrong(`its log has ${whole} whole runs, not ${submitted.runs}`);
  }
}

type Wrong = (text: string) => void;

/** What the other phases print. */
const OTHER_OUTPUT = [
  ["setup", "setting up\n"],
  ["provision", "provisioning\nprovisioned\n"],
  ["cleanup", "cleaning\ncleaned\n"],
] as const;

/** What the agent may say in the log of a phase, wherever it was interrupted. */
const REMARKS =
  /^(The agent was interrupted (during \w+|between phases)|The agent was stopped, ending the phase\.|Job cancellation was requested, exiting\.|Cleanup is run again, since it was interrupted\.|ERROR: .*)\n/gm;

/** A run begins with a banner, or, where a reboot has cut short the one before, with a remark. */
const RUN_START =
  /\*+\n\* Starting testflinger \w+ phase on \S+ \*\n\*+\n|(?<=\n)Cleanup is run again, since it was interrupted\.\n/;

/** Each run of a phase (cleanup may have several) printed a beginning of its output, and no more. */
function checkRuns(
  scene: Scene,
  jobId: string,
  { phase, printed }: { phase: Phase; printed: string },
  wrong: Wrong,
): void {
  const log = scene.sandbox.log(jobId, "output", phase);
  const runs = log.split(RUN_START).slice(1)
    .map((run) => run.replace(REMARKS, "").replaceAll(LEFT_OUT, ""));
  const isOdd = (run: string) => !printed.startsWith(run) && !printed.startsWith(run.trimEnd());
  const odd = runs.find(isOdd);
  if (odd !== undefined) wrong(`its log of ${phase} is ${JSON.stringify(log)}`);
  if (phase !== "cleanup" && runs.length > 1) wrong(`its ${phase} ran ${runs.length} times`);
  const status = statusOf(scene, jobId, phase);
  if (status === 0 && runs.at(-1) !== printed) {
    wrong(`its ${phase} passed, but its log is ${JSON.stringify(log)}`);
  }
}

function statusOf(scene: Scene, jobId: string, phase: string): unknown {
  return scene.sandbox.result(jobId)?.[`${phase}_status`];
}

/** Byte for byte what the job printed, up to the point where it was killed. */
function checkOutput(scene: Scene, submitted: Submitted, wrong: Wrong): void {
  const { jobId, job } = submitted;
  const log = scene.sandbox.log(jobId, "output", "test");
  const status = statusOf(scene, jobId, "test");
  if (log === "") {
    if (isUndisturbed(scene, submitted)) wrong("its test did not run, though nothing ended it");
    if (status !== undefined) wrong(`its test has status ${status} and no log`);
    return;
  }
  const banner = BANNER.exec(log)?.[0];
  if (banner === undefined) {
    const isCut = AGENT_LINES.test(log) || log.startsWith("*");
    if (!isCut || status === job.exit) {
      wrong(`its log begins with ${JSON.stringify(log.slice(0, 80))}`);
    }
    return;
  }
  const printed = log.slice(banner.length);
  const expected = expectedOutput(job, compileSecrets([SECRET]).redactText(SECRET));
  let same = 0;
  while (same < printed.length && printed[same] === expected[same]) same++;
  const rest = printed.slice(same);
  const isWhole = same === expected.length;
  if (rest !== "" && !AGENT_LINES.test(rest)) {
    wrong(`its log goes wrong after ${same} characters: ${JSON.stringify(rest.slice(0, 120))}`);
  }
  if (!isWhole && rest === "") wrong(`its log ends after ${same} of ${expected.length} characters`);
  if (isUndisturbed(scene, submitted)) {
    if (!isWhole) wrong("its log is not whole, though nothing ended it");
    if (status !== job.exit) wrong(`its test has status ${status}, not ${job.exit}`);
  }
  if (status === job.exit && job.exit === 0 && !isWhole) {
    wrong("its test passed, but its log is not whole");
  }
}

/** Numbers from 0 up by one, each once. */
function checkFragments(scene: Scene, jobId: string, wrong: Wrong): void {
  const fragments = scene.sandbox.fragments(jobId, "output")
    .toSorted((a, b) => a.fragment_number - b.fragment_number);
  if (fragments.every(({ fragment_number }, index) => fragment_number === index)) return;
  const told = fragments.map((fragment) =>
    `${fragment.fragment_number} ${fragment.phase} ${
      JSON.stringify(fragment.log_data.slice(0, 60))
    } ${new Date(fragment.at).toISOString()}`
  );
  wrong(`its fragments are not numbered from 0 up by one:\n    ${told.join("\n    ")}`);
}

/** On the older generation what was posted live may stand there twice, but nothing may be missing. */
function checkLiveOutput(scene: Scene, jobId: string, wrong: Wrong): void {
  const live = new Set(scene.sandbox.log(jobId, "output").split("\n"));
  const missing = scene.sandbox.log(jobId, "output", "test").split("\n")
    .find((line) => !live.has(line));
  if (missing !== undefined) wrong(`its live output lacks ${JSON.stringify(missing)}`);
}

async function checkArtifact(scene: Scene, { jobId, job }: Submitted, wrong: Wrong): Promise<void> {
  const artifact = scene.sandbox.artifact(jobId);
  if (!job.artifact || statusOf(scene, jobId, "test") !== job.exit || job.exit !== 0) return;
  if (artifact === undefined) return wrong("its artifact is missing");
  const path = join(scene.folder, `${jobId}.tar.gz`);
  await Deno.writeFile(path, artifact);
  const { code, stdout } = await new Deno.Command("tar", {
    args: ["xzOf", path, "artifacts/numbers"],
    stderr: "null",
  }).output();
  const expected = Array.from({ length: 20000 }, (_, i) => `${i + 1}\n`).join("");
  if (code !== 0 || new TextDecoder().decode(stdout) !== expected) wrong("its artifact is damaged");
}

/** Holes are no bytes of a log, and what is behind them is there. */
function checkSerial(scene: Scene, { jobId, job }: Submitted, wrong: Wrong): void {
  const log = scene.sandbox.log(jobId, "serial", "test").replaceAll("\0", "");
  if (!job.serial) {
    if (log !== "") wrong("it has a serial log");
    return;
  }
  if (log.length > 1000) wrong(`its serial log has ${log.length} characters`);
  // A stop leaves little time for it; what is missing then is said.
  const isCut = /\[The last \d+ bytes of the serial log are left out\.\]\n$/.test(log);
  if (job.exit !== 0 || statusOf(scene, jobId, "test") !== 0 || isCut) return;
  if (
    !log.startsWith("booting\n") ||
    !log.endsWith(`${compileSecrets([SECRET]).redactText(SECRET)}\n`)
  ) {
    wrong(`its serial log is ${JSON.stringify(log)}`);
  }
}

/** Cleanup ran once, or was completed. */
function checkCleanup(scene: Scene, submitted: Submitted, wrong: Wrong): void {
  const { damaged, jobId, runs } = submitted;
  let notes = "";
  try {
    notes = Deno.readTextFileSync(join(scene.truth, jobId));
  } catch {
    // It never began.
  }
  const ends = notes.split("\n").filter((line) => line === "end").length;
  // One that takes the agent down again and again is ended, too.
  if (ends === 0 && !isGivenUp(scene, submitted)) wrong("its cleanup was never completed");
  // A journal that has lost that cleanup had ended has it run again.
  const mayRepeat = damaged || scene.kills.reboot !== 0;
  if (ends > runs && !mayRepeat) wrong(`its cleanup was completed ${ends} times`);
  // Or it has lost with which status.
  if (!damaged && statusOf(scene, jobId, "cleanup") === undefined) {
    wrong("its cleanup has no status");
  }
}

function checkSecret(scene: Scene, found: string[]): void {
  for (const { jobId } of scene.submitted) {
    const everything = JSON.stringify([
      scene.sandbox.log(jobId, "output"),
      scene.sandbox.log(jobId, "serial"),
      scene.sandbox.result(jobId),
      scene.sandbox.events(jobId),
      scene.agentIds.map((id) => [scene.sandbox.agent(id), scene.sandbox.provisionLogs(id)]),
    ]);
    if (everything.includes(SECRET)) found.push(`job ${jobId}: its secret is on the server`);
  }
}

/** Also when the server has forgotten the agent on the way, it knows all of it in the end. */
function checkAgents({ sandbox, agentIds }: Scene, found: string[]): void {
  for (const agentId of agentIds) {
    const record = sandbox.agent(agentId);
    if (record?.queues?.[0] !== "chaos") {
      found.push(`the server knows ${agentId} as ${JSON.stringify({ ...record, log: [] })}`);
    }
  }
}

/** No process of any job lives, and nothing is left on the disk. */
async function checkLeftovers(scene: Scene, found: string[]): Promise<void> {
  for (const { jobId } of scene.submitted) {
    const alive = await processesOf([jobId]);
    if (alive.length > 0) found.push(`job ${jobId}: processes live on: ${alive.join(" ")}`);
  }
  const leftIn = (path: string) => {
    const entries = [...listing(path)].map(({ name }) => name);
    if (entries.length > 0) found.push(`left in ${path}: ${entries.join(" ")}`);
  };
  leftIn(join(scene.folder, "run"));
  for (const id of scene.agentIds) leftIn(join(scene.folder, "results", `agent-${id}`, "jobs"));
}

function listing(path: string): Iterable<Deno.DirEntry> {
  try {
    return Deno.readDirSync(path);
  } catch {
    return []; // Nothing was ever put there.
  }
}
