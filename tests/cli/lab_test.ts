/** A person's side of a lab, in this process: what the server does in between is the test's to say. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { main } from "../../lib/cli/main.ts";
import { type ServedSandbox, serveSandbox } from "../../lib/sandbox/serve.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { type Ran, withFiles } from "./support.ts";

const JOB = { "job.yaml": "job_queue: queue-1\ntest_data:\n  test_cmds: echo\n" };

/** A `submit --wait` whose time the test moves on, until `until` is printed or it has ended. */
class Waiting {
  readonly clock = new FakeClock();
  readonly ended: Promise<Ran>;
  #printed = "";
  #isOver = false;

  constructor(folder: string, url: string) {
    let stdout = "";
    this.ended = main(["submit", `${folder}/job.yaml`, "--wait", "--server", url], {
      stdout: (text) => stdout += text,
      stderr: (text) => this.#printed += text,
      signals: { listen() {} },
      host: { clock: this.clock },
    }).then((status) => ({ status, stdout, stderr: this.#printed }))
      .finally(() => this.#isOver = true);
  }

  get jobId(): string {
    return /^Job (\S+) is submitted/.exec(this.#printed)?.[1] ?? "";
  }

  async until(wanted: string): Promise<void> {
    while (!this.#isOver && !this.#printed.includes(wanted)) await this.clock.advance(100);
    assertStringIncludes(this.#printed, wanted);
  }
}

Deno.test("submit --wait ends as results does when the server no longer knows the job", () =>
  withFiles(JOB, async (folder) => {
    let served: ServedSandbox = serveSandbox();
    try {
      const { url } = served;
      const waiting = new Waiting(folder, url);
      await waiting.until("[waiting]\n");
      await served.close();
      await waiting.until("trying again\n");
      // Another one, which has nothing of what the first one had in memory.
      served = serveSandbox({ port: Number(new URL(url).port) });
      const { status, stderr } = await waiting.clock.advanceUntil(waiting.ended, 100);
      assertEquals(status, 1);
      assertMatch(
        stderr,
        /\[waiting\]\nGET http\S+: [^\n]+; trying again\nThe server is back\nhttp\S+ knows no job \S+\n$/,
      );
    } finally {
      await served.close();
    }
  }));

Deno.test("submit --wait goes on where a server has no result of a job for a moment", () =>
  withFiles(JOB, async (folder) => {
    const served = serveSandbox();
    try {
      let looks = 0;
      served.sandbox.intercept((request) =>
        request.url.includes("/v1/result/") && ++looks < 9
          ? new Response(null, { status: 204 })
          : undefined
      );
      const waiting = new Waiting(folder, served.url);
      await waiting.until("[waiting]\n");
      served.sandbox.cancel(waiting.jobId);
      const { status, stderr } = await waiting.clock.advanceUntil(waiting.ended, 100);
      assertEquals(status, 1);
      assertMatch(stderr, /\[waiting\]\n\[cancelled\]\n$/);
    } finally {
      await served.close();
    }
  }));
