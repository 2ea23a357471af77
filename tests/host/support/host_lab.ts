/** A sandbox, a folder of configurations, and the real program that runs the agents in it. */
import { join } from "node:path";
import { type ServedSandbox, type ServeOptions, serveSandbox } from "../../../lib/sandbox/serve.ts";
import type { Sandbox } from "../../../lib/sandbox/sandbox.ts";
import { type AgentProcess, startProgram } from "../../support/agent_process.ts";
import { freePort } from "../../support/free_port.ts";
import { killAll } from "../../support/processes.ts";

/** A test that waits longer than this has failed; real milliseconds. */
const PATIENCE_MS = 60_000;

/** A command that ends when the test makes the agent's file `go`. */
export const UNTIL_GO = 'echo begun; until [ -e "$GO" ]; do sleep 0.05; done';

/** A host for tests. */
export class HostLab implements AsyncDisposable {
  readonly folder: string;
  readonly configs: string;
  readonly served: ServedSandbox;
  readonly port: number;
  /** Commands that run the program: `["unshare", "--mount"]`. */
  through: readonly string[] = [];
  /** Whether the command line says where the endpoint is. */
  namesPort = true;
  /** Ids are nobody else's: markers and locks are in /tmp. */
  readonly #mark = crypto.randomUUID().slice(0, 8);
  readonly #ids: string[] = [];
  readonly #started: AgentProcess[] = [];
  readonly #startProgram: typeof startProgram;
  #process: AgentProcess | undefined;

  private constructor(
    folder: string,
    { port, sandbox, start }: {
      port: number;
      sandbox: ServeOptions;
      start: typeof startProgram;
    },
  ) {
    this.#startProgram = start;
    this.folder = folder;
    this.configs = join(folder, "etc");
    this.served = serveSandbox(sandbox);
    this.port = port;
  }

  /** @param start starts the program. @default that of the checkout's modules */
  static async open(sandbox: ServeOptions = {}, start = startProgram): Promise<HostLab> {
    const folder = await Deno.makeTempDir({ prefix: "host-" });
    const lab = new HostLab(folder, { port: await freePort(), sandbox, start });
    await Deno.mkdir(lab.configs);
    return lab;
  }

  get sandbox(): Sandbox {
    return this.served.sandbox;
  }

  get process(): AgentProcess {
    if (this.#process === undefined) throw new Error("Nothing was started");
    return this.#process;
  }

  /** The id of an agent in this lab. */
  id(name: string): string {
    const id = `${name}-${this.#mark}`;
    if (!this.#ids.includes(id)) this.#ids.push(id);
    return id;
  }

  /** Writes an agent's configuration, whole at once; returns the file. */
  async configure(name: string, more: Record<string, unknown> = {}): Promise<string> {
    const file = join(this.configs, `${name}.conf`);
    const own = join(this.folder, name);
    await this.writeFile(
      file,
      JSON.stringify({
        agent_id: this.id(name),
        server_address: this.served.url,
        job_queues: [name],
        polling_interval: 0.5,
        min_free_space: 0,
        cancel_grace: 1,
        execution_basedir: join(own, "run"),
        logging_basedir: join(own, "logs"),
        results_basedir: join(own, "results"),
        test_command: `export GO=${join(own, "go")}; ${UNTIL_GO}`,
        ...more,
      }),
    );
    return file;
  }

  /** Puts a file in its place at once. */
  async writeFile(file: string, text: string): Promise<void> {
    await Deno.writeTextFile(`${file}.new`, text);
    await Deno.rename(`${file}.new`, file);
  }

  /** Starts the program on the folder, or with other arguments. */
  start(...args: string[]): AgentProcess {
    const source = args.length > 0 ? args : ["run", "--config-dir", this.configs];
    const token = ["--token-file", join(this.folder, "none")];
    if (this.namesPort) token.push("-p", `${this.port}`);
    const env = { TESTFLINGER_AGENT_PROGRAM: this.program };
    this.#process = this.#startProgram([...source, ...token], { env, through: this.through });
    this.#started.push(this.#process);
    return this.#process;
  }

  /** What the process takes for its program's file: another one there is an upgrade. */
  get program(): string {
    return join(this.folder, "program");
  }

  /** Lets the jobs of an agent end. */
  async go(name: string): Promise<void> {
    await Deno.mkdir(join(this.folder, name), { recursive: true });
    await Deno.writeTextFile(join(this.folder, name, "go"), "");
  }

  submit(name: string, job: Record<string, unknown> = {}): string {
    return this.sandbox.submit({ job_queue: name, test_data: { test_cmds: "x" }, ...job });
  }

  /** State and comment of an agent on the server. */
  shown(name: string): [string | undefined, string | undefined] {
    const { state, comment } = this.sandbox.agent(this.id(name)) ?? {};
    return [state, comment];
  }

  async get(path: string): Promise<{ status: number; text: string }> {
    const response = await fetch(`http://127.0.0.1:${this.port}${path}`);
    return { status: response.status, text: await response.text() };
  }

  /** Resolves when something is so. */
  async until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
    const limit = AbortSignal.timeout(PATIENCE_MS);
    while (!await Promise.resolve().then(condition).catch(() => false)) {
      if (limit.aborted) {
        throw new Error(`Gave up waiting: ${what}. It said:\n${this.#process?.output()}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async waiting(...names: string[]): Promise<void> {
    await this.until(
      () => names.every((name) => this.shown(name)[0] === "waiting"),
      `${names.join(" and ")} waiting`,
    );
  }

  async complete(jobId: string): Promise<void> {
    await this.until(() => this.sandbox.state(jobId) === "complete", `job ${jobId} complete`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const process of this.#started) await process[Symbol.asyncDispose]();
    // Jobs outlive their agents.
    for (const id of this.#ids) await killAll(`agent_id=${id}`);
    await this.served.close();
    for (const id of this.#ids) {
      const markers = ["RESTART", "OFFLINE"].map((kind) => `TESTFLINGER-DEVICE-${kind}-${id}`);
      for (const name of [`testflinger-agent-${id}.lock`, ...markers]) {
        await Deno.remove(`/tmp/${name}`).catch(() => {});
      }
    }
    await Deno.remove(this.folder, { recursive: true });
  }
}
