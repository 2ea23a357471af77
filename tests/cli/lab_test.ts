/** A person's side of a lab, in this process: what the server does in between is the test's to say. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { LabServer } from "../../lib/cli/lab/lab_server.ts";
import { main } from "../../lib/cli/main.ts";
import { type ServedSandbox, serveSandbox } from "../../lib/sandbox/serve.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { freePort } from "../support/free_port.ts";
import { type Ran, run, withFiles } from "./support.ts";

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

const JOB_ID = "4b1e7c0e-8f0d-4c5e-9a55-6a1c5f0f3b21";

/** All commands that talk to a server. */
function calls(folder: string): string[][] {
  return [
    ["submit", `${folder}/job.yaml`],
    ["results", JOB_ID],
    ["artifacts", JOB_ID],
    ["cancel", JOB_ID],
  ];
}

Deno.test("why there is no answer is said in the agent's words: a closed port, an unknown name, no TLS", () =>
  withFiles(JOB, async (folder) => {
    const served = serveSandbox();
    try {
      const { port } = new URL(served.url);
      for (
        const [server, words] of [
          [
            `http://127.0.0.1:${freePort()}`,
            "tcp connect error: Connection refused (os error 111)",
          ],
          ["nosuch.invalid", "dns error: "],
          [`https://127.0.0.1:${port}`, "received corrupt message"],
        ] as const
      ) {
        for (const args of calls(folder)) {
          const { status, stderr } = await run(...args, "--server", server);
          assertEquals(status, 1);
          assertMatch(stderr, /^(GET|POST) http\S+: [^\n]+\n$/);
          assertStringIncludes(stderr, words);
          assertEquals(/fetch failed|error sending request/.test(stderr), false, stderr);
        }
      }
    } finally {
      await served.close();
    }
  }));

Deno.test("an address that is none of a server is refused before anything is asked", () =>
  withFiles(JOB, async (folder) => {
    for (const server of ["ftp://foo", "http://a b", "http://me:secret@foo"]) {
      for (const args of calls(folder)) {
        const { status, stderr } = await run(...args, "--server", server);
        assertEquals(status, 2);
        assertMatch(stderr, /^--server must (be|not contain) [^\n]+\n$/);
        assertEquals(stderr.includes("secret"), false);
      }
    }
  }));

Deno.test("a client without its secret is refused, and every help says where the secret goes", async () => {
  const line = { lists: {}, switches: new Set<string>(), positionals: [] };
  const message = "The client 'me' has no secret: set TESTFLINGER_SECRET_KEY in the environment";
  const byOption = { ...line, values: { "client-id": "me" } };
  assertEquals(LabServer.read(byOption, {}), { ok: false, message });
  const env = { TESTFLINGER_CLIENT_ID: "me", TESTFLINGER_SECRET_KEY: "" };
  assertEquals(LabServer.read({ ...line, values: {} }, env), { ok: false, message });
  assertEquals(LabServer.read(byOption, { TESTFLINGER_SECRET_KEY: "s" }).ok, true);
  for (const [command = ""] of calls("")) {
    const { stdout } = await run(command, "--help");
    for (const name of ["SERVER", "CLIENT_ID", "SECRET_KEY"]) {
      assertStringIncludes(stdout, `$TESTFLINGER_${name}`);
    }
  }
  assertStringIncludes((await run("help", "--man")).stdout, "TESTFLINGER");
});

Deno.test("artifacts of which only a part arrives are named in one line", async () => {
  const served = serveSandbox();
  try {
    served.sandbox.intercept((request) =>
      request.url.endsWith("/artifact")
        ? new Response(
          new ReadableStream({
            pull(controller) {
              controller.enqueue(new Uint8Array(10));
              controller.error(new Error("gone"));
            },
          }),
        )
        : undefined
    );
    const { status, stderr } = await run("artifacts", JOB_ID, "--server", served.url);
    assertEquals(status, 1);
    assertMatch(stderr, /^The artifacts of job \S+ did not arrive whole: [^\n]+; try again\n$/);
  } finally {
    await served.close();
  }
});
