/**
 * A host of real agents, run by the built file, with a server in memory. What jobs print is what the test
 * writes into files.
 */
import { join } from "node:path";
import type { Browser } from "playwright-core";
import { startProgram } from "../e2e/built_program.ts";
import { HostLab } from "../host/support/host_lab.ts";
import { startBrowser } from "./browser.ts";

/** A lab without agents, and a browser. */
export async function withLab(
  test: (lab: HostLab, browser: Browser) => Promise<void>,
): Promise<void> {
  const browser = await startBrowser();
  if (browser === undefined) return;
  try {
    await using lab = await HostLab.open({}, startProgram);
    await test(lab, browser);
  } finally {
    await browser.close();
  }
}

/** The page of the host, without a slash at the end. */
export const urlOf = (lab: HostLab) => `http://127.0.0.1:${lab.port}`;

/** The page of an agent. */
export const agentUrlOf = (lab: HostLab, name: string) =>
  `${urlOf(lab)}/agents/${encodeURIComponent(lab.id(name))}`;

/** What the jobs of one agent do: provision prints and passes, the other phases follow a file each. */
export class Script {
  readonly #folder: string;
  /** The commands of its phases, for its configuration. */
  readonly commands: Record<string, string>;

  constructor(lab: HostLab, name: string) {
    const folder = this.#folder = join(lab.folder, name);
    const follow = (file: string) =>
      `tail -c +1 -f ${folder}/${file} & printing=$!; ` +
      `until [ -e ${folder}/${file}.end -o ! -e ${folder} ]; do sleep 0.05; done; ` +
      "sleep 0.2; kill $printing";
    this.commands = {
      provision_command: `cat ${folder}/provision`,
      test_command:
        `: >test-serial.log; tail -c +1 -f ${folder}/serial >>test-serial.log & serial=$!; ` +
        `${follow("test")}; kill $serial`,
      cleanup_command: follow("cleanup"),
    };
  }

  /** Before a job: nothing is printed yet but what provision says. */
  async prepare(provision = ""): Promise<void> {
    await Deno.mkdir(this.#folder, { recursive: true });
    const empty = ["serial", "test", "cleanup"];
    for (const file of empty) await Deno.writeTextFile(join(this.#folder, file), "");
    for (const file of empty) await Deno.remove(join(this.#folder, `${file}.end`)).catch(() => {});
    await Deno.writeTextFile(join(this.#folder, "provision"), provision);
  }

  /** Prints in a phase, or to the serial log. */
  async print(file: "test" | "cleanup" | "serial", text: string): Promise<void> {
    await Deno.writeTextFile(join(this.#folder, file), text, { append: true });
  }

  /** Lets a phase end. */
  async end(phase: "test" | "cleanup"): Promise<void> {
    await Deno.writeTextFile(join(this.#folder, `${phase}.end`), "");
  }
}

/** A job for an agent, with the limits that the pages show. */
export function submit(lab: HostLab, name: string, jobName: string): string {
  return lab.submit(name, {
    name: jobName,
    global_timeout: 3600,
    output_timeout: 900,
    provision_data: { url: "x" },
  });
}
