/**
 * A real OpenSSH server on loopback, as device and as control host: on a high port, with a
 * configuration and keys of its own, run by whoever runs the tests.
 */
import { join } from "node:path";
import { freePort } from "./free_port.ts";

/** Where Debian has what is not in everybody's PATH. */
const SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** The port may be taken by somebody else between its choice and its use. */
const PORT_ATTEMPTS = 5;

/** How often is looked whether the server listens, and how many times. */
const LOOK_MS = 20;
const LOOKS = 500;

/** Programs that are needed for a server and its clients. */
export const SSH_TOOLS = ["sshd", "ssh", "scp", "ssh-keygen"];

/**
 * A test that needs programs of the system. Without them it is skipped, and its name says why; with
 * the environment variable `CI` at `true` it fails instead.
 */
export function testWithTools(
  name: string,
  tools: readonly string[],
  test: () => Promise<void>,
): void {
  const missing = tools.filter((tool) => !isInstalled(tool));
  if (missing.length === 0) {
    Deno.test(name, test);
  } else if (Deno.env.get("CI") === "true") {
    Deno.test(name, () => {
      throw new Error(`Cannot test this without ${missing.join(", ")}: install it`);
    });
  } else {
    // Justified: a developer's machine need not have every program. CI installs them all; there a
    // missing one fails above instead.
    Deno.test.ignore(`${name} (skipped: there is no ${missing.join(", ")} on this host)`, test);
  }
}

/** Is a program there, in PATH or where only root looks? */
export function isInstalled(program: string): boolean {
  return `${Deno.env.get("PATH") ?? ""}:${SYSTEM_PATH}`.split(":").some((folder) => {
    try {
      return Deno.statSync(join(folder, program)).isFile;
    } catch {
      return false;
    }
  });
}

/** What `SshServer.open()` can be told. */
export interface SshServerOptions {
  /**
   * Script of the shell that gets each command that is to be run, in `$SSH_ORIGINAL_COMMAND`, and
   * that runs it. `{root}` stands for the server's folder.
   */
  readonly forceCommand?: string;
}

/** The server, and one client that it knows. */
export class SshServer implements AsyncDisposable {
  /** What the server's sessions have as their home. */
  readonly home: string;
  /** Programs that the server's sessions find first. */
  readonly bin: string;
  /** The home of the client, with its keys in `.ssh`. */
  readonly clientHome: string;
  readonly #clientBin: string;

  private constructor(
    /** A folder for all of this, and for what tests want to have gone with it. */
    readonly root: string,
    /** Who logs in: the one who runs the tests. */
    readonly user: string,
  ) {
    this.home = join(root, "home");
    this.bin = join(root, "bin");
    this.clientHome = join(root, "client");
    this.#clientBin = join(root, "client-bin");
  }

  #process: Deno.ChildProcess | undefined;
  /** Done when the server has closed its log. */
  #reading: Promise<void> = Promise.resolve();
  #port = 0;
  #log = "";

  /** Starts a server. */
  static async open(options: SshServerOptions = {}): Promise<SshServer> {
    const root = await Deno.makeTempDir({ prefix: "sshd-" });
    const server = new SshServer(root, await output(["id", "-un"]));
    try {
      await server.#prepare(options);
      await server.#start();
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
    return server;
  }

  get port(): number {
    return this.#port;
  }

  /** How many times somebody has logged in so far. */
  get logins(): number {
    return this.#log.split("Accepted publickey").length - 1;
  }

  /** For an agent whose folders on the server are gone with it. */
  get agentName(): string {
    return `test-agent-${this.#port}`;
  }

  /** The environment of a client: its `ssh` and `scp` have its keys and no configuration besides. */
  get env(): Record<string, string> {
    return { PATH: `${this.#clientBin}:${SYSTEM_PATH}`, HOME: this.clientHome };
  }

  /** Puts a program before all others on the server; `script` is for the shell. */
  async program(name: string, script: string): Promise<void> {
    await writeProgram(join(this.bin, name), script);
  }

  /** Makes a key, not known to the server. */
  async makeKey(name: string): Promise<{ file: string; publicKey: string }> {
    const file = join(this.root, name);
    await output(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file]);
    return { file, publicKey: await Deno.readTextFile(`${file}.pub`) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process !== undefined) {
      try {
        this.#process.kill("SIGTERM");
      } catch {
        // It has ended by itself.
      }
      await this.#process.status;
      await this.#reading;
    }
    for (const folder of [this.root, `/tmp/${this.agentName}`, `/mnt/${this.agentName}`]) {
      await Deno.remove(folder, { recursive: true }).catch(() => {});
    }
  }

  async #prepare({ forceCommand }: SshServerOptions): Promise<void> {
    const ssh = join(this.home, ".ssh");
    const clientSsh = join(this.clientHome, ".ssh");
    for (const folder of [ssh, clientSsh, this.bin, this.#clientBin]) {
      await Deno.mkdir(folder, { recursive: true, mode: 0o700 });
    }
    await this.makeKey("host_key");
    const { file, publicKey } = await this.makeKey("id_ed25519");
    for (const end of ["", ".pub"]) {
      await Deno.copyFile(file + end, join(clientSsh, `id_ed25519${end}`));
    }
    await Deno.chmod(join(clientSsh, "id_ed25519"), 0o600);
    await Deno.writeTextFile(join(ssh, "authorized_keys"), publicKey, { mode: 0o600 });
    await Deno.writeTextFile(
      join(this.root, "ssh_config"),
      `Host *\n  IdentityFile ${clientSsh}/id_ed25519\n  GlobalKnownHostsFile /dev/null\n`,
    );
    for (const program of ["ssh", "scp"]) {
      await writeProgram(
        join(this.#clientBin, program),
        `exec /usr/bin/${program} -F "${this.root}/ssh_config" "$@"`,
      );
    }
    if (forceCommand !== undefined) {
      await writeProgram(
        join(this.root, "force"),
        `case "$SSH_ORIGINAL_COMMAND" in *sftp*) exec /usr/lib/openssh/sftp-server;; esac\n` +
          forceCommand.replaceAll("{root}", this.root),
      );
    }
    await Deno.writeTextFile(
      join(this.root, "sshd_config"),
      [
        "ListenAddress 127.0.0.1",
        `HostKey ${this.root}/host_key`,
        "PidFile none",
        `AuthorizedKeysFile ${ssh}/authorized_keys`,
        // The folder for temporary files, and the files of the tests' own user.
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "PrintMotd no",
        "PrintLastLog no",
        "Subsystem sftp internal-sftp",
        `SetEnv HOME=${this.home} PATH=${this.bin}:${SYSTEM_PATH}`,
        ...(forceCommand === undefined ? [] : [`ForceCommand ${this.root}/force`]),
        "",
      ].join("\n"),
    );
    // As the package's own unit does it; only the superuser's server wants this folder.
    if (Deno.uid() === 0) await Deno.mkdir("/run/sshd", { recursive: true, mode: 0o755 });
  }

  async #start(): Promise<void> {
    for (let attempt = 1;; attempt++) {
      const port = freePort();
      // Its first word must be an absolute path: the server starts itself anew for each client.
      const child = new Deno.Command(sshdPath(), {
        args: ["-D", "-e", "-p", String(port), "-f", join(this.root, "sshd_config")],
        stdin: "null",
        stdout: "null",
        stderr: "piped",
      }).spawn();
      this.#process = child;
      let said = "";
      const listening = Promise.withResolvers<boolean>();
      this.#reading = (async () => {
        for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
          said += text;
          this.#log += text;
          if (said.includes("Server listening on")) listening.resolve(true);
        }
        listening.resolve(false);
      })();
      if (await listening.promise && await answers(port)) {
        this.#port = port;
        return;
      }
      try {
        child.kill("SIGTERM");
      } catch {
        // It has ended by itself.
      }
      await child.status;
      await this.#reading;
      this.#process = undefined;
      if (attempt >= PORT_ATTEMPTS) throw new Error(`sshd does not start: ${said}`);
    }
  }
}

function sshdPath(): string {
  return ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"].find((path) => {
    try {
      return Deno.statSync(path).isFile;
    } catch {
      return false;
    }
  }) ?? "/usr/sbin/sshd";
}

async function answers(port: number): Promise<boolean> {
  for (let look = 0; look < LOOKS; look++) {
    try {
      using _connection = await Deno.connect({ hostname: "127.0.0.1", port });
      return true;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }
  return false;
}

async function writeProgram(path: string, script: string): Promise<void> {
  await Deno.writeTextFile(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

/** What a program prints; its failure is an error. */
export async function output(
  argv: readonly [string, ...string[]],
  env: Record<string, string> = {},
): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(argv[0], {
    args: argv.slice(1),
    env: { PATH: SYSTEM_PATH, LC_ALL: "C", ...env },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  if (!success) throw new Error(`${argv.join(" ")} failed: ${decoder.decode(stderr)}`);
  return decoder.decode(stdout).trim();
}
