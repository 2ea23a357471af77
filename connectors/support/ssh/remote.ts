import type { ConnectorContext } from "../../context.ts";
import { type CommandOptions, type CommandResult, expectSuccess } from "../process/runner.ts";
import { controlHostTarget, quote, scpTo, ssh, type SshTarget } from "./ssh.ts";

/** What ssh itself returns when the connection could not be had, or was lost. */
const SSH_FAILED = 255;

/** How often a connection is tried, where nothing else is said. */
export const REMOTE_ATTEMPTS = 13;
/** Between two attempts, where nothing else is said. */
export const REMOTE_PAUSE_MS = 5_000;
/** For one attempt, where nothing else is said. */
export const REMOTE_TIMEOUT_MS = 60_000;

/** How to run a command on a remote host. */
export interface RemoteOptions extends Partial<CommandOptions> {
  /** For one attempt. @default 60 s */
  readonly timeoutMs?: number;
  /** How often a connection is tried; once where the input is a stream. @default 13 */
  readonly attempts?: number;
  /** Between attempts. @default 5 s */
  readonly pauseMs?: number;
  /** A shell command on this host that the input goes through on its way. */
  readonly filter?: string;
}

/** A command that must work. */
export interface RemoteStep extends RemoteOptions {
  /** What it is for, as the object of "Cannot": "mount the image". */
  readonly step: string;
  /** The program that does it, for messages. */
  readonly program: string;
  readonly command: string;
}

/** A file that is copied, and must arrive. */
export interface RemoteCopy extends Omit<RemoteOptions, "input"> {
  readonly step: string;
  /** Path on this host, relative to the job's folder. */
  readonly local: string;
  /** Path over there, of characters that no shell treats specially. */
  readonly remote: string;
}

/** A text that is written to a file, and must arrive. */
export interface RemoteText extends Omit<RemoteOptions, "input"> {
  readonly step: string;
  readonly path: string;
  readonly text: string;
  /** @default 0o600 */
  readonly mode?: number;
  /** As root. @default false */
  readonly sudo?: boolean;
}

/**
 * A host that a stage runs many commands on: over one shared connection, which is closed at the end
 * of the stage. Only a failure of ssh itself is tried again; what a command says, it says for good.
 */
export interface Remote {
  readonly target: SshTarget;
  /**
   * Runs a shell command line: `quote` what is not yours. It may run twice where the connection is
   * lost in the middle. No secret belongs in it: give that as `input`.
   */
  run(command: string, options?: RemoteOptions): Promise<CommandResult>;
  /**
   * The same for a command that must work.
   *
   * @returns its standard output.
   * @throws ProvisioningError naming the step, the program, and how it ended.
   */
  must(step: RemoteStep): Promise<string>;
  /** Copies a file with scp. Throws ProvisioningError when it does not arrive. */
  copy(copy: RemoteCopy): Promise<void>;
  /**
   * Writes a file by standard input, so that its text is in no argument of any program. Throws
   * ProvisioningError when it does not arrive.
   */
  write(text: RemoteText): Promise<void>;
  /** Gives the shared connection up, before a host reboots. The next command makes another. */
  disconnect(): Promise<void>;
}

/**
 * A host to run many commands on.
 *
 * @param name for messages, such as "control host".
 */
export function remote(ctx: ConnectorContext, target: SshTarget, name = "device"): Remote {
  async function retry(
    attempt: (shared: readonly string[], timeoutMs: number) => Promise<CommandResult>,
    { timeoutMs = REMOTE_TIMEOUT_MS, attempts = REMOTE_ATTEMPTS, pauseMs = REMOTE_PAUSE_MS }:
      RemoteOptions,
  ): Promise<CommandResult> {
    for (let n = 1;; n++) {
      const result = await attempt(await ctx.connections.options(target), timeoutMs);
      // A connection that hangs would hang for the next command, too.
      if (isLost(result) || result.ended === "timeout") await ctx.connections.drop(ctx, target);
      if (!isLost(result) || n >= attempts) return result;
      ctx.log.warning(
        `The ${name} ${target.host} does not answer (attempt ${n} of ${attempts}): ` +
          ("stderr" in result ? result.stderr.trim() : ""),
      );
      await ctx.clock.sleep(pauseMs, ctx.signal);
    }
  }

  const it: Remote = {
    target,
    run(command, options = {}) {
      // A stream can be read only once.
      const once = options.input instanceof ReadableStream ? { attempts: 1 } : {};
      return retry(
        (shared, timeoutMs) => ssh(ctx, target, command, { ...options, timeoutMs, shared }),
        { ...options, ...once },
      );
    },
    async must(step) {
      const { step: _, program: __, command, ...options } = step;
      const result = await it.run(command, options);
      expectSuccess(result, step);
      return result.stdout;
    },
    async copy({ step, local, remote, ...options }) {
      const result = await retry(
        (shared, timeoutMs) =>
          scpTo(ctx, target, { local, remote }, { ...options, timeoutMs, shared }),
        options,
      );
      expectSuccess(result, { step, program: "scp" });
    },
    async write({ step, path, text, mode = 0o600, sudo = false, ...options }) {
      await it.must({
        ...options,
        step,
        program: "cat",
        input: text,
        command: `${sudo ? "sudo " : ""}sh -c ` +
          `'umask 077 && cat > "$0" && chmod ${mode.toString(8)} "$0"' ${quote(path)}`,
      });
    },
    disconnect: () => ctx.connections.drop(ctx, target),
  };
  return it;
}

/** The control host, to run many commands on. */
export function controlHost(ctx: ConnectorContext): Remote {
  return remote(ctx, controlHostTarget(ctx), "control host");
}

/** Was the connection lost, or never there, so that nobody knows what the command did? */
export function isLost(result: CommandResult): boolean {
  return result.ended === "exited" && result.status === SSH_FAILED;
}
