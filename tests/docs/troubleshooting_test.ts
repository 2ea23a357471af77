/**
 * docs/troubleshooting.md quotes screens. Here each of them is reproduced, as it comes about in the
 * field, and what the program really says is compared with the page.
 */
import { assertEquals } from "@std/assert";
import { type ServedSandbox, type ServeOptions, serveSandbox } from "../../lib/sandbox/serve.ts";
import { certificates } from "../support/certificates.ts";
import { startProgram } from "../support/agent_process.ts";

/** A wait for another process has failed when it takes longer than this; real milliseconds. */
const PATIENCE_MS = 60_000;

const PAGE = await Deno.readTextFile(new URL("../../docs/troubleshooting.md", import.meta.url));

/** The quotes of each section, by its heading; those in a language (sh, yaml) are no screens. */
function quotesOnPage(): Map<string, string[]> {
  const sections = new Map<string, string[]>();
  let heading = "";
  for (const [, title, language, text] of PAGE.matchAll(/^#+ (.+)$|^```(\w*)\n([^]*?)^```$/gm)) {
    if (title !== undefined) heading = title;
    else if (language === "") {
      const quotes = (text ?? "").trimEnd().split("\n");
      sections.set(heading, [...sections.get(heading) ?? [], ...quotes]);
    }
  }
  return sections;
}

/** An agent in the field, and what stands on its screen. */
class Field implements AsyncDisposable {
  readonly folder: string;
  readonly served: ServedSandbox;
  readonly file: string;
  readonly #started: AsyncDisposable[] = [];

  private constructor(folder: string, served: ServedSandbox) {
    this.folder = folder;
    this.served = served;
    this.file = `${folder}/a.conf`;
  }

  static async open(sandbox: ServeOptions = {}): Promise<Field> {
    const field = new Field(await Deno.makeTempDir({ prefix: "ts-" }), serveSandbox(sandbox));
    await field.configure();
    return field;
  }

  readonly #suffix = crypto.randomUUID().slice(0, 8);
  readonly id = `rpi4-${this.#suffix}`;

  /** Writes the configuration, with other keys than usual. */
  async configure(changes: Record<string, string> = {}, file = this.file): Promise<void> {
    const keys = {
      agent_id: this.id,
      server_address: this.served.url,
      job_queues: "[rpi4]",
      polling_interval: "0.2",
      min_free_space: "0",
      execution_basedir: `${this.folder}/run`,
      logging_basedir: `${this.folder}/logs`,
      results_basedir: `${this.folder}/results`,
      ...changes,
    };
    const lines = Object.entries(keys).map(([key, value]) => `${key}: ${value}\n`);
    await Deno.writeTextFile(file, lines.join(""));
  }

  /** Starts the agent; resolves with its screen when `wanted` stands on it, or it has ended. */
  async agent(
    wanted: string | RegExp,
    { file = this.file, env = {} }: { file?: string; env?: Record<string, string> } = {},
  ): Promise<string[]> {
    const agent = startProgram(["-c", file, ...this.#token], { cwd: this.folder, env });
    this.#started.push(agent);
    let isOver = false;
    agent.exited.then(() => isOver = true);
    const limit = AbortSignal.timeout(PATIENCE_MS);
    while (!isOver && agent.output().search(wanted) < 0) {
      if (limit.aborted) throw new Error(`Gave up waiting for '${wanted}':\n${agent.output()}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return this.#screen(agent.output());
  }

  /** Ends the agents. */
  async stop(): Promise<void> {
    for (const one of this.#started.splice(0)) await one[Symbol.asyncDispose]();
  }

  /** Runs another command to its end. */
  async command(name: string, env: Record<string, string> = {}): Promise<string[]> {
    const more = name === "doctor" ? this.#token : [];
    await using program = startProgram([name, "-c", this.file, ...more], { cwd: this.folder, env });
    await program.exited;
    return this.#screen(program.output());
  }

  get #token(): string[] {
    return ["--token-file", `${this.folder}/refresh_token`];
  }

  /** What differs from one time to the next, as the page has it. */
  #screen(text: string): string[] {
    return text
      .replaceAll(`${this.folder}/results`, "/var/lib/testflinger-agent/rpi4-1/results")
      .replaceAll(`${this.folder}/run`, "/var/lib/testflinger-agent/rpi4-1/run")
      .replaceAll(this.folder, "/var/lib/testflinger-agent")
      .replaceAll(this.id, "rpi4-1")
      .replaceAll(this.served.url, "http://127.0.0.1:5000")
      .replaceAll(/https:\/\/127\.0\.0\.1:\d+/g, "https://127.0.0.1:5443")
      .replaceAll(/^[\d-]+[T ][\d:.,]+Z? /gm, "")
      .replaceAll(/process \d+/g, "process 24456")
      .replaceAll(/process 24456 \(.*? -c /g, "process 24456 (testflinger-agent -c ")
      .replaceAll(/-c (\S+) --token-file [^\s)]+/g, "-c $1")
      .replaceAll(/of it \d+ s ago/g, "of it 4 s ago")
      .replaceAll(/[\d.]+ [KMG]iB free/g, "512.0 MiB free")
      .replaceAll(/59 min \d+ s/g, "1 h 0 min")
      .replaceAll(/certificate expired: .*? ago\)/g, "certificate expired: ...")
      .split("\n").map((line) => line.trimEnd());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await this.served.close();
    await Deno.remove(`/tmp/testflinger-agent-${this.id}.lock`).catch(() => {});
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** For each section with quotes: what brings them about. Returns what stands on the screens. */
const SECTIONS: Record<string, () => Promise<string[]>> = {
  async "With mistakes in the configuration (exit status 2)"() {
    await using field = await Field.open();
    await Deno.writeTextFile(
      `${field.folder}/w.conf`,
      "agent_id: rpi4-1\nserver_adress: http://testflinger.example\njob_queues: rpi4\n",
    );
    return await field.agent("nothing was done", { file: "w.conf" });
  },

  async "Because another agent runs under its name"() {
    await using field = await Field.open();
    await field.agent("starts");
    await field.served.sandbox.waitFor(() => field.served.sandbox.agent(field.id));
    const screen = await field.agent("Another agent");
    // The same name with other folders; and, once that runs nowhere here, on another host.
    const other = { results_basedir: `${field.folder}/other` };
    await field.configure(other);
    screen.push(...await field.command("doctor"));
    await using alone = await Field.open();
    alone.served.sandbox.setAgent(alone.id, { state: "waiting", comment: "" });
    return [...screen, ...await alone.command("doctor")];
  },

  async "Offline"() {
    await using field = await Field.open();
    await field.agent("starts");
    const { sandbox } = field.served;
    await sandbox.waitFor(() => sandbox.agent(field.id)?.state === "waiting");
    sandbox.setAgent(field.id, { state: "offline", comment: "bad cable" });
    const limit = AbortSignal.timeout(PATIENCE_MS);
    while (!limit.aborted) {
      const screen = await field.command("online");
      if (screen.join("\n").includes("it stays")) return screen;
    }
    throw new Error("Gave up waiting for the agent to hear of it");
  },

  async "The server cannot be reached"() {
    await using field = await Field.open();
    await field.configure({ server_address: "http://127.0.0.1:59" });
    const screen = await field.agent("cannot be reached");
    await field.configure({ server_address: "http://no-such-host.invalid" });
    return [...screen, ...await field.command("doctor")];
  },

  async "The wrong server"() {
    await using field = await Field.open();
    const page = "<html><title>404 Not Found</title>";
    const html = { status: 404, headers: { "content-type": "text/html" } };
    field.served.sandbox.intercept(() => new Response(page, html));
    return [...await field.agent("Cannot ask for a job"), ...await field.command("doctor")];
  },

  async "A certificate that has expired, or of an unknown authority"() {
    await using field = await Field.open();
    const made = await certificates(field.folder);
    const screen: string[] = [];
    for (
      const [certificate, env] of [
        [made.expired, { SSL_CERT_FILE: made.authority }],
        [made.good, {}],
      ] as const
    ) {
      const server = Deno.serve(
        { port: 0, hostname: "127.0.0.1", onListen() {}, cert: certificate, key: made.key },
        () => new Response("Testflinger Server v1"),
      );
      await field.configure({ server_address: `https://127.0.0.1:${server.addr.port}` });
      screen.push(...await field.agent("cannot be reached", { env }));
      screen.push(...await field.command("doctor", env));
      await field.stop();
      await server.shutdown();
    }
    return screen;
  },

  async "The clock is wrong"() {
    await using field = await Field.open();
    field.served.sandbox.intercept((request) =>
      new URL(request.url).pathname === "/v1/"
        ? new Response("Testflinger Server v1", {
          headers: { date: new Date(Date.now() + 3_600_000).toUTCString() },
        })
        : undefined
    );
    return await field.command("doctor");
  },

  async "No token, or a wrong one"() {
    await using field = await Field.open({ tokens: true });
    const screen = await field.agent("Cannot ask for a job");
    await using wrong = await Field.open({ tokens: true });
    const token = JSON.stringify({ refresh_token: "revoked" });
    await Deno.writeTextFile(`${wrong.folder}/refresh_token`, token, { mode: 0o600 });
    const refused = await wrong.agent("refuses the refresh token");
    return [...screen, ...refused, ...await wrong.command("doctor")];
  },

  async "A token of the wrong role"() {
    await using field = await Field.open({ tokens: true });
    const token = JSON.stringify({ refresh_token: "of-a-contributor" });
    await Deno.writeTextFile(`${field.folder}/refresh_token`, token, { mode: 0o600 });
    field.served.sandbox.addRefreshToken("of-a-contributor", { role: "contributor" });
    return await field.command("doctor");
  },

  async "The disk is full"() {
    await using field = await Field.open();
    // More than any disk of a test has; what it says of a disk is the same.
    await field.configure({ min_free_space: "8000 TiB" });
    const screen = [...await field.agent("No job is taken"), ...await field.command("doctor")];
    return screen.map((line) =>
      line.replace(/min_free_space is [\d.]+ [KMG]iB/, "min_free_space is 1.0 GiB")
    );
  },
};

for (const [heading, bringAbout] of Object.entries(SECTIONS)) {
  Deno.test(`docs/troubleshooting.md says what the screen says: ${heading}`, async () => {
    const screen = await bringAbout();
    const quotes = quotesOnPage().get(heading) ?? [];
    const strange = quotes.filter((quote) => !screen.includes(quote));
    assertEquals(strange, [], `not on the screen, which says:\n${screen.join("\n")}`);
    assertEquals(quotes.length > 0, true, "the section quotes nothing");
  });
}

Deno.test("docs/troubleshooting.md quotes no screen that is not reproduced here", () => {
  assertEquals([...quotesOnPage().keys()].sort(), Object.keys(SECTIONS).sort());
});
