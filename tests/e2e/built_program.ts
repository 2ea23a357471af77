/** The program as users have it: the built file, not the checkout's modules. */
import { sharedBuild } from "../packaging/support/built.ts";
import {
  type AgentProcess,
  type ProgramOptions,
  startProgram as startAny,
} from "../support/agent_process.ts";

const built = await sharedBuild();

/** The built file. */
export const PROGRAM = built.program;

/** Starts the built file with `args`. */
export function startProgram(
  args: readonly string[],
  options: Omit<ProgramOptions, "program"> = {},
): AgentProcess {
  return startAny(args, {
    ...options,
    program: PROGRAM,
    env: { ...built.env, ...options.env },
  });
}
