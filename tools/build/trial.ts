/**
 * What a user does with the file that was built, done before anybody gets it: every command that
 * loads a part of its own, and an agent that runs a job with attachments and artifacts, serves its
 * page and its metrics, and stops. Parts that work from source and not from the bundle show here.
 */
import { join } from "node:path";
import { CONNECTOR_NAMES } from "../../connectors/registry.ts";
import { messageOf } from "../../lib/message.ts";
import type { Sandbox } from "../../lib/sandbox/sandbox.ts";
import { serveSandbox } from "../../lib/sandbox/serve.ts";
import { VERSION } from "../../lib/version.ts";

/** How a file is tried out. */
export interface TrialOptions {
  /** For the runtime: a cache folder, an emulator. */
  env?: Record<string, string>;
  /** Leaves out what takes many starts, for an emulator. @default false */
  short?: boolean;
}

/** An emulated start takes half a minute; milliseconds. */
const PATIENCE_MS = 300_000;
const LOOK_MS = 50;

const ARTIFACT = "mkdir -p artifacts && echo kept > artifacts/file";

const JOB = `test_data:
  attachments: [{local: greeting.txt}]
  test_cmds: cat attachments/test/greeting.txt && echo $KEY && ${ARTIFACT}
  secrets: {KEY: open-sesame}
`;

/** Runs the file; resolves with what is wrong with it, or `undefined`. */
export async function tryFile(
  file: string,
  options: TrialOptions = {},
): Promise<string | undefined> {
  const folder = await Deno.makeTempDir({ prefix: "testflinger-trial-" });
  try {
    await new Trial(file, folder, options).run();
    return undefined;
  } catch (error) {
    return messageOf(error);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** What a command printed, and how it ended. */
interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

interface RunningAgent {
  config: string;
  port: number;
  sandbox: Sandbox;
  ended: Promise<Ended>;
}

class Trial {
  readonly #file: string;
  readonly #folder: string;
  readonly #options: TrialOptions;
  readonly #id = `trial-${crypto.randomUUID().slice(0, 8)}`;

  constructor(file: string, folder: string, options: TrialOptions) {
    this.#file = file;
    this.#folder = folder;
    this.#options = options;
  }

  async run(): Promise<void> {
    await this.#says(["version"], `testflinger-agent ${VERSION}\n`);
    await Deno.writeTextFile(join(this.#folder, "job.yaml"), JOB);
    await Deno.writeTextFile(join(this.#folder, "greeting.txt"), "greetings\n");
    await this.#says(
      ["try", "job.yaml"],
      "greetings\n",
      "test             passed",
      "1 artifact in",
    );
    if (this.#options.short !== true) await this.#commands();
    await this.#agent();
  }

  /** Commands that load what others do not. */
  async #commands(): Promise<void> {
    await this.#says(["--help"], "usage: testflinger-agent");
    await this.#says(["help", "--man"], ".TH TESTFLINGER");
    for (const shell of ["bash", "zsh", "fish"]) await this.#says(["completion", shell], "doctor");
    const connector = (...args: string[]) => ["device-connector", ...args];
    for (const name of CONNECTOR_NAMES) {
      await this.#says(connector("list"), name);
      await this.#says(connector("describe", name), name);
    }
    await Deno.writeTextFile(join(this.#folder, "device.yaml"), "agent_name: trial\n");
    await Deno.writeTextFile(join(this.#folder, "testflinger.json"), "{}");
    const stage = ["fake_connector", "provision", "-c", "device.yaml", "testflinger.json"];
    await this.#says(connector(...stage), "Nothing is provisioned");
  }

  async #agent(): Promise<void> {
    const { sandbox, url, close } = serveSandbox();
    const port = freePort();
    const config = join(this.#folder, "agent.conf");
    await Deno.writeTextFile(
      config,
      [
        `agent_id: ${this.#id}`,
        `server_address: ${url}`,
        "job_queues: [trial]",
        "polling_interval: 0.2",
        "min_free_space: 0",
        // Each stage of a connector is a start of the program.
        ...this.#options.short === true
          ? [`test_command: "${ARTIFACT}"`]
          : ["connector: fake_connector", "connector_config: device.yaml"],
        `metrics_port: ${port}`,
        ...["execution", "logging", "results"].map((name) =>
          `${name}_basedir: ${this.#folder}/${name}`
        ),
        "",
      ].join("\n"),
    );
    await Deno.writeTextFile(join(this.#folder, "device.yaml"), "agent_name: trial\n");
    await this.#says(["check", config], "0 mistakes");
    const agent = this.#start(["-c", config, "--token-file", join(this.#folder, "none")]);
    let isOver = false;
    const ended = outputOf(agent).finally(() => isOver = true);
    try {
      await this.#useAgent({ config, port, sandbox, ended });
    } finally {
      if (!isOver) agent.kill("SIGTERM");
      await ended;
      await close();
      await Deno.remove(`/tmp/testflinger-agent-${this.#id}.lock`).catch(() => {});
    }
    const end = await ended;
    if (end.code !== 0) throw new Error(`The agent did not stop well: ${describe(end)}`);
  }

  async #useAgent({ config, port, sandbox, ended }: RunningAgent): Promise<void> {
    let isOver = false;
    void ended.then(() => isOver = true);
    const jobId = sandbox.submit({ job_queue: "trial", test_data: { test_cmds: ARTIFACT } });
    await until("the agent completes a job", () => isOver || sandbox.state(jobId) === "complete");
    if (isOver) throw new Error(`The agent ended: ${describe(await ended)}`);
    if (sandbox.artifact(jobId) === undefined) {
      throw new Error(`A job ended without its artifact:\n${sandbox.log(jobId, "output")}`);
    }
    for (
      const [path, wanted] of [
        ["metrics", `jobs_total{agent_id="${this.#id}"} 1`],
        ["", jobId],
        ["v1/status", `"agent_id":"${this.#id}"`],
        [`v1/agents/${this.#id}`, `"recent_jobs":[`],
      ] as const
    ) {
      const text = await (await fetch(`http://127.0.0.1:${port}/${path}`)).text();
      if (!text.includes(wanted)) {
        throw new Error(`The page /${path} does not have '${wanted}':\n${text.slice(0, 1000)}`);
      }
    }
    if (this.#options.short === true) return;
    await this.#says(["status", "-c", config], "waiting");
    await this.#says(["jobs", "-c", config], jobId);
    await this.#says(["logs", "-c", config], "starts");
    await this.#says(["doctor", "-c", config, "--token-file", "none"], "held by the agent");
  }

  /** Runs a command to its end; it has to succeed and to print these. */
  async #says(args: string[], ...wanted: string[]): Promise<void> {
    const end = await outputOf(this.#start(args));
    const lacks = wanted.find((text) => !end.stdout.includes(text));
    if (end.code === 0 && lacks === undefined) return;
    const why = lacks === undefined ? "" : ` does not print '${lacks.trim()}'`;
    throw new Error(`'${args.join(" ")}'${why}: ${describe(end)}`);
  }

  #start(args: string[]): Deno.ChildProcess {
    return new Deno.Command(this.#file, {
      args,
      cwd: this.#folder,
      // An emulator would be one for another target's file.
      env: {
        HOME: this.#folder,
        NO_COLOR: "1",
        TESTFLINGER_AGENT_RUNNER: "",
        ...this.#options.env,
      },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
  }
}

async function outputOf(child: Deno.ChildProcess): Promise<Ended> {
  const { code, stdout, stderr } = await child.output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

function describe({ code, stdout, stderr }: Ended): string {
  return `exit status ${code}\n${stdout.slice(-2000)}\n${stderr.slice(-2000)}`.trim();
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  const limit = AbortSignal.timeout(PATIENCE_MS);
  while (!isSo()) {
    if (limit.aborted) throw new Error(`Waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  return port;
}
