import { assert, assertEquals } from "@std/assert";
import { allProcesses, type ProcessIdentity } from "../../lib/process/proc.ts";
import { capture, run, type RunOptions } from "../../lib/process/run.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { ENV, kill, Output, until } from "./support.ts";

/** Runs a shell script; what a test is about comes as `more`. */
function shell(
  script: string,
  output: Output,
  more: Partial<RunOptions> = {},
): ReturnType<typeof run> {
  return run(["/bin/sh", "-c", script], {
    env: ENV,
    clock: new FakeClock(),
    graceMs: 10_000,
    onOutput: output.onOutput,
    ...more,
  });
}

async function aliveIn(group: number): Promise<string[]> {
  return (await allProcesses())
    .filter((process) => process.group === group && !process.dead)
    .map((process) => process.name);
}

async function isThere(pid: number): Promise<boolean> {
  return (await allProcesses()).some((process) => process.pid === pid && !process.dead);
}

Deno.test("a command that ends by itself gives its status and all of its output", async () => {
  const output = new Output();
  const result = await shell("echo out; echo err >&2; exit 3", output);
  assertEquals(result, { ended: "exited", exit: { kind: "code", code: 3 } });
  assertEquals(output.text, "out\nerr\n");
});

Deno.test("a command that a signal ends gives the signal", async () => {
  const result = await shell("kill -SEGV $$", new Output());
  assertEquals(result, { ended: "exited", exit: { kind: "signal", signal: 11 } });
});

Deno.test("10 MB without a newline come through whole", async () => {
  let bytes = 0;
  let largest = 0;
  const result = await shell("head -c 10485760 /dev/zero", new Output(), {
    onOutput: (chunk) => {
      bytes += chunk.length;
      largest = Math.max(largest, chunk.length);
    },
  });
  assertEquals(result, { ended: "exited", exit: { kind: "code", code: 0 } });
  assertEquals(bytes, 10_485_760);
  assert(largest <= 65_536);
});

Deno.test("a command waits while its output is being stored, and nothing is lost", async () => {
  const gate = Promise.withResolvers<void>();
  const clock = new FakeClock();
  let bytes = 0;
  let first = true;
  const done = shell("head -c 1000000 /dev/zero", new Output(), {
    clock,
    limits: { silenceMs: 1_000 },
    onOutput: async (chunk) => {
      bytes += chunk.length;
      if (first) {
        first = false;
        await gate.promise;
      }
    },
  });
  await until("the first output is there", () => bytes > 0);
  const before = bytes;
  // A command that waits for us is not silent.
  await clock.advance(60_000);
  assertEquals(bytes, before);
  gate.resolve();
  assertEquals(await done, { ended: "exited", exit: { kind: "code", code: 0 } });
  assertEquals(bytes, 1_000_000);
});

Deno.test("output that is stored slowly is not lost when the command has ended long ago", async () => {
  const gate = Promise.withResolvers<void>();
  const clock = new FakeClock();
  let pid = 0;
  let bytes = 0;
  // The last 64 KiB fit into the pipe, and the sleeper holds it open.
  const done = shell("head -c 4096 /dev/zero; sleep 1000 & head -c 60000 /dev/zero", new Output(), {
    clock,
    onStarted: (identity) => {
      pid = identity.pid;
    },
    onOutput: async (chunk) => {
      bytes += chunk.length;
      await gate.promise;
    },
  });
  try {
    await until(
      "only the sleeper is left",
      async () => pid > 0 && bytes > 0 && (await aliveIn(pid)).join() === "sleep",
    );
    await until("the drain has begun", () => clock.sleepers > 0);
    await clock.advance(60_000);
    gate.resolve();
    assertEquals(await done, { ended: "exited", exit: { kind: "code", code: 0 } });
    assertEquals(bytes, 64_096);
  } finally {
    await killGroup(pid);
  }
});

Deno.test("a process that was left behind lives on, and delays the end by the drain time only", async () => {
  await using fifo = await makeFifo();
  const clock = new FakeClock();
  const output = new Output();
  const done = shell(
    "sh -c 'trap \"\" PIPE; read go <$0; echo late && echo wrote >$0.done; sleep 1000' $FIFO & echo left=$!",
    output,
    {
      clock,
      env: fifo.env,
    },
  );
  const left = await output.number("left");
  try {
    await until("the drain has begun", () => clock.sleepers > 0);
    await clock.advance(1_999);
    assertEquals(await settled(done), undefined);
    await clock.advance(1);
    assertEquals(await done, { ended: "exited", exit: { kind: "code", code: 0 } });
    assert(await isThere(left));
    // It may even go on to print.
    await fifo.go();
    await until("it has printed", () => fifo.isDone());
    assert(await isThere(left));
    assertEquals(output.text, `left=${left}\n`, "what it prints later is nobody's");
  } finally {
    kill(left);
  }
});

Deno.test("a daemon that prints without end does not keep its command from ending", async () => {
  const clock = new FakeClock();
  const output = new Output();
  let tail = 0;
  const done = shell("setsid sh -c 'echo left=$$; exec yes' &", output, {
    clock,
    onOutput: (bytes) => {
      if (tail === 0) output.onOutput(bytes);
      tail += bytes.length;
    },
  });
  const left = await output.number("left");
  try {
    await until("the drain has begun", () => clock.sleepers > 0);
    await clock.advance(2_000);
    assertEquals(await done, { ended: "exited", exit: { kind: "code", code: 0 } });
    const then = tail;
    assert(await isThere(left));
    assertEquals(tail, then);
  } finally {
    kill(left);
  }
});

Deno.test("a command that closes its output and lives on is waited for", async () => {
  await using fifo = await makeFifo();
  const clock = new FakeClock();
  let pid = 0;
  const done = shell("exec >&- 2>&-; read go <$FIFO; exit 5", new Output(), {
    clock,
    env: fifo.env,
    onStarted: (identity) => {
      pid = identity.pid;
    },
  });
  await until("it runs", async () => pid > 0 && await isThere(pid));
  assertEquals(await settled(done), undefined);
  await fifo.go();
  assertEquals(await done, { ended: "exited", exit: { kind: "code", code: 5 } });
});

Deno.test("the total limit ends the whole group, and what was printed is kept", async () => {
  const clock = new FakeClock();
  const output = new Output();
  const done = shell(
    "echo first; sleep 1000 & trap 'echo last; exit 1' TERM; echo group=$$; wait",
    output,
    {
      clock,
      limits: { totalMs: 14_400_000 },
    },
  );
  const group = await output.number("group");
  await clock.advance(14_399_999);
  assertEquals(await settled(done), undefined);
  await clock.advance(1);
  assertEquals(await done, { ended: "limit", limit: "total", exit: { kind: "code", code: 1 } });
  assertEquals(output.text, `first\ngroup=${group}\nlast\n`);
  assertEquals(await aliveIn(group), []);
});

Deno.test("the silence limit counts from the last byte of output", async () => {
  const clock = new FakeClock();
  const output = new Output();
  await using fifo = await makeFifo();
  const done = shell("echo one=1; read go <$FIFO; printf .; echo two=2; sleep 1000", output, {
    clock,
    env: fifo.env,
    limits: { silenceMs: 900_000, totalMs: 14_400_000 },
  });
  await output.number("one");
  await clock.advance(899_999);
  await fifo.go();
  await output.number("two");
  await clock.advance(899_999);
  assertEquals(await settled(done), undefined);
  await clock.advance(1);
  assertEquals(await done, {
    ended: "limit",
    limit: "silence",
    exit: { kind: "signal", signal: 15 },
  });
  assertEquals(clock.sleepers, 0);
});

Deno.test("what ignores TERM is killed after the grace, and the run is over", async () => {
  const clock = new FakeClock();
  const output = new Output();
  const done = shell(
    "trap '' TERM; sleep 1000 & echo group=$$; while :; do sleep 1000; done",
    output,
    {
      clock,
      limits: { totalMs: 1_000 },
    },
  );
  const group = await output.number("group");
  await clock.advance(1_000);
  await clock.advance(9_999);
  assertEquals(await settled(done), undefined);
  assert((await aliveIn(group)).length > 0);
  await clock.advance(1);
  assertEquals(await done, {
    ended: "limit",
    limit: "total",
    exit: { kind: "signal", signal: 9 },
  });
  assertEquals(await aliveIn(group), []);
});

Deno.test("an abort ends the group and gives the reason", async () => {
  const output = new Output();
  const cancel = new AbortController();
  const done = shell("sleep 1000 & echo group=$$; wait", output, { signal: cancel.signal });
  const group = await output.number("group");
  cancel.abort("cancelled");
  assertEquals(await done, {
    ended: "aborted",
    reason: "cancelled",
    exit: { kind: "signal", signal: 15 },
  });
  assertEquals(await aliveIn(group), []);
});

Deno.test("a second signal forces the end", async () => {
  const output = new Output();
  const stop = new AbortController();
  const forceStop = new AbortController();
  const done = shell("trap '' TERM; echo group=$$; while :; do sleep 1000; done", output, {
    signal: stop.signal,
    forceStop: forceStop.signal,
  });
  const group = await output.number("group");
  stop.abort("stop");
  forceStop.abort();
  assertEquals(await done, {
    ended: "aborted",
    reason: "stop",
    exit: { kind: "signal", signal: 9 },
  });
  assertEquals(await aliveIn(group), []);
});

Deno.test("the first cause is the one that counts", async () => {
  const clock = new FakeClock();
  const output = new Output();
  const cancel = new AbortController();
  const done = shell("trap '' TERM; echo group=$$; while :; do sleep 1000; done", output, {
    clock,
    signal: cancel.signal,
    limits: { totalMs: 1_000, silenceMs: 1_001 },
  });
  await output.number("group");
  await clock.advance(1_000);
  cancel.abort("too late");
  await clock.advance(10_000);
  assertEquals(await done, {
    ended: "limit",
    limit: "total",
    exit: { kind: "signal", signal: 9 },
  });
});

Deno.test("a command that is not wanted any more is not started", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const result = await shell("touch started", new Output(), {
      cwd: folder,
      signal: AbortSignal.abort("cancelled"),
    });
    assertEquals(result, {
      ended: "aborted",
      reason: "cancelled",
      exit: { kind: "signal", signal: 15 },
    });
    assertEquals([...Deno.readDirSync(folder)], []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("output that cannot be stored ends the group, and says why", async () => {
  const error = new Error("No space left on device");
  let group = 0;
  const result = await shell("sleep 1000 & echo x; wait", new Output(), {
    onStarted: ({ pid }) => {
      group = pid;
    },
    onOutput: () => Promise.reject(error),
  });
  assertEquals(result, { ended: "sink_failed", error, exit: { kind: "signal", signal: 15 } });
  assertEquals(await aliveIn(group), []);
});

Deno.test("output that cannot be stored is told also when the command has ended well", async () => {
  const error = new Error("No space left on device");
  const gate = Promise.withResolvers<void>();
  const clock = new FakeClock();
  let group = 0;
  const done = shell("echo x", new Output(), {
    clock,
    onStarted: ({ pid }) => {
      group = pid;
    },
    onOutput: async () => {
      await gate.promise;
      throw error;
    },
  });
  await until("it has ended", async () => group > 0 && !await isThere(group));
  await until("the drain has begun", () => clock.sleepers > 0);
  gate.resolve();
  assertEquals(await done, { ended: "sink_failed", error, exit: { kind: "code", code: 0 } });
});

Deno.test("who it is comes before the first output, and a failure to note it ends the command", async () => {
  const order: string[] = [];
  let started: ProcessIdentity | undefined;
  await shell("echo $$", new Output(), {
    onStarted: async (identity) => {
      await Promise.resolve();
      started = identity;
      order.push("started");
    },
    onOutput: (bytes) => {
      order.push(new TextDecoder().decode(bytes));
    },
  });
  assertEquals(order, ["started", `${started?.pid}\n`]);

  const error = new Error("No space left on device");
  const result = await shell("sleep 1000", new Output(), {
    onStarted: () => Promise.reject(error),
  });
  assertEquals(result, { ended: "sink_failed", error, exit: { kind: "signal", signal: 15 } });
});

Deno.test("a command that cannot be started is a result", async () => {
  const result = await shell("true", new Output(), { cwd: "/no/such/folder" });
  assertEquals(result, {
    ended: "not_started",
    message: "Cannot start /bin/sh: working directory /no/such/folder is not a directory",
  });
});

Deno.test("a captured command gives both streams, up to a size", async () => {
  const common = { env: ENV, clock: new FakeClock(), graceMs: 10_000 };
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

  const small = await capture(["sh", "-c", "cat; echo err >&2; exit 4"], {
    ...common,
    input: new TextEncoder().encode("in"),
    maxBytes: 100,
  });
  assertEquals(small.result, { ended: "exited", exit: { kind: "code", code: 4 } });
  assertEquals([text(small.stdout), text(small.stderr), small.truncated], ["in", "err\n", false]);

  const large = await capture(["sh", "-c", "printf abcdef; head -c 1000000 /dev/zero"], {
    ...common,
    maxBytes: 6,
  });
  assertEquals(large.result, { ended: "exited", exit: { kind: "code", code: 0 } });
  assertEquals([text(large.stdout), large.stderr.length, large.truncated], ["abcdef", 0, true]);
});

Deno.test("a captured command that takes too long is ended", async () => {
  const clock = new FakeClock();
  const done = capture(["sh", "-c", "sleep 1000 & sleep 1000"], {
    env: ENV,
    clock,
    graceMs: 10_000,
    maxBytes: 100,
    timeoutMs: 30_000,
  });
  await until("it runs", () => clock.sleepers > 0);
  await clock.advance(30_000);
  const { result } = await done;
  assertEquals(result, { ended: "limit", limit: "total", exit: { kind: "signal", signal: 15 } });
});

/** What a promise has come to, if it has. */
async function settled<T>(promise: Promise<T>): Promise<T | undefined> {
  const now = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), 0));
  return await Promise.race([promise, now]);
}

async function killGroup(group: number): Promise<void> {
  const members = (await allProcesses()).filter((process) => process.group === group);
  kill(...members.map(({ pid }) => pid));
}

/** A pipe with a name: who reads `$FIFO` waits for `go()`. `$FIFO.done` may be made to say more. */
async function makeFifo() {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/fifo`;
  await new Deno.Command("mkfifo", { args: [path] }).output();
  return {
    env: { ...ENV, FIFO: path },
    go: () => Deno.writeTextFile(path, "go\n"),
    isDone: () => Deno.stat(`${path}.done`).then(() => true, () => false),
    [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }),
  };
}
