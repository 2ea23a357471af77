/**
 * A job's secrets: how large they may be, under which names, which of them are masked, where, and for how
 * long in the agent's own log.
 */
import type { Outbox } from "../outbox/outbox.ts";
import { PHASES } from "../phases.ts";
import { isMaskable } from "../process/patterns.ts";
import { compileSecrets, type Secrets } from "../process/redactor.ts";
import type { Job } from "./job.ts";

/**
 * Each form in which a secret may be printed is looked for, which takes some hundred bytes of memory
 * for each byte of it. A private key has 3 KiB, a kubeconfig 10.
 */
const LARGEST_SECRET_BYTES = 32 * 1024;
/** Of all secrets of a job, each value counted once. */
const ALL_SECRETS_BYTES = 64 * 1024;
const MOST_SECRETS = 500;

/** A job's secrets, ready to be masked. */
interface JobSecrets {
  /** Masks every secret that is within the limits. */
  masks: Secrets;
  /** One line that says which secret is beyond the limits; such a job is not run. */
  refusal: string | undefined;
}

/** Prepares the secrets of all phases. Takes little time and memory, whatever the job brings. */
export function prepareSecrets(job: Job): JobSecrets {
  const values = new Set<string>();
  let total = 0;
  let refusal: string | undefined;
  for (const phase of PHASES) {
    for (const [name, value] of Object.entries(job.secrets(phase))) {
      if (values.has(value)) continue;
      const bytes = Buffer.byteLength(value);
      const problem = bytes > LARGEST_SECRET_BYTES
        ? `has ${bytes} bytes, more than the ${LARGEST_SECRET_BYTES} that a secret may have`
        : total + bytes > ALL_SECRETS_BYTES
        ? `is too much: all secrets of a job may have ${ALL_SECRETS_BYTES} bytes together`
        : values.size >= MOST_SECRETS
        ? `is too much: a job may have ${MOST_SECRETS} secrets`
        : undefined;
      if (problem === undefined) {
        values.add(value);
        total += bytes;
      } else {
        refusal ??= `The secret ${shownName(name)} of ${phase}_data ${problem}. ` +
          "Put large data into an attachment";
      }
    }
  }
  return { masks: compileSecrets(values), refusal };
}

/** The names of secrets that are too short to be masked. */
export function unmaskedNames(secrets: Record<string, string>): string[] {
  return Object.entries(secrets)
    .filter(([, value]) => value !== "" && !isMaskable(value))
    .map(([name]) => name);
}

/**
 * The text of a name for a message; it may be of any length.
 */
export function shownName(name: string): string {
  const LONGEST = 100;
  return JSON.stringify(name.length > LONGEST ? `${name.slice(0, LONGEST)}...` : name);
}

/**
 * Variables by which the programs of a host decide what else to run or load: whoever sets one of
 * them for a command runs code of their own in it. The list is that of sudo (`env_delete` and
 * `env_check` in sudoers(5)), with what the interpreters and tools of a lab host read besides.
 */
const UNSAFE_NAMES = new Set([
  // Shells
  ...["PATH", "IFS", "ENV", "BASH_ENV", "BASHOPTS", "SHELLOPTS", "PS4", "CDPATH", "GLOBIGNORE"],
  ...["PROMPT_COMMAND", "FPATH", "ZDOTDIR", "NULLCMD", "READNULLCMD", "TMPPREFIX", "SHELL"],
  // The C library
  ...["GCONV_PATH", "GETCONF_DIR", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH", "PATH_LOCALE"],
  ...["LOCALDOMAIN", "RES_OPTIONS", "HOSTALIASES", "NIS_PATH", "TERMINFO", "TERMINFO_DIRS"],
  ...["TERMPATH", "TERMCAP"],
  // Where programs look for configuration that names other programs
  ...["HOME", "CURL_HOME", "WGETRC", "OPENSSL_CONF", "OPENSSL_ENGINES", "OPENSSL_MODULES"],
  // Programs that are started by others
  ...["EDITOR", "VISUAL", "PAGER", "MANPAGER", "BROWSER", "LESSOPEN", "LESSCLOSE", "SSH_ASKPASS"],
  ...["SSH_SK_HELPER", "SSH_PKCS11_HELPER"],
  ...["SUDO_ASKPASS", "RSYNC_RSH", "RSYNC_CONNECT_PROG", "TAR_OPTIONS", "MAKEFLAGS", "MAKEFILES"],
  ...["GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_EXEC_PATH", "GIT_EXTERNAL_DIFF"],
  ...["GIT_PAGER", "GIT_EDITOR", "GIT_PROXY_COMMAND", "GIT_TEMPLATE_DIR"],
  // Interpreters
  ...["PERLLIB", "PERL_UNICODE", "PERLIO_DEBUG", "RUBYLIB", "RUBYOPT", "NODE_OPTIONS", "NODE_PATH"],
  ...["CLASSPATH", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"],
  // This program: a file of the host that it reads. (TESTFLINGER_TOKEN and the client's are a job's to give.)
  ...["TESTFLINGER_TOKEN_FILE", "TESTFLINGER_PHASE_STATUS"],
]);

const UNSAFE_BEGINNINGS = [
  "LD_",
  "_RLD",
  "BASH_FUNC_",
  "PERL5",
  "PYTHON",
  "GIT_CONFIG",
  "XDG_",
  "DENO_",
  "LUA_",
  "ANSIBLE_",
  // What this file runs, and from where; and what its connectors take for an image of the host's.
  "TESTFLINGER_AGENT_",
  "TESTFLINGER_IMAGE_CACHE",
  "TFDC_",
];

/** Whether a variable of this name would change which code the commands of a phase run. */
export function isUnsafeName(name: string): boolean {
  return UNSAFE_NAMES.has(name) ||
    UNSAFE_BEGINNINGS.some((beginning) => name.startsWith(beginning));
}

/** A copy of `value` in which every text has its secrets masked, names and numbers included. */
export function redactStrings(
  value: Record<string, unknown>,
  secrets: Secrets,
): Record<string, unknown> {
  const redact = (part: unknown): unknown => {
    if (typeof part === "string") return secrets.redactText(part);
    if (typeof part === "number") {
      const text = secrets.redactText(String(part));
      return text === String(part) ? part : text;
    }
    if (Array.isArray(part)) return part.map(redact);
    if (typeof part !== "object" || part === null) return part;
    return inObject(part);
  };
  const inObject = (object: object) =>
    Object.fromEntries(
      Object.entries(object).map(([key, inner]) => [secrets.redactText(key), redact(inner)]),
    );
  return inObject(value);
}

/** After an outage of days, the secrets of so many jobs are still looked for in the agent's log. */
const MOST_KEPT = 20;

/**
 * What is on its way to the server may still be talked about when the job has ended, so its secrets
 * are masked until it is there.
 */
export class KeptSecrets {
  /** The oldest first. */
  readonly #secrets = new Map<Outbox, Secrets>();
  readonly #isUndelivered: (outbox: Outbox) => boolean;

  constructor(isUndelivered: (outbox: Outbox) => boolean) {
    this.#isUndelivered = isUndelivered;
  }

  /** Masks these, too, from now on. */
  keep(outbox: Outbox, secrets: Secrets): void {
    for (const earlier of [...this.#secrets.keys()]) {
      const isKept = this.#isUndelivered(earlier) && this.#secrets.size < MOST_KEPT;
      if (!isKept) this.#secrets.delete(earlier);
    }
    if (!secrets.isEmpty) this.#secrets.set(outbox, secrets);
  }

  /** Masks what is kept. */
  redact(text: string): string {
    return this.#secrets.values().reduce((masked, secrets) => secrets.redactText(masked), text);
  }
}
