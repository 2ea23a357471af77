import { isAbsolute, join } from "node:path";
import type { ConnectorContext } from "../connector.ts";
import { need } from "./config.ts";
import { type Credentials, credentials } from "./job.ts";
import type { CommandOptions, CommandResult } from "./runner.ts";

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
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** Remote paths that scp leaves alone, whichever protocol it speaks. */
const PLAIN_REMOTE_PATH = /^[A-Za-z0-9_./~+,:@%=-]+$/;

/** The device, by its keys; give `password` where a password is wanted. */
export function deviceTarget(
  ctx: ConnectorContext,
  login: { readonly user: string; readonly password?: string },
): SshTarget {
  return { host: need(ctx.config, "device_ip"), port: ctx.config.ssh_port, ...login };
}

/** The control host, by its keys. */
export function controlHostTarget(ctx: ConnectorContext): SshTarget {
  const { config } = ctx;
  return {
    host: need(config, "control_host"),
    // The same rule as for job users: a name cannot be an option.
    user: credentials({}, { user: config.control_user, password: "" }).user,
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
export function withPassword(argv: readonly string[], password: string | undefined): Invocation {
  // Without a terminal ssh would ask a graphical program, where one is installed.
  const env = { SSH_ASKPASS_REQUIRE: "never" };
  return password === undefined
    ? { argv, env }
    : { argv: ["sshpass", "-e", ...argv], env: { ...env, SSHPASS: password } };
}

/** `-p 2222` or `-P 2222`, only where the port is not the usual one. */
export function portOption(target: SshTarget, option: "-p" | "-P"): string[] {
  return target.port === undefined || target.port === 22 ? [] : [option, String(target.port)];
}

/** The invocation that runs `command` (a shell command line: `quote` what is not yours) on a target. */
export function sshInvocation(target: SshTarget, command: string): Invocation {
  const argv = [
    "ssh",
    ...connectionOptions(target),
    ...portOption(target, "-p"),
    destination(target),
    command,
  ];
  return withPassword(argv, target.password);
}

/**
 * Runs a shell command line on a target. The status is that of the remote command; 255 is ssh's own
 * failure.
 */
export function ssh(
  ctx: ConnectorContext,
  target: SshTarget,
  command: string,
  options: CommandOptions,
): Promise<CommandResult> {
  const { argv, env } = sshInvocation(target, command);
  return ctx.runner.run(argv, { ...options, env: { ...options.env, ...env } });
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
  options: CommandOptions,
): Promise<CommandResult> {
  if (!PLAIN_REMOTE_PATH.test(paths.remote)) {
    throw new Error(`Cannot copy to '${paths.remote}': it has characters that a shell would read`);
  }
  const { argv, env } = withPassword([
    "scp",
    ...connectionOptions(target),
    ...portOption(target, "-P"),
    // An absolute path cannot be an option, nor host:path.
    isAbsolute(paths.local) ? paths.local : join(ctx.cwd, paths.local),
    `${target.user}@${bracketed(target.host)}:${paths.remote}`,
  ], target.password);
  return ctx.runner.run(argv, { ...options, env: { ...options.env, ...env } });
}

/** A host as URLs and scp write it: IPv6 addresses in brackets. */
export function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

/** Quotes one word for a POSIX shell. */
export function quote(word: string): string {
  return /^[A-Za-z0-9_./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** The job's login on the device, for `deviceTarget`: no password, so keys only. */
export async function jobLogin(
  ctx: ConnectorContext,
  defaults?: Credentials,
): Promise<{ user: string }> {
  return { user: credentials(await ctx.readJob(), defaults).user };
}
