import type { ConnectorContext } from "../context.ts";
import type { CommandResult } from "../support/process/runner.ts";
import { type Remote, remote, type RemoteOptions, type RemoteStep } from "../support/ssh/remote.ts";
import { controlHostTarget } from "../support/ssh/ssh.ts";

/** Runs a shell command line on the control host; see `Remote.run`. */
export function control(
  ctx: ConnectorContext,
  command: string,
  options?: RemoteOptions,
): Promise<CommandResult> {
  return controlHost(ctx).run(command, options);
}

/** Runs a command on the control host that must work; see `Remote.must`. */
export function mustControl(ctx: ConnectorContext, step: RemoteStep): Promise<string> {
  return controlHost(ctx).must(step);
}

/** The control host, for many commands. */
export function controlHost(ctx: ConnectorContext): Remote {
  return remote(ctx, controlHostTarget(ctx), "control host");
}
