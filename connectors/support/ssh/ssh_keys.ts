import { join } from "../../../lib/path.ts";
import type { ConnectorContext, PrepareContext } from "../../context.ts";
import { fullMessageOf, ProvisioningError } from "../errors.ts";
import { failureText, succeeded } from "../process/runner.ts";
import {
  destination,
  hostKeyOptions,
  portOption,
  runInvocation,
  type SshTarget,
  withPassword,
} from "./ssh.ts";

const COPY_ATTEMPTS = 10;
const COPY_PAUSE_MS = 60_000;
const COPY_TIMEOUT_MS = 30_000;

const IMPORT_ATTEMPTS = 10;
const IMPORT_TIMEOUT_MS = 30_000;
const IMPORT_LONGEST_PAUSE_MS = 100_000;

/** What ssh-import-id prints for a user that does not exist: trying again is no use. */
const NO_SUCH_USER = "status_code=404";

/** The agent's own public keys, best first. */
const KEY_NAMES = ["id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"];

/** How to install a public key on a target. */
export interface CopyKeyOptions {
  /** Public key file. @default `ssh_public_key`, or what ssh-copy-id takes when that is not set */
  readonly keyFile?: string;
  /** `-f`: do not look whether the key works already. @default false */
  readonly force?: boolean;
  /** For one attempt. @default 30 s */
  readonly timeoutMs?: number;
  /** @default 10 */
  readonly attempts?: number;
  /** Between attempts. @default 60 s */
  readonly pauseMs?: number;
}

/** Whether it worked, and if not, why not. */
export type CopyKeyResult =
  | { readonly ok: true }
  /** `missing`: this host has no ssh-copy-id (or no sshpass), so the device is not to blame. */
  | { readonly ok: false; readonly why: string; readonly missing: boolean };

/** Installs a public key on a target with ssh-copy-id. A password goes by `sshpass -e`. */
export async function copySshKey(
  ctx: ConnectorContext,
  target: SshTarget,
  options: CopyKeyOptions = {},
): Promise<CopyKeyResult> {
  const attempts = options.attempts ?? COPY_ATTEMPTS;
  const keyFile = options.keyFile ?? ctx.config.ssh_public_key;
  const invocation = withPassword([
    "ssh-copy-id",
    ...(options.force ? ["-f"] : []),
    ...(keyFile === undefined ? [] : ["-i", keyFile]),
    ...hostKeyOptions(target),
    "-o",
    "ConnectTimeout=10",
    "-o",
    "NumberOfPasswordPrompts=1",
    ...portOption(target, "-p"),
    destination(target),
  ], target.password);
  const program = target.password === undefined ? "ssh-copy-id" : "sshpass ssh-copy-id";
  for (let attempt = 1;; attempt++) {
    const result = await runInvocation(ctx, invocation, {
      timeoutMs: options.timeoutMs ?? COPY_TIMEOUT_MS,
    });
    if (succeeded(result)) return { ok: true };
    const why = failureText(program, result);
    const missing = result.ended === "not_started";
    if (attempt >= attempts || missing) return { ok: false, why, missing };
    ctx.log.warning(`Cannot copy the ssh key to ${destination(target)} yet: ${why}`);
    await ctx.clock.sleep(options.pauseMs ?? COPY_PAUSE_MS, ctx.signal);
  }
}

/** Whether a key could be had, and if not, why not. */
export type ImportKeyResult =
  | { readonly ok: true; readonly keys: string }
  | { readonly ok: false; readonly why: string };

/**
 * Gets a person's public keys with ssh-import-id.
 *
 * @param options.entry `lp:name` or `gh:name`.
 * @param options.file where to put them, relative to the job's folder; overwritten.
 */
export async function importSshKey(
  ctx: ConnectorContext,
  options: { readonly entry: string; readonly file: string },
): Promise<ImportKeyResult> {
  const path = join(ctx.cwd, options.file);
  for (let attempt = 0;; attempt++) {
    await Deno.remove(path).catch(() => {});
    const result = await ctx.runner.run(
      ["ssh-import-id", "-o", options.file, "--", options.entry],
      { timeoutMs: IMPORT_TIMEOUT_MS },
    );
    if (succeeded(result)) {
      const keys = await Deno.readTextFile(path).catch(() => "");
      if (keys.trim() !== "") return { ok: true, keys };
      return { ok: false, why: "'ssh-import-id' brought no key" };
    }
    const why = failureText("ssh-import-id", result);
    const hopeless = result.ended === "not_started" || why.includes(NO_SUCH_USER) ||
      (result.ended === "exited" && `${result.stdout}${result.stderr}`.includes(NO_SUCH_USER));
    if (hopeless || attempt + 1 >= IMPORT_ATTEMPTS) return { ok: false, why };
    ctx.log.warning(`Cannot import ssh key '${options.entry}' yet: ${why}`);
    await ctx.clock.sleep(Math.min(2 ** attempt * 1000, IMPORT_LONGEST_PAUSE_MS), ctx.signal);
  }
}

/**
 * The agent's own public key file.
 *
 * @throws ProvisioningError when there is none, saying where it was looked for.
 */
export async function publicKeyFile(
  { config, env }: Pick<PrepareContext, "config" | "env">,
): Promise<string> {
  const folder = join(env.HOME ?? "/", ".ssh");
  const files = config.ssh_public_key === undefined
    ? KEY_NAMES.map((name) => join(folder, name))
    : [config.ssh_public_key];
  for (const file of files) {
    if (await Deno.stat(file).then((info) => info.isFile, () => false)) return file;
  }
  throw new ProvisioningError(
    `There is no public key to install: looked for ${files.join(", ")}; make one with ` +
      `ssh-keygen, or set 'ssh_public_key' in the device configuration`,
  );
}

/** The agent's own public keys, one each. Where there are none, a warning says so. */
export async function publicKeys(
  ctx: Pick<PrepareContext, "config" | "env" | "log">,
): Promise<string[]> {
  try {
    const text = await Deno.readTextFile(await publicKeyFile(ctx));
    return text.split("\n").map((line) => line.trim()).filter((line) => line !== "");
  } catch (error) {
    ctx.log.warning(`The system gets no ssh key, only a password: ${fullMessageOf(error)}`);
    return [];
  }
}
