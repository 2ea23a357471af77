import type { ConnectorContext } from "../context.ts";
import { type CommandResult, expectSuccess } from "../support/process/runner.ts";
import { controlHostTarget, ssh } from "../support/ssh/ssh.ts";

/** What ssh itself returns when the connection could not be had, or was lost. */
const SSH_FAILED = 255;

const ATTEMPTS = 13;
const PAUSE_MS = 5_000;

/** For one attempt, where nothing else is said. */
export const COMMAND_TIMEOUT_MS = 60_000;

/** How to run a command on the control host. */
export interface ControlOptions {
  /** For one attempt. @default 60 s */
  readonly timeoutMs?: number;
  /** Told what the command prints, as it comes. */
  readonly onOutput?: (bytes: Uint8Array) => Promise<void>;
  /** How often a connection is tried. @default 13 */
  readonly attempts?: number;
}

/**
 * Runs a shell command line on the control host. Only a failure of ssh itself is tried again, every
 * 5 s: what the command says, it says for good.
 */
export async function control(
  ctx: ConnectorContext,
  command: string,
  options: ControlOptions = {},
): Promise<CommandResult> {
  const target = controlHostTarget(ctx);
  const { timeoutMs = COMMAND_TIMEOUT_MS, attempts = ATTEMPTS, onOutput } = options;
  const output = onOutput === undefined ? {} : { onOutput };
  for (let attempt = 1;; attempt++) {
    const result = await ssh(ctx, target, command, { timeoutMs, ...output });
    if (!isLost(result) || attempt >= attempts) return result;
    ctx.log.warning(
      `The control host ${target.host} does not answer (attempt ${attempt} of ${attempts}): ` +
        ("stderr" in result ? result.stderr.trim() : ""),
    );
    await ctx.clock.sleep(PAUSE_MS, ctx.signal);
  }
}

/** Was the connection lost, or never there, so that nobody knows what the command did? */
export function isLost(result: CommandResult): boolean {
  return result.ended === "exited" && result.status === SSH_FAILED;
}

/** A command that must work. */
export interface ControlStep extends ControlOptions {
  /** What it is for, as the object of "Cannot": "mount the image". */
  readonly step: string;
  /** The program that does it, for messages. */
  readonly program: string;
  readonly command: string;
}

/**
 * Runs a command on the control host that must work.
 *
 * @returns its standard output.
 * @throws ProvisioningError naming the step, the program, and how it ended.
 */
export async function mustControl(ctx: ConnectorContext, step: ControlStep): Promise<string> {
  const result = await control(ctx, step.command, step);
  expectSuccess(result, step);
  return result.stdout;
}
