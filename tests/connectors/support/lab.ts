/** A lab without hardware: recording fakes on PATH, a virtual clock, a scratch folder. */
import { join } from "node:path";
import { runDeviceConnector } from "../../../lib/cli/device_connector.ts";
import { VirtualClock } from "./virtual_clock.ts";

/** What connectors call, and what must never reach a real device from here. */
const FAKED = [
  "maas",
  "nc",
  "ping",
  "qemu-img",
  "scp",
  "ssh",
  "ssh-copy-id",
  "ssh-import-id",
  "sshpass",
] as const;

/** What test commands and fakes may use. */
const REAL = [
  "bash",
  "bzip2",
  "cat",
  "chmod",
  "cp",
  "date",
  "dd",
  "echo",
  "env",
  "false",
  "grep",
  "gzip",
  "head",
  "kill",
  "ln",
  "ls",
  "mkdir",
  "mv",
  "printf",
  "rm",
  "sed",
  "sh",
  "sleep",
  "sort",
  "stat",
  "sync",
  "tail",
  "touch",
  "tr",
  "true",
  "wc",
  "xz",
  "zstd",
];

/** Ends what every fake begins with. */
const HANG = "# its own:\n";

/** A call that a fake recorded. */
export interface Call {
  readonly program: string;
  readonly args: readonly string[];
  /** What sshpass found in its environment. */
  readonly password: string | undefined;
}

/** How a run of the command ended. */
export interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What differs from run to run. */
export interface RunOptions {
  readonly signal?: AbortSignal;
  readonly env?: Readonly<Record<string, string>>;
  /** Told what is printed, as it comes. */
  readonly onStdout?: (text: string) => void;
  /** Told what is logged, as it comes. */
  readonly onStderr?: (text: string) => void;
}

/** The lab. Everything is gone when it is disposed of. */
export class Lab implements AsyncDisposable {
  readonly clock: VirtualClock;
  readonly cwd: string;
  /** Asked whether a request that is under way will never be answered, as of now. */
  hang: () => boolean = () => false;
  /** Lines that `inStage` logged. */
  readonly log: string[] = [];
  readonly #bin: string;
  readonly #notes: string;

  private constructor(readonly root: string) {
    this.cwd = join(root, "job");
    this.#bin = join(root, "bin");
    this.#notes = join(root, "notes");
    this.clock = new VirtualClock(() => this.#takeHung());
  }

  /** Sets up a lab with fakes that all succeed, saying nothing. */
  static async open(): Promise<Lab> {
    const lab = new Lab(await Deno.makeTempDir({ prefix: "connector-lab-" }));
    for (const folder of [lab.cwd, lab.#bin, lab.#notes, join(lab.root, "home/.ssh")]) {
      await Deno.mkdir(folder, { recursive: true });
    }
    await Deno.writeTextFile(join(lab.root, "home/.ssh/id_rsa.pub"), "ssh-rsa AAAA agent\n");
    for (const program of REAL) {
      for (const folder of ["/usr/bin", "/bin"]) {
        const path = join(folder, program);
        if (!await exists(path) || await exists(join(lab.#bin, program))) continue;
        await Deno.symlink(path, join(lab.#bin, program));
      }
    }
    for (const program of FAKED) await lab.fake(program, "");
    // Only there to hand over the password.
    await lab.fake("sshpass", 'shift; exec "$@"');
    return lab;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.root, { recursive: true });
  }

  /**
   * Makes a program do what `script` (POSIX shell) says. It has the arguments in "$@", all of them
   * in "$*", and in $n how many times the program has been called, this time included; `hang` never
   * comes back.
   */
  async fake(program: string, script: string): Promise<void> {
    const text = `#!/bin/sh
us=$(printf '\\037')
record="${program}$us\${SSHPASS-}"
for arg in "$@"; do record="$record$us$arg"; done
printf '%s\\036' "$record" >> "${this.#notes}/calls"
n=$(( $(cat "${this.#notes}/${program}.n" 2>/dev/null || echo 0) + 1 ))
echo "$n" > "${this.#notes}/${program}.n"
hang() { : > "${this.#notes}/hung.$$"; exec sleep 100000; }
${HANG}${script}
`;
    const path = join(this.#bin, program);
    await Deno.remove(path).catch(() => {});
    await Deno.writeTextFile(path, text, { mode: 0o755 });
  }

  /** Has a program do `script` before what it does anyway. */
  async wrap(program: string, script: string): Promise<void> {
    const path = join(this.#bin, program);
    const behind = join(this.#bin, `${program}-itself`);
    await Deno.rename(path, behind);
    await Deno.writeTextFile(path, `#!/bin/sh\n${script}\nexec "${behind}" "$@"\n`, {
      mode: 0o755,
    });
  }

  /** The script of a fake, for another one to end with. */
  async original(program: string): Promise<string> {
    const text = await Deno.readTextFile(join(this.#bin, program));
    return text.slice(text.indexOf(HANG) + HANG.length);
  }

  /** Takes a program away. */
  async remove(program: string): Promise<void> {
    await Deno.remove(join(this.#bin, program));
  }

  /** What the fakes were asked to do, in order. */
  async calls(program?: string): Promise<Call[]> {
    const text = await Deno.readTextFile(join(this.#notes, "calls")).catch(() => "");
    return text.split("\x1e").filter((record) => record !== "").map((record) => {
      const [name = "", password = "", ...args] = record.split("\x1f");
      return { program: name, args, password: password || undefined };
    }).filter((call) => program === undefined || call.program === program);
  }

  /** Writes the device configuration, as JSON, which is YAML too; text is taken as it is. */
  async config(config: unknown): Promise<void> {
    await this.write("c.yaml", typeof config === "string" ? config : JSON.stringify(config));
  }

  /** Writes the job. */
  async job(job: unknown): Promise<void> {
    await this.write("testflinger.json", JSON.stringify(job));
  }

  async write(name: string, text: string): Promise<void> {
    await Deno.writeTextFile(join(this.cwd, name), text);
  }

  read(name: string): Promise<string> {
    return Deno.readTextFile(join(this.cwd, name));
  }

  has(name: string): Promise<boolean> {
    return exists(join(this.cwd, name));
  }

  async json(name: string): Promise<unknown> {
    return JSON.parse(await this.read(name));
  }

  /** The environment of the connector: nothing but what the lab has. */
  env(more: Readonly<Record<string, string>> = {}): Record<string, string> {
    return { PATH: this.#bin, HOME: join(this.root, "home"), ...more };
  }

  /** Runs `<connector> <stage> -c c.yaml testflinger.json`. */
  stage(connector: string, stage: string, options: RunOptions = {}): Promise<Run> {
    return this.run([connector, stage, "-c", "c.yaml", "testflinger.json"], options);
  }

  /** Runs the command line in this process. */
  async run(args: readonly string[], options: RunOptions = {}): Promise<Run> {
    const decoder = new TextDecoder();
    let stdout = "";
    let stderr = "";
    const code = await runDeviceConnector(args, {
      cwd: this.cwd,
      env: this.env(options.env),
      clock: this.clock.pauses,
      limits: this.clock.limits,
      signal: options.signal ?? new AbortController().signal,
      stdout: (bytes) => {
        const text = decoder.decode(bytes, { stream: true });
        stdout += text;
        options.onStdout?.(text);
        return Promise.resolve();
      },
      stderr: (text) => {
        stderr += text;
        options.onStderr?.(text);
      },
    });
    return { code, stdout, stderr };
  }

  /** What `device-connector-error.json` says of a stage. */
  async failure(stage: string): Promise<Record<string, string | null>> {
    const all = await this.json("device-connector-error.json");
    // The file is ours; a test that finds something else in it fails on the next line.
    return (all as Record<string, Record<string, string | null>>)[`${stage}_exception_info`] ?? {};
  }

  async #takeHung(): Promise<boolean> {
    if (this.hang()) return true;
    for await (const entry of Deno.readDir(this.#notes)) {
      if (!entry.name.startsWith("hung.")) continue;
      await Deno.remove(join(this.#notes, entry.name));
      return true;
    }
    return false;
  }
}

function exists(path: string): Promise<boolean> {
  return Deno.lstat(path).then(() => true, () => false);
}
