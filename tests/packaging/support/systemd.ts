/** A real systemd for tests: process 1 of namespaces of its own, on this machine's files without touching them. */
import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { ROOT } from "./built.ts";
import { ended, isInstalled, type Ran, until } from "./command.ts";

const SCRIPT = join(ROOT, "tests/packaging/support/systemd.sh");
const NAMESPACES = [
  ...["unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--cgroup"],
  ...["--propagation", "private"],
];

function start(argv: readonly string[]): Deno.ChildProcess {
  const [program = "", ...args] = argv;
  return new Deno.Command(program, {
    args,
    cwd: "/",
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Why there can be none here, or `undefined`. */
export async function whyNoSystemd(): Promise<string | undefined> {
  return await whyNoNamespaces(["pgrep", "systemctl"]);
}

/** Why there can be no {@linkcode OwnRoot} here, or `undefined`; `programs` are needed too. */
export async function whyNoNamespaces(programs: string[] = []): Promise<string | undefined> {
  if (Deno.env.get("CI") !== "true" && Deno.env.get("TESTFLINGER_REAL_SYSTEMD") !== "1") {
    return "neither CI=true nor TESTFLINGER_REAL_SYSTEMD=1";
  }
  if (Deno.uid() !== 0) return "not root";
  for (const program of ["unshare", "nsenter", ...programs]) {
    if (!isInstalled(program)) return `there is no ${program}`;
  }
  const { code, stderr } = await ended(start([...NAMESPACES, "sh", SCRIPT, "probe"]));
  return code === 0 ? undefined : `no namespaces here: ${stderr.trim()}`;
}

/**
 * This machine's files, to be changed without changing them, and its processes: what is installed there
 * is seen by no other test. (A root of {@linkcode Systemd} lies above this machine's too.)
 */
export class OwnRoot implements AsyncDisposable {
  readonly #holder: Deno.ChildProcess;

  private constructor(holder: Deno.ChildProcess) {
    this.#holder = holder;
  }

  static async open(): Promise<OwnRoot> {
    const own = ["unshare", "--mount", "--propagation", "private"];
    const holder = start([...own, "sh", SCRIPT, "files"]);
    const reader = holder.stdout.getReader();
    const { done } = await reader.read();
    await reader.cancel();
    if (done) throw new Error(new TextDecoder().decode((await holder.output()).stderr));
    return new OwnRoot(holder);
  }

  /** A command line that runs `argv` there, as the process that is started for it. */
  entering(argv: readonly string[]): string[] {
    return ["nsenter", "-t", `${this.#holder.pid}`, "-m", "-r", "-w", ...argv];
  }

  /** Runs a command there that has to succeed; its output. The runtime itself may look into no other root. */
  async sure(...argv: string[]): Promise<string> {
    const { code, stdout, stderr } = await ended(start(this.entering(argv)));
    assertEquals(code, 0, `${argv.join(" ")}: ${stderr}`);
    return stdout;
  }

  /** Whether there is something of this name there. */
  async has(path: string): Promise<boolean> {
    return (await ended(start(this.entering(["test", "-e", path])))).code === 0;
  }

  async [Symbol.asyncDispose]() {
    this.#holder.kill("SIGKILL");
    await this.#holder.status;
    await this.#holder.stderr.cancel();
  }
}

/** A running systemd. */
export class Systemd implements AsyncDisposable {
  readonly #unshare: Deno.ChildProcess;
  readonly #ended: Promise<Ran>;
  #pid = "";

  constructor() {
    this.#unshare = start([...NAMESPACES, "sh", SCRIPT]);
    this.#ended = ended(this.#unshare);
  }

  /** Runs a command where this systemd is process 1. */
  async run(...argv: string[]): Promise<Ran> {
    const enter = ["nsenter", "-t", this.#pid, "-p", "-m", "-u", "-i", "-C", "-r", "-w"];
    return await ended(start([...enter, ...argv]));
  }

  /** Runs a command that has to succeed; its output. */
  async sure(...argv: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...argv);
    assertEquals(code, 0, `${argv.join(" ")}: ${stderr}`);
    return stdout;
  }

  async booted(): Promise<void> {
    await until("systemd has started", async () => {
      const child = await ended(start(["pgrep", "-P", `${this.#unshare.pid}`]));
      this.#pid = child.stdout.trim();
      if (this.#pid === "") return false;
      return (await this.run("systemctl", "is-system-running")).stdout.trim() === "running";
    });
  }

  /** What it says of a unit. */
  async unit(name: string): Promise<Record<string, string>> {
    const names = ["ActiveState", "MainPID", "NRestarts", "StatusText", "Result"];
    const text = await this.sure("systemctl", "show", name, "-p", names.join(","));
    return Object.fromEntries(
      text.trim().split("\n").map((
        line,
      ) => [line.split("=")[0], line.slice(line.indexOf("=") + 1)]),
    );
  }

  /** Waits until a unit is as it should be. */
  async untilUnit(
    name: string,
    what: string,
    isSo: (unit: Record<string, string>) => boolean,
  ): Promise<void> {
    try {
      await until(what, async () => isSo(await this.unit(name)));
    } catch (error) {
      throw new Error(`${await this.journal(name)}\n${JSON.stringify(await this.unit(name))}`, {
        cause: error,
      });
    }
  }

  journal(name: string): Promise<string> {
    return this.sure("journalctl", "--no-pager", "-o", "cat", "-u", name);
  }

  async [Symbol.asyncDispose]() {
    // Process 1 and with it everything that runs there.
    this.#unshare.kill("SIGKILL");
    await this.#ended;
  }
}
