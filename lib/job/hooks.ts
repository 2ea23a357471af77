/**
 * Programs of the lab that run before and after a job and its phases: `hooks_dir`. They are run by the
 * shell of the phase itself, so that all that holds for a phase's command holds for them: its user and
 * environment, its log, its limits, and that it goes on while the agent is away.
 */
import { join, resolve } from "../path.ts";
import { type Phase, PHASES } from "../phases.ts";
import { shellWord } from "../shell.ts";

/** All hooks that there can be. */
export const HOOK_NAMES: readonly string[] = ["job", ...PHASES]
  .flatMap((name) => [`pre-${name}`, `post-${name}`]);

/** The command of a phase with the hooks that there are; without any, the command as it is. */
export function withHooks(phase: Phase, command: string, hooksDir: string | undefined): string {
  if (hooksDir === undefined) return command;
  const folder = resolve(hooksDir);
  const ifThere = (isDue: boolean, name: string) =>
    isDue && isFile(join(folder, name)) ? [join(folder, name)] : [];
  const before = [
    ...ifThere(phase === "setup", "pre-job"),
    ...ifThere(command !== "", `pre-${phase}`),
  ];
  const after = [
    ...ifThere(command !== "", `post-${phase}`),
    ...ifThere(phase === "cleanup", "post-job"),
  ];
  if (before.length === 0 && after.length === 0) return command;
  return [
    ...before.map((hook) => `${run(hook)} || { ${fail(hook, phase)}; }`),
    `( ${command === "" ? ":" : `eval ${shellWord(command)}`} )`,
    // For the hooks that come now.
    "TESTFLINGER_PHASE_STATUS=$?; export TESTFLINGER_PHASE_STATUS",
    ...after.map((hook) => `${run(hook)} || ${say("WARNING", hook, "$?.")}`),
    'exit "$TESTFLINGER_PHASE_STATUS"',
  ].join("\n");
}

function run(hook: string): string {
  return `{ echo "Running the hook "${shellWord(hook)}; ${shellWord(hook)}; }`;
}

/** A status of 46 would say that the device is lost, which is a connector's to say. */
function fail(hook: string, phase: Phase): string {
  const what = say("ERROR", hook, `$1, so the ${phase} phase does not run.`);
  return `set -- $?; ${what}; [ "$1" -ne 46 ] || exit 1; exit "$1"`;
}

function say(level: string, hook: string, end: string): string {
  return `echo "${level}: The hook "${shellWord(hook)}" failed with exit status ${end}"`;
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
