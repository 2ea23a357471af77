import { isAbsolute, join } from "../../../lib/path.ts";
import type { ConnectorContext, PrepareContext } from "../../context.ts";
import { need } from "../config.ts";
import { ProvisioningError } from "../errors.ts";
import { checkUserName } from "../job.ts";
import { hasProgram } from "../process/programs.ts";
import { type CommandOptions, type CommandResult, failureText } from "../process/runner.ts";

/** Where, as whom, and how to log in by ssh. */
export interface SshTarget {
  readonly host: string;
  readonly user: string;
  /** @default 22 */
  readonly port?: number;
  /** Unset: keys only, never a question (BatchMode). */
  readonly password?: string;
  /** Check the host's key against this file. Unset: any key will do, devices are reinstalled. */
  readonly knownHosts?: string | undefined;
}

/** A program with the variables that it alone gets (a password, for sshpass). */
export interface Invocation {
  /** The program itself, which is not the first word where sshpass is in front. */
  readonly program: string;
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** How to run ssh or scp once. */
export interface SshOptions extends CommandOptions {
  /** Options by which a shared connection is used. @default a connection of its own */
  readonly shared?: readonly string[];
  /** A shell command on this host that the input goes through on its way to ssh. */
  readonly filter?: string;
}

/** Remote paths that scp leaves alone, whichever protocol it speaks. */
const PLAIN_REMOTE_PATH = /^[A-Za-z0-9_./~+,:@%=-]+$/;

/** The device, by its keys; give `password` where a password is wanted. */
export function deviceTarget(
  { config }: Pick<PrepareContext, "config">,
  login: { readonly user: string; readonly password?: string },
): SshTarget {
  return { host: need(config, "device_ip"), port: config.ssh_port, ...login };
}

/** The control host, by its keys. */
export function controlHostTarget({ config }: Pick<PrepareContext, "config">): SshTarget {
  checkUserName(config.control_user);
  return {
    host: need(config, "control_host"),
    user: config.control_user,
    port: config.control_host_ssh_port,
    knownHosts: config.control_host_known_hosts,
  };
}

/** `user@host`, as ssh takes it. */
export function destination(target: SshTarget): string {
  return `${target.user}@${target.host}`;
}

/** The four words that turn host key checking off, or those that turn it on. */
export function hostKeyOptions(target: SshTarget): string[] {
  return target.knownHosts === undefined
    ? ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    : ["-o", "StrictHostKeyChecking=yes", "-o", `UserKnownHostsFile=${target.knownHosts}`];
}

/** Options that ssh and scp have in common: no host key trouble, no waiting for ever, no questions. */
function connectionOptions(target: SshTarget): string[] {
  return [
    ...hostKeyOptions(target),
    "-o",
    "ConnectTimeout=10",
    "-o",
    "ServerAliveInterval=15",
    "-o",
    "ServerAliveCountMax=4",
    "-o",
    "LogLevel=ERROR",
    "-o",
    target.password === undefined ? "BatchMode=yes" : "NumberOfPasswordPrompts=1",
  ];
}

/** Puts sshpass in front where there is a password: through the environment, never in argv. */
export function withPassword(
  argv: readonly [string, ...string[]],
  password: string | undefined,
): Invocation {
  const [program] = argv;
  // Without a terminal ssh would ask a graphical program, where one is installed.
  const env = { SSH_ASKPASS_REQUIRE: "never" };
  return password === undefined
    ? { program, argv, env }
    : { program, argv: ["sshpass", "-e", ...argv], env: { ...env, SSHPASS: password } };
}

/**
 * Runs it.
 *
 * @returns `not_started` also where it is not sshpass that is missing but the program behind it,
 *   of which sshpass would only say that it failed.
 */
export async function runInvocation(
  ctx: ConnectorContext,
  { program, argv, env }: Invocation,
  options: CommandOptions,
): Promise<CommandResult> {
  if (argv[0] !== program && !await hasProgram(ctx, program)) {
    return { ended: "not_started", message: `no such program in PATH: ${program}` };
  }
  return await ctx.runner.run(argv, { ...options, env: { ...options.env, ...env } });
}

/** `-p 2222` or `-P 2222`, only where the port is not the usual one. */
export function portOption(target: SshTarget, option: "-p" | "-P"): string[] {
  return target.port === undefined || target.port === 22 ? [] : [option, String(target.port)];
}

/** The invocation that runs `command` (a shell command line: `quote` what is not yours) on a target. */
export function sshInvocation(
  target: SshTarget,
  command: string,
  shared: readonly string[] = [],
): Invocation {
  return withPassword([
    "ssh",
    ...connectionOptions(target),
    ...shared,
    ...portOption(target, "-p"),
    destination(target),
    command,
  ], target.password);
}

/**
 * Runs a shell command line on a target. The status is that of the remote command; 255 is ssh's own
 * failure.
 *
 * @throws ProvisioningError when this host has no ssh (or no sshpass, where there is a password).
 */
export function ssh(
  ctx: ConnectorContext,
  target: SshTarget,
  command: string,
  { shared, filter, ...options }: SshOptions,
): Promise<CommandResult> {
  const plain = sshInvocation(target, command, shared);
  const invocation = filter === undefined
    ? plain
    : { ...plain, argv: ["/bin/sh", "-c", `{ ${filter}; } | "$@"`, "sh", ...plain.argv] };
  return invoke(ctx, invocation, { target, options });
}

/** How a command that was run by `ssh` failed, in one sentence and the last lines of its output. */
export function sshFailureText(target: SshTarget, command: string, result: CommandResult): string {
  const program = target.password === undefined ? "ssh" : "sshpass ssh";
  return failureText(`${program} ${destination(target)} ${command}`, result);
}

/**
 * Copies a local file to a target.
 *
 * @param paths `local` is relative to the job's folder; `remote` must be made of characters that
 *   no shell treats specially.
 */
export function scpTo(
  ctx: ConnectorContext,
  target: SshTarget,
  paths: { readonly local: string; readonly remote: string },
  { shared = [], ...options }: SshOptions,
): Promise<CommandResult> {
  if (!PLAIN_REMOTE_PATH.test(paths.remote)) {
    throw new Error(`Cannot copy to '${paths.remote}': it has characters that a shell would read`);
  }
  const invocation = withPassword([
    "scp",
    ...connectionOptions(target),
    ...shared,
    ...portOption(target, "-P"),
    // An absolute path cannot be an option, nor host:path.
    isAbsolute(paths.local) ? paths.local : join(ctx.cwd, paths.local),
    `${target.user}@${bracketed(target.host)}:${paths.remote}`,
  ], target.password);
  return invoke(ctx, invocation, { target, options });
}

async function invoke(
  ctx: ConnectorContext,
  invocation: Invocation,
  { target, options }: { readonly target: SshTarget; readonly options: CommandOptions },
): Promise<CommandResult> {
  const result = await runInvocation(ctx, invocation, options);
  if (result.ended !== "not_started") return result;
  // Not the device's fault: no reset and no waiting would help.
  throw new ProvisioningError(
    `Cannot reach ${destination(target)}: ${failureText(invocation.program, result)}`,
  );
}

/** A host as URLs and scp write it: IPv6 addresses in brackets. */
export function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

/** Quotes one word for a POSIX shell. */
export { shellWord as quote } from "../../../lib/shell.ts";
