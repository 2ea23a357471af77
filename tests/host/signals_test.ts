import { assertEquals } from "@std/assert";
import { listeners } from "../support/listeners.ts";

/** What `deno run` prints when it has opened the debugger, and when it could not: a line each. */
const DEBUGGER_OPENED = /^Debugger listening on /gm;
const DEBUGGER_REFUSED = /^Failed to start inspector server/gm;

const POLL_MS = 20;
const PATIENCE_MS = 20_000;

async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** The runtime now and then passes over a signal: then there is no attempt to wait for. */
const POLLS_FOR_AN_ATTEMPT = 100;

async function attemptOrAWhile(wasAttempted: () => boolean): Promise<void> {
  for (let polls = 0; polls < POLLS_FOR_AN_ATTEMPT && !wasAttempted(); polls++) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** A child whose output can be looked at while it runs. */
class Program implements AsyncDisposable {
  #child: Deno.ChildProcess;
  #readers: Promise<void>[];
  stdout = "";
  stderr = "";

  constructor(...args: string[]) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--no-prompt",
        ...["env", "net", "read", "run", "sys", "write"].map((name) => `--allow-${name}`),
        new URL("./support/guarded_program.ts", import.meta.url).href,
        ...args,
      ],
      env: { NO_COLOR: "1" },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#readers = [
      this.#collect(this.#child.stdout, (text) => this.stdout += text),
      this.#collect(this.#child.stderr, (text) => this.stderr += text),
    ];
  }

  async #collect(stream: ReadableStream<Uint8Array>, add: (text: string) => void) {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) add(text);
  }

  get pid(): number {
    return this.#child.pid;
  }

  signal(): void {
    this.#child.kill("SIGUSR1");
  }

  async [Symbol.asyncDispose]() {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended by itself; the test says so.
    }
    await this.#child.status;
    await Promise.all(this.#readers);
  }
}

function count(text: string, pattern: RegExp): number {
  return [...text.matchAll(pattern)].length;
}

/** How often the runtime has come to its own handler of the signal, whatever came of it. */
function attempts(program: Program): number {
  return count(program.stderr, DEBUGGER_OPENED) + count(program.stderr, DEBUGGER_REFUSED);
}

/** The runtime listens for the signal only some time after the start: ask until it answers. */
async function untilRuntimeListens(program: Program): Promise<void> {
  await until("the program runs", () => program.stdout.includes("ready"));
  await until("the runtime listens for the signal, too", () => {
    program.signal();
    return attempts(program) > 0;
  });
}

async function untilNothingListens(program: Program): Promise<void> {
  await until("nothing listens", async () => (await listeners(program.pid)).length === 0);
}

Deno.test("without the guard this runtime opens a debugger at SIGUSR1", async () => {
  // Else the tests below would prove nothing: the guard could go.
  await using bare = new Program("bare");
  await untilRuntimeListens(bare);
  await until("the debugger listens (or another process has its port)", async () => {
    return (await listeners(bare.pid)).includes("0100007F:240D") ||
      count(bare.stderr, DEBUGGER_REFUSED) > 0;
  });
});

Deno.test("SIGUSR1 leaves no debugger open, and each signal is a request to restart", async () => {
  await using guarded = new Program();
  await untilRuntimeListens(guarded);
  await untilNothingListens(guarded);

  for (let round = 0; round < 5; round++) {
    const before = { heard: count(guarded.stdout, /^restart asked$/gm), tried: attempts(guarded) };
    guarded.signal();
    await until("the request is heard", () => {
      return count(guarded.stdout, /^restart asked$/gm) > before.heard;
    });
    await attemptOrAWhile(() => attempts(guarded) > before.tried);
    await untilNothingListens(guarded);
  }
  // Nothing comes back later by itself.
  assertEquals(await listeners(guarded.pid), []);
});

Deno.test("a burst of signals leaves nothing that listens", async () => {
  await using guarded = new Program();
  await untilRuntimeListens(guarded);
  for (let i = 0; i < 50; i++) guarded.signal();
  await untilNothingListens(guarded);
  assertEquals(await listeners(guarded.pid), []);
});
